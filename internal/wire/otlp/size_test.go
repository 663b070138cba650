package otlp

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// field is a field of bytes.
func field(num protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), content)
}

// within wraps content into the message fields nums, the last one innermost.
func within(content []byte, nums ...protowire.Number) []byte {
	for i := len(nums) - 1; i >= 0; i-- {
		content = field(nums[i], content)
	}
	return content
}

// nestedProto has an attribute value of arrays, or maps, nested n deep.
func nestedProto(n int, list bool) []byte {
	nums := []protowire.Number{1, 1, 1, 2} // request, resource metrics, resource, attribute, value
	for range n {
		if list {
			nums = append(nums, 5, 1)
		} else {
			nums = append(nums, 6, 1, 2)
		}
	}
	return within(nil, nums...)
}

func nestedJSON(n int) []byte {
	return []byte(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":` +
		strings.Repeat(`{"arrayValue":{"values":[`, n) + `{"stringValue":"[\"{"}` + strings.Repeat(`]}}`, n) + `}]}}]}`)
}

func TestSizeRefusesNesting(t *testing.T) {
	f := func(form Form, msg []byte, want errs.Kind) {
		t.Helper()
		if _, err := Size(form, msg); errs.KindOf(err) != want {
			t.Fatalf("%v, want %v", err, want)
		}
		if want == errs.OK {
			if _, err := Decode(form, msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	f(Protobuf, nestedProto(25, true), errs.OK)
	f(Protobuf, nestedProto(100, true), errs.Invalid)
	f(Protobuf, nestedProto(100, false), errs.Invalid)
	f(Protobuf, nestedProto(4_000, true), errs.Invalid)
	f(JSON, nestedJSON(15), errs.OK)
	f(JSON, nestedJSON(100), errs.Invalid)
	f(JSON, []byte(strings.Repeat("[", 1_000_000)), errs.Invalid)
	// What is no protobuf, or not as OTLP uses it.
	f(Protobuf, []byte{0x0b, 0x0c}, errs.Invalid)       // a group
	f(Protobuf, []byte{0x0a, 0x05, 0x01}, errs.Invalid) // ends too early
	f(Protobuf, []byte{0x00}, errs.Invalid)             // field 0
	f(Protobuf, []byte{0x8a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00},
		errs.Invalid) // field 1 + 2^46: the decoder takes it for 1
	f(Protobuf, append(field(100, []byte("unknown")), everythingProto...), errs.OK)       // an unknown field
	f(Protobuf, within(field(1, []byte{0xff, 0xff}), 1, 1000, 2, 12, 2, 5), errs.Invalid) // scope metrics of old senders
}

// TestDecodeRefusesLongAttributes: the converter's labels would break on them.
func TestDecodeRefusesLongAttributes(t *testing.T) {
	f := func(want errs.Kind, spoil func(md pmetric.Metrics, long string)) {
		t.Helper()
		for form, n := range map[Form]int{Protobuf: 3 << 20, JSON: 17 << 20} {
			md := everything()
			spoil(md, strings.Repeat("x", n))
			if _, err := Decode(form, encode(form, md)); errs.KindOf(err) != want {
				t.Fatalf("%v, want %v", err, want)
			}
		}
	}
	first := func(md pmetric.Metrics) pmetric.ScopeMetrics { return md.ResourceMetrics().At(0).ScopeMetrics().At(0) }
	f(errs.TooLarge, func(md pmetric.Metrics, long string) {
		md.ResourceMetrics().At(2).Resource().Attributes().PutStr("a", long)
	})
	f(errs.TooLarge, func(md pmetric.Metrics, long string) { first(md).Scope().SetName(long) })
	f(errs.TooLarge, func(md pmetric.Metrics, long string) { first(md).Metrics().At(3).SetName(long) })
	f(errs.TooLarge, func(md pmetric.Metrics, long string) {
		a := first(md).Metrics().At(2).Histogram().DataPoints().At(1).Attributes()
		a.PutEmptyMap("m").PutEmptySlice("s").AppendEmpty().SetStr(long[len(long)/2:])
		a.PutStr("v", long[:len(long)/2])
	})
	f(errs.OK, func(md pmetric.Metrics, long string) { // much, but not of one data point
		points := first(md).Metrics().At(0).Gauge().DataPoints()
		for i := range 20 {
			points.AppendEmpty().Attributes().PutStr("v", long[:i<<16])
		}
	})
}

var everythingProto = encode(Protobuf, everything())

// TestSizeIsEnough decodes what makes much of few bytes, and what senders send: the memory that it takes is not above
// Size.
func TestSizeIsEnough(t *testing.T) {
	many := func(content []byte, n int) []byte { return []byte(strings.Repeat(string(content), n)) }
	f := func(name string, form Form, msg []byte) {
		t.Helper()
		size, err := Size(form, msg)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		md, err := Decode(form, msg)
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		live := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		runtime.KeepAlive(md)
		runtime.KeepAlive(msg)
		t.Logf("%-20s %8d bytes, size %10d, live %10d", name, len(msg), size, live)
		if live > size {
			t.Errorf("%s: %d bytes of memory, more than %d", name, live, size)
		}
	}
	const n = 100_000
	f("resources", Protobuf, many([]byte{0x0a, 0}, n))
	f("scopes", Protobuf, within(many([]byte{0x12, 0}, n), 1))
	f("metrics", Protobuf, within(many([]byte{0x12, 0}, n), 1, 2))
	f("gauges", Protobuf, within(many(within([]byte{0x2a, 0}, 2), n), 1, 2))
	for _, of := range []protowire.Number{5, 7, 9, 10, 11} {
		f("data points", Protobuf, within(many([]byte{0x0a, 0}, n), 1, 2, 2, of))
	}
	f("exemplars", Protobuf, within(many([]byte{0x2a, 0}, n), 1, 2, 2, 5, 1))
	f("quantiles", Protobuf, within(many([]byte{0x32, 0}, n), 1, 2, 2, 11, 1))
	f("attributes", Protobuf, within(many([]byte{0x0a, 0}, n), 1, 1))
	f("array values", Protobuf, within(many([]byte{0x0a, 0}, n), 1, 1, 1, 2, 5))
	f("map values", Protobuf, within(many([]byte{0x0a, 0}, n), 1, 1, 1, 2, 6))
	f("buckets", Protobuf, within(many([]byte{1}, n), 1, 2, 2, 10, 1, 8, 2))
	f("bucket by bucket", Protobuf, within(many([]byte{0x10, 1}, n), 1, 2, 2, 10, 1, 8))
	f("entities", Protobuf, within(many([]byte{0x1a, 0}, n), 1, 1))
	f("entity keys", Protobuf, within(many([]byte{0x1a, 0}, n), 1, 1, 3))
	list := func(before, item, after string) []byte {
		return []byte(before + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + after)
	}
	f("JSON resources", JSON, list(`{"resourceMetrics":[`, `{}`, `]}`))
	f("JSON points", JSON,
		list(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"exponentialHistogram":{"dataPoints":[`, `{}`, `]}}]}]}]}`))
	f("JSON attributes", JSON, list(`{"resourceMetrics":[{"resource":{"attributes":[`, `{}`, `]}}]}`))
	f("JSON buckets", JSON,
		list(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":[`, `1`,
			`]}]}}]}]}]}`))
	real := pmetric.NewMetrics()
	for range 500 {
		everything().ResourceMetrics().MoveAndAppendTo(real.ResourceMetrics())
	}
	msg, text := encode(Protobuf, real), encode(JSON, real)
	f("everything", Protobuf, msg)
	f("everything in JSON", JSON, text)
}

// FuzzTranslate: any message is refused or becomes a batch that another process can read.
func FuzzTranslate(f *testing.F) {
	md := everything()
	f.Add(false, encode(Protobuf, md))
	f.Add(true, encode(JSON, md))
	f.Add(false, nestedProto(20, false))
	f.Add(true, nestedJSON(10))
	bad := pmetric.NewMetrics()
	ms := resourceOf(bad, service)
	exponentialOf(ms, "e", -5, 1)
	sumOf(ms, "d", pmetric.AggregationTemporalityDelta, 1)
	f.Add(false, encode(Protobuf, bad))
	var translators []*Translator
	for _, o := range allOptions() {
		tr, err := New(o)
		if err != nil {
			f.Fatal(err)
		}
		translators = append(translators, tr)
	}
	f.Fuzz(func(t *testing.T, json bool, msg []byte) {
		form := Protobuf
		if json {
			form = JSON
		}
		if size, err := Size(form, msg); err != nil || size > 16<<20 {
			return
		}
		md, err := Decode(form, msg)
		if err != nil {
			return
		}
		points := md.DataPointCount()
		got, err := translators[len(msg)%len(translators)].Translate(context.Background(), "acme", md, 16<<20)
		if err != nil {
			if errs.KindOf(err) != errs.TooLarge {
				t.Fatal(err)
			}
			return
		}
		defer got.Batch.Release()
		if got.Points != points || got.Rejected(nil) > points {
			t.Fatalf("%d of %d points rejected, the request has %d", got.Rejected(nil), got.Points, points)
		}
		again, err := wire.DecodeShard(wire.AppendShard(nil, wire.All(got.Batch)))
		if err != nil {
			t.Fatal(err)
		}
		defer again.Release()
		for i := range got.Batch.Series {
			s := &got.Batch.Series[i]
			if string(again.Series[i].Labels()) != string(s.Labels()) || again.Series[i].Key != s.Key ||
				len(s.Samples)+len(s.Histograms) != 1 {
				t.Fatalf("series %q became %q", s.Labels(), again.Series[i].Labels())
			}
			last := ""
			for rest := s.Labels(); len(rest) > 0; {
				var name, value string
				name, value, rest = wire.NextLabel(rest)
				if name <= last || value == "" || !utf8.ValidString(name+value) {
					t.Fatalf("labels %q are not canonical", s.Labels())
				}
				last = name
			}
		}
	})
}
