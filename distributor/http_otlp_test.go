package distributor

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/internal/wire/otlp"
)

const contentJSON = "application/json"

// otlpBody has a gauge of one data point for each name; those called delta are a sum of delta temporality.
func otlpBody(content string, names ...string) []byte {
	md := pmetric.NewMetrics()
	ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	for _, name := range names {
		m := ms.AppendEmpty()
		m.SetName(name)
		var points pmetric.NumberDataPointSlice
		if name == "delta" {
			m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			points = m.Sum().DataPoints()
		} else {
			points = m.SetEmptyGauge().DataPoints()
		}
		p := points.AppendEmpty()
		p.SetTimestamp(1e9)
		p.SetIntValue(1)
	}
	req := pmetricotlp.NewExportRequestFromMetrics(md)
	marshal := req.MarshalProto
	if content == contentJSON {
		marshal = req.MarshalJSON
	}
	msg, err := marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

func zipped(msg []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(msg)
	w.Close()
	return b.Bytes()
}

func (c *cluster) otlp(r httpRequest) *httptest.ResponseRecorder {
	t, err := otlp.New(otlp.DefaultOptions())
	if err != nil {
		c.t.Fatal(err)
	}
	method := r.method
	if method == "" {
		method = http.MethodPost
	}
	req := httptest.NewRequest(method, "/otlp/v1/metrics", bytes.NewReader(r.body))
	req.Header.Set("Content-Type", r.content)
	if r.encoding != "" {
		req.Header.Set("Content-Encoding", r.encoding)
	}
	for i := 0; i < len(r.headers); i += 2 {
		req.Header.Add(r.headers[i], r.headers[i+1])
	}
	w := httptest.NewRecorder()
	c.OTLPHandler(t).ServeHTTP(w, req)
	return w
}

// otlpAnswer is an answer's rejected data points and text, or the code and text of a status. It fails when the body is
// not what the protocol asks for with the status.
func otlpAnswer(t *testing.T, w *httptest.ResponseRecorder) (n int64, text string) {
	t.Helper()
	body, content := w.Body.Bytes(), w.Header().Get("Content-Type")
	if w.Code == http.StatusOK {
		resp := pmetricotlp.NewExportResponse()
		unmarshal := resp.UnmarshalProto
		if content == contentJSON {
			unmarshal = resp.UnmarshalJSON
		}
		if err := unmarshal(body); err != nil {
			t.Fatal(err)
		}
		return resp.PartialSuccess().RejectedDataPoints(), resp.PartialSuccess().ErrorMessage()
	}
	if content == contentJSON {
		var s struct {
			Code    int64
			Message string
		}
		if err := json.Unmarshal(body, &s); err != nil {
			t.Fatal(err)
		}
		return s.Code, s.Message
	}
	for len(body) > 0 {
		num, typ, size := protowire.ConsumeTag(body)
		body = body[max(size, 0):]
		switch {
		case num == 1 && typ == protowire.VarintType:
			v, size := protowire.ConsumeVarint(body)
			n, body = int64(v), body[size:]
		case num == 2 && typ == protowire.BytesType:
			v, size := protowire.ConsumeString(body)
			text, body = v, body[size:]
		default:
			t.Fatalf("%q is no google.rpc.Status", w.Body)
		}
	}
	return n, text
}

func TestOTLPStatus(t *testing.T) {
	f := func(r httpRequest, status, stored int, n int64, text string) {
		t.Helper()
		opts := DefaultOptions()
		opts.MaxBody, opts.MaxDecoded = 64<<10, 80_000
		c := newCluster(t, newFakeRing(1, "a"), opts)
		defer c.close()
		w := c.otlp(r)
		gotN, gotText := otlpAnswer(t, w)
		if w.Code != status || gotN != n || !strings.Contains(gotText, text) || text == "" && gotText != "" {
			t.Fatalf("status %d, %d, %q; want %d, %d, %q", w.Code, gotN, gotText, status, n, text)
		}
		if s, _ := c.member("a").count(); s != stored {
			t.Fatalf("status %d: %d series stored, want %d", w.Code, s, stored)
		}
		if r.content == contentV1 && w.Header().Get("Content-Type") != contentV1 {
			t.Fatal("protobuf was not answered with protobuf")
		}
	}
	for _, content := range []string{contentV1, contentJSON} {
		good := otlpBody(content, "a", "b")
		f(httpRequest{content: content, body: good}, 200, 2, 0, "")
		f(httpRequest{content: content + ";charset=utf-8", encoding: "identity", body: good}, 200, 2, 0, "")
		f(httpRequest{content: content, encoding: "gzip", body: zipped(good)}, 200, 2, 0, "")
		f(httpRequest{content: content, body: otlpBody(content)}, 200, 0, 0, "")
		// A part, and all, of it refused.
		f(httpRequest{content: content, body: otlpBody(content, "a", "delta")}, 200, 1, 1,
			"delta temporality is not supported")
		f(httpRequest{content: content, body: otlpBody(content, "delta")}, 400, 0, 3, "delta temporality is not supported")
		// Bad requests.
		f(httpRequest{content: content, body: good[:len(good)-3]}, 400, 0, 3, "the message")
		f(httpRequest{content: content, encoding: "gzip", body: good}, 400, 0, 3, "is not gzip")
		f(httpRequest{content: content, encoding: "gzip", body: zipped(good)[:40]}, 400, 0, 3, "is not gzip")
		f(httpRequest{content: content, encoding: "gzip"}, 400, 0, 3, "is not gzip")
		f(httpRequest{content: content, encoding: "br", body: good}, 415, 0, 12, `content encoding "br"`)
		f(httpRequest{content: content, body: good, headers: []string{"X-Scope-OrgID", "a/b"}}, 400, 0, 3, "a/b")
		f(httpRequest{method: http.MethodGet, content: content}, 405, 0, 12, "POST")
		// Too large: as sent, decompressed, in memory.
		f(httpRequest{content: content, body: make([]byte, 70_000)}, 413, 0, 11, "body of 70000 bytes or more is larger")
		f(httpRequest{content: content, encoding: "gzip", body: zipped(make([]byte, 10<<20))}, 413, 0, 11,
			"decompresses to more than the limit of 80000")
	}
	f(httpRequest{content: contentV1, body: bytes.Repeat([]byte{0x0a, 0}, 10_000)}, 413, 0, 11,
		"bytes of memory, more than 640000")
	f(httpRequest{content: "text/plain"}, 415, 0, 12, `content type "text/plain"`)
	f(httpRequest{}, 415, 0, 12, `content type ""`)
}

// TestOTLPOutcomes folds what members say of single series into one answer.
func TestOTLPOutcomes(t *testing.T) {
	f := func(kind errs.Kind, refused []int, status int, n int64) {
		t.Helper()
		c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
		defer c.close()
		c.member("a").become(refusing(kind, refused...))
		w := c.otlp(httpRequest{content: contentV1, body: otlpBody(contentV1, "a", "b", "delta")})
		got, text := otlpAnswer(t, w)
		if w.Code != status || got != n {
			t.Fatalf("%v of %v: status %d, %d, %q; want %d, %d", kind, refused, w.Code, got, text, status, n)
		}
		after, _ := strconv.Atoi(w.Header().Get("Retry-After"))
		if again := status == 429 || status == 503; again != (after > 0) {
			t.Fatalf("status %d with Retry-After %d", status, after)
		}
	}
	f(errs.Conflict, nil, 200, 1)
	f(errs.Conflict, []int{1}, 200, 2)
	f(errs.Conflict, []int{0, 1}, 400, 6)
	f(errs.Invalid, []int{0, 1}, 400, 3)
	f(errs.Limited, []int{1}, 429, 8)
	f(errs.Unavailable, []int{1}, 503, 14)
	f(errs.Internal, []int{1}, 503, 14)

	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	defer c.close()
	c.member("a").become(down)
	w := c.otlp(httpRequest{content: contentJSON, body: otlpBody(contentJSON, "a")})
	if n, text := otlpAnswer(t, w); w.Code != 503 || n != 14 || !strings.Contains(text, "connection refused") ||
		w.Header().Get("Retry-After") == "" {
		t.Fatalf("status %d, %d %q", w.Code, n, text)
	}
}

// TestOTLPSharesTheGate has a request that waits for its member while another comes.
func TestOTLPSharesTheGate(t *testing.T) {
	opts := DefaultOptions()
	opts.WriteTimeout = 300 * time.Millisecond
	opts.MaxRequestBytes = 1_200_000
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	started := make(chan struct{}, 1)
	c.member("a").become(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
		started <- struct{}{}
		return dark(ctx, s)
	})
	first := make(chan int)
	big := make([]prompb.TimeSeries, 600)
	for i := range big {
		big[i] = sample1("__name__", "up", "i", strconv.Itoa(i))
	}
	go func() { first <- c.do(httpRequest{content: contentV1, body: bodyV1(big...)}).Code }()
	select {
	case <-started:
	case code := <-first:
		t.Fatalf("the first was answered %d at once", code)
	}
	names := make([]string, 400)
	for i := range names {
		names[i] = "metric_" + strconv.Itoa(i)
	}
	small := zipped(otlpBody(contentJSON, names...)) // fits as it is sent, but not decoded
	if len(small) > 10_000 {
		t.Fatalf("%d bytes are not small", len(small))
	}
	w := c.otlp(httpRequest{content: contentJSON, encoding: "gzip", body: small})
	if _, text := otlpAnswer(t, w); w.Code != 503 || !strings.Contains(text, "try again") {
		t.Fatalf("status %d %q", w.Code, text)
	}
	if code := <-first; code != 503 {
		t.Fatalf("the first was answered %d", code)
	}
	if c.gate.now != (usage{}) {
		t.Fatalf("%+v is still accounted for", c.gate.now)
	}
}

// FuzzOTLP: whatever comes is answered with a status and body of the protocol.
func FuzzOTLP(f *testing.F) {
	for _, content := range []string{contentV1, contentJSON} {
		good := otlpBody(content, "a", "delta")
		f.Add(content, "", good)
		f.Add(content, "gzip", zipped(good))
		f.Add(content, "gzip", zipped(good)[:20])
	}
	f.Fuzz(func(t *testing.T, content, encoding string, body []byte) {
		opts := DefaultOptions()
		opts.MaxBody, opts.MaxDecoded = 1<<20, 2<<20
		c := newCluster(t, newFakeRing(1, "a"), opts)
		defer c.close()
		w := c.otlp(httpRequest{content: content, encoding: encoding, body: body})
		otlpAnswer(t, w)
		switch w.Code {
		case 200, 400, 413, 415:
		default:
			t.Fatalf("status %d %s", w.Code, w.Body)
		}
	})
}
