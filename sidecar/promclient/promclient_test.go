package promclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestSettings: what a connection is made with, and which mistakes are named.
func TestSettings(t *testing.T) {
	var got *http.Request
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer server.Close()
	base, err := url.Parse(server.URL + "/prefix/")
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(settings, want, fault string) {
		t.Helper()
		got = nil
		c, err := New(base, "http.yml", []byte(settings))
		if fault != "" {
			if err == nil || !strings.Contains(err.Error(), fault) || errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s: %v, want %q", settings, err, fault)
			}
			return
		}
		if err == nil {
			err = c.ReloadConfig(t.Context())
		}
		if want == "" {
			if errs.KindOf(err) != errs.Unavailable {
				t.Errorf("%s: %v", settings, err)
			}
			return
		}
		if err != nil || got == nil || got.URL.Path != "/prefix/-/reload" || got.Method != http.MethodPost ||
			got.Header.Get("Authorization") != strings.TrimPrefix(want, "-") {
			t.Errorf("%s: %v, %+v", settings, err, got)
		}
	}
	f("", "", "") // the certificate is of an authority that nobody knows
	f("tls_config: {insecure_skip_verify: true}", "-", "")
	f("{tls_config: {insecure_skip_verify: true}, bearer_token: xyz}", "Bearer xyz", "")
	f("{tls_config: {insecure_skip_verify: true}, bearer_token_file: "+token+"}", "Bearer abc", "")
	f("{tls_config: {insecure_skip_verify: true}, basic_auth: {username: u, password: p}, "+
		"transport_config: {max_idle_conns: 3, idle_conn_timeout: 1000000000}}", "Basic dTpw", "")
	f("{basic_auth: {username: u}, bearer_token: x}", "", "use one")
	f("{bearer_tokens: x}", "", "bearer_token")
	f("{tls_config: {ca_file: /none/at/all}}", "", "/none/at/all")
	f("[", "", "http.yml")
	for _, address := range []string{"localhost:9090", "ftp://x", "http://"} {
		u, _ := url.Parse(address)
		if _, err := New(u, "x", nil); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestLowestTime(t *testing.T) {
	text := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, text)
	}))
	defer server.Close()
	base, _ := url.Parse(server.URL)
	c, err := New(base, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	f := func(metrics string, want int64, kind errs.Kind) {
		t.Helper()
		text = metrics
		if got, err := c.LowestTime(t.Context()); got != want || errs.KindOf(err) != kind {
			t.Errorf("%q: %d, %v", metrics, got, err)
		}
	}
	f("# HELP x\nx 1\n"+lowestTime+" 1.5\n", 1500, errs.OK)
	f(lowestTime+" 1.7959968e+09\n", 1795996800000, errs.OK)
	f(lowestTime+" 9.223372036854776e+15\n", math.MinInt64, errs.OK) // nothing was written yet
	f("x 1\n", math.MinInt64, errs.OK)                               // it does not say
	f(lowestTime+" NaN\n", math.MinInt64, errs.OK)
	f(lowestTime+" x\n", 0, errs.Unavailable)
}

func TestExternalLabels(t *testing.T) {
	f := func(config, want string) {
		t.Helper()
		got, err := externalLabels(config)
		if err != nil && want != "" || err == nil && got.String() != want {
			t.Errorf("%q: %s, %v", config, got, err)
		}
	}
	f("global:\n  scrape_interval: 15s\n  external_labels: {b: \"1\", a: x}\nnewer_key: {}\n", `{a="x", b="1"}`)
	f("{}", "{}")
	f("", "{}")
	f("global: [", "")
}

func TestSelector(t *testing.T) {
	m := labels.MustNewMatcher
	f := func(want string, ms ...*labels.Matcher) {
		t.Helper()
		if got := selector(ms); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f(`{a="b"}`, m(labels.MatchEqual, "a", "b"))
	f(`{a!="b",__name__=~".+"}`, m(labels.MatchNotEqual, "a", "b"))
	f(`{"ü x"="\""}`, m(labels.MatchEqual, "ü x", `"`))
	if escaped("job") != "job" || escaped("a/b") != "U__a_2f_b" {
		t.Errorf("%s", escaped("a/b"))
	}
}

// frame is a frame of a streamed response.
func frame(t testing.TB, s *prompb.ChunkedSeries) []byte {
	t.Helper()
	raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{s}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	out := binary.AppendUvarint(nil, uint64(len(raw)))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(raw, castagnoli))
	return append(out, raw...)
}

func someSeries(i, bytes int) *prompb.ChunkedSeries {
	return &prompb.ChunkedSeries{
		Labels: []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "i", Value: fmt.Sprint(i)}},
		Chunks: []prompb.Chunk{{MinTimeMs: -5, MaxTimeMs: int64(i), Type: prompb.Chunk_XOR, Data: make([]byte, bytes)},
			{MinTimeMs: 7, MaxTimeMs: 9, Type: prompb.Chunk_HISTOGRAM, Data: []byte{1, 2}}},
	}
}

// TestFrames reads frames small and large, and finds every place at which a response ends early.
func TestFrames(t *testing.T) {
	var whole []byte
	ends := map[int]bool{0: true}
	for i, bytes := range []int{1, 200, 100_000, 3} {
		whole = append(whole, frame(t, someSeries(i, bytes))...)
		ends[len(whole)] = true
	}
	read := func(raw []byte) (n int, err error) {
		in := newFrames(io.NopCloser(strings.NewReader(string(raw))))
		var f Frame
		for err == nil {
			if err = in.Next(&f); err == nil {
				if len(f.Labels) != 4 || string(f.Labels[3]) != fmt.Sprint(n) || len(f.Chunks) != 2 ||
					f.Chunks[0].MinTime != -5 || f.Chunks[0].MaxTime != int64(n) {
					t.Fatalf("frame %d: %q %+v", n, f.Labels, f.Chunks)
				}
				n++
			}
		}
		return n, err
	}
	if n, err := read(whole); n != 4 || !errors.Is(err, io.EOF) {
		t.Fatalf("%d frames, %v", n, err)
	}
	for at := 0; at < len(whole); at += 1 + at/1000 {
		if _, err := read(whole[:at]); errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !ends[at] {
			t.Errorf("cut at %d: %v", at, err)
		} else if !ends[at] && errs.KindOf(err) != errs.Unavailable {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
	broken := []byte(string(whole))
	broken[20] ^= 1
	if _, err := read(broken); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a bit that flipped: %v", err)
	}
	if _, err := read(binary.AppendUvarint(nil, maxFrame+1)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a frame that is too large: %v", err)
	}
}

// FuzzFrame: no frame makes the decoder panic, and one that it takes has what Prometheus's own decoder finds in it.
func FuzzFrame(f *testing.F) {
	for i := range 3 {
		raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{someSeries(i, i*10+1)}}).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got Frame
		if decodeFrame(raw, &got) != nil {
			return
		}
		var want prompb.ChunkedReadResponse
		if want.Unmarshal(raw) != nil || len(want.ChunkedSeries) != 1 {
			return // the library refuses more
		}
		s := want.ChunkedSeries[0]
		if len(got.Labels) != 2*len(s.Labels) || len(got.Chunks) != len(s.Chunks) {
			t.Fatalf("%d labels and %d chunks, want %d and %d", len(got.Labels)/2, len(got.Chunks), len(s.Labels), len(s.Chunks))
		}
		for i, l := range s.Labels {
			if string(got.Labels[2*i]) != l.Name || string(got.Labels[2*i+1]) != l.Value {
				t.Fatalf("label %d", i)
			}
		}
		for i, c := range s.Chunks {
			if got.Chunks[i].MinTime != c.MinTimeMs || got.Chunks[i].MaxTime != c.MaxTimeMs ||
				string(got.Chunks[i].Raw.Data) != string(c.Data) || int32(got.Chunks[i].Raw.Encoding) != int32(c.Type) {
				t.Fatalf("chunk %d", i)
			}
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{someSeries(1, 120)}}).Marshal()
	if err != nil {
		b.Fatal(err)
	}
	var f Frame
	b.ReportAllocs()
	for b.Loop() {
		f.Labels, f.Chunks = f.Labels[:0], f.Chunks[:0]
		if err := decodeFrame(raw, &f); err != nil {
			b.Fatal(err)
		}
	}
}
