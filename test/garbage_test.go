package test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

func sample(at int64, v float64, labels ...string) prompb.TimeSeries {
	ts := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: at, Value: v}}}
	for i := 0; i < len(labels); i += 2 {
		ts.Labels = append(ts.Labels, prompb.Label{Name: labels[i], Value: labels[i+1]})
	}
	return ts
}

// TestGarbage sends what no sender should to every listener: each gets its documented status, and what was there stays.
func TestGarbage(t *testing.T) {
	p, base := startAll(t, t.TempDir(), "--gossip.address="+addr(freePorts(t, 1)[0]))
	now := time.Now().UnixMilli()
	mine := api{base: base, header: tenantHeader("g")}
	good := encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(now, 1, "__name__", "good", "a", "b")}})
	v1 := writeHeader(tenantHeader("g"))
	v2 := writeHeader(tenantHeader("g"))
	v2.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	v2.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	post := func(what string, header http.Header, body []byte, want int) *statusError {
		t.Helper()
		_, err := do(http.MethodPost, base+"/api/v1/receive", header, body)
		got := status(err)
		if want/100 == 2 && got == 200 {
			return nil
		}
		if got != want {
			t.Errorf("%s: status %d (%v), want %d", what, got, err, want)
		}
		se, _ := err.(*statusError)
		return se
	}
	post("a good request", v1, good, 204)

	post("truncated snappy", v1, good[:len(good)-3], 400)
	post("no snappy", v1, []byte("hello"), 400)
	post("empty body", v1, nil, 400)
	post("bad protobuf", v1, snappy.Encode(nil, []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1}), 400)
	post("bad protobuf 2.0", v2, snappy.Encode(nil, []byte{0x2a, 0x7f, 1}), 400)
	post("huge body", v1, append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, bytes.Repeat([]byte{0}, 100)...), 413)
	post("unsorted labels are accepted", v1, encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		sample(now, 2, "z", "1", "__name__", "unsorted", "a", "2")}}), 204)
	e := post(
		"a duplicate label rejects that series only",
		v1,
		encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
			sample(now, 3, "__name__", "dup", "a", "1", "a", "2"), sample(now, 3, "__name__", "beside_dup")}}),
		400,
	)
	if e != nil && !strings.Contains(e.body, "dup") {
		t.Errorf("the refusal does not name the series: %s", e.body)
	}
	post("an empty label name", v1,
		encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(now, 3, "__name__", "x", "", "2")}}), 400)
	post("too old", v1,
		encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(now-86400_000, 3, "__name__", "old")}}), 409)
	post("too far in the future", v1,
		encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(now+86400_000, 3, "__name__", "new")}}), 409)
	post("another value for a stored timestamp", v1, encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		sample(now, 77, "__name__", "good", "a", "b")}}), 409)
	post("the same value again", v1, good, 204)
	for _, id := range []string{"..", ".", "a/b", strings.Repeat("x", 151), "a|b", "a\\b", "a%2fb"} {
		h := writeHeader(tenantHeader(id))
		post(fmt.Sprintf("tenant %q", id), h, good, 400)
	}
	wrong := writeHeader(tenantHeader("g"))
	wrong.Set("Content-Type", "text/plain")
	post("a wrong content type", wrong, good, 415)
	wrong = writeHeader(tenantHeader("g"))
	wrong.Set("Content-Encoding", "gzip")
	post("a wrong encoding", wrong, good, 415)
	two := writeHeader(tenantHeader("g"))
	two.Set("THANOS-TENANT", "other")
	post("two tenants", two, good, 400)

	checkCounts(t, base, v2, now)
	if _, err := do(http.MethodGet, base+"/api/v1/receive", v1, nil); status(err) != 405 {
		t.Errorf("GET on the write path: %v", err)
	}
	for _, q := range []struct {
		path string
		want int
	}{{"query?query=sum(", 400}, {"query", 400}, {"query_range?query=up&start=1&end=0&step=1", 400}, {"query?query=up&time=never", 400}} {
		if _, err := get(base+"/api/v1/"+q.path, tenantHeader("g")); status(err) != q.want {
			t.Errorf("%s: %v, want %d", q.path, err, q.want)
		}
	}
	if _, err := get(base+"/api/v1/query?query=up", tenantHeader("../x")); status(err) != 400 {
		t.Errorf("a bad tenant on read: %v", err)
	}
	rawGarbage(t, p)

	ans, err := mine.query(`{__name__=~".+"}`, time.UnixMilli(now).Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"good"`, `"unsorted"`, `"beside_dup"`} {
		if !strings.Contains(string(ans.Data), want) {
			t.Errorf("%s is missing: %s", want, ans.Data)
		}
	}
	for _, bad := range []string{`"dup"`, `"old"`, `"new"`, `"77"`} {
		if strings.Contains(string(ans.Data), bad) {
			t.Errorf("%s was stored: %s", bad, ans.Data)
		}
	}
	p.stop(20 * time.Second)
}

// checkCounts holds the written counts of remote write 2.0 to what was stored.
func checkCounts(t *testing.T, base string, header http.Header, now int64) {
	t.Helper()
	symbols := writev2.NewSymbolTable()
	series := func(name string, at int64) writev2.TimeSeries {
		return writev2.TimeSeries{LabelsRefs: []uint32{symbols.Symbolize("__name__"), symbols.Symbolize(name)},
			Samples: []writev2.Sample{{Timestamp: at, Value: 5}}}
	}
	req := &writev2.Request{Timeseries: []writev2.TimeSeries{series("counted", now), series("counted_too", now),
		series("counted_old", now-86400_000)}}
	req.Symbols = symbols.Symbols()
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, err = do(http.MethodPost, base+"/api/v1/write", header, snappy.Encode(nil, b))
	se, ok := err.(*statusError)
	if !ok || se.code != 400 {
		t.Fatalf("a partly stored 2.0 request: %v, want 400", err)
	}
	if got := se.header.Get("X-Prometheus-Remote-Write-Samples-Written"); got != "2" {
		t.Errorf("%s samples written, want 2", got)
	}
}

// rawGarbage throws bytes that are no protocol at every port the process listens on.
func rawGarbage(t *testing.T, p *process) {
	t.Helper()
	for _, arg := range p.cmd.Args {
		_, listener, ok := strings.Cut(arg, "address=")
		if !ok {
			continue
		}
		for _, garbage := range []string{"\x00\xff\x16\x03\x01garbage\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxx", "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"} {
			c, err := net.Dial("tcp", listener)
			if err != nil {
				t.Fatalf("%s: %v", arg, err)
			}
			_, _ = c.Write([]byte(garbage))
			c.Close()
		}
	}
}
