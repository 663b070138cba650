package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// remoteRead asks for all series within [mint, maxt] as Prometheus does.
func remoteRead(
	t *testing.T,
	q *Querier,
	kind prompb.ReadRequest_ResponseType,
	mint, maxt int64,
) *httptest.ResponseRecorder {
	t.Helper()
	return readQuery(t, q, kind, mint, maxt, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
}

func readQuery(
	t *testing.T,
	q *Querier,
	kind prompb.ReadRequest_ResponseType,
	mint, maxt int64,
	hints *storage.SelectHints,
	ms ...*labels.Matcher,
) *httptest.ResponseRecorder {
	t.Helper()
	query, err := remote.ToQuery(mint, maxt, ms, hints)
	if err != nil {
		t.Fatal(err)
	}
	body, err := (&prompb.ReadRequest{Queries: []*prompb.Query{query},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(snappy.Encode(nil, body)))
	r.Header.Set("Content-Type", "application/x-protobuf")
	w := httptest.NewRecorder()
	q.Handler().ServeHTTP(w, r)
	return w
}

// TestRemoteRead: both kinds of answers hold each sample within the range once.
func TestRemoteRead(t *testing.T) {
	var samples []sourcetest.Sample
	for i := range 300 {
		samples = append(samples, sourcetest.Sample{T: int64(i) * 1000, V: float64(i)})
	}
	q := open(
		t,
		DefaultOptions(),
		split(tenant.Default, []sourcetest.Series{{Labels: labels.FromStrings("__name__", "up"), Samples: samples}})...)
	const mint, maxt = 50_500, 200_000
	want := fmt.Sprint(samples[51:201])

	w := remoteRead(t, q, prompb.ReadRequest_SAMPLES, mint, maxt)
	body, err := snappy.Decode(nil, w.Body.Bytes())
	if err != nil {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	var got []sourcetest.Sample
	for _, s := range resp.Results[0].Timeseries[0].Samples {
		got = append(got, sourcetest.Sample{T: s.Timestamp, V: s.Value})
	}
	if fmt.Sprint(got) != want || len(resp.Results[0].Timeseries) != 1 {
		t.Errorf("samples: got %v", got)
	}

	w = remoteRead(t, q, prompb.ReadRequest_STREAMED_XOR_CHUNKS, mint, maxt)
	got = nil
	for r := remote.NewChunkedReader(w.Body, 1<<20, nil); ; {
		var frame prompb.ChunkedReadResponse
		if err := r.NextProto(&frame); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, c := range frame.ChunkedSeries[0].Chunks {
			chunk, err := chunkenc.FromData(chunkenc.EncXOR, c.Data)
			if err != nil {
				t.Fatal(err)
			}
			for it := chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
				at, v := it.At()
				got = append(got, sourcetest.Sample{T: at, V: v})
			}
		}
	}
	if fmt.Sprint(got) != want {
		t.Errorf("chunks: got %v", got)
	}
}

// TestRemoteReadOfLabels: a Prometheus that answers /api/v1/series from here gets the labels and no samples, and one
// that names no matchers gets nothing.
func TestRemoteReadOfLabels(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{
		tenant.Default: {oneSample(1, "__name__", "up", "n", "1"), oneSample(1, "__name__", "up", "n", "2")}})
	q := open(t, DefaultOptions(), e)
	hints := &storage.SelectHints{Start: 0, End: 5000, Func: "series"}
	up := labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")
	f := func(kind prompb.ReadRequest_ResponseType, want string, ms ...*labels.Matcher) {
		t.Helper()
		w := readQuery(t, q, kind, 0, 5000, hints, ms...)
		got := ""
		if kind == prompb.ReadRequest_SAMPLES {
			body, err := snappy.Decode(nil, w.Body.Bytes())
			if err != nil {
				t.Fatalf("%v: %d %s", err, w.Code, w.Body)
			}
			var resp prompb.ReadResponse
			if err := resp.Unmarshal(body); err != nil {
				t.Fatal(err)
			}
			for _, s := range resp.Results[0].Timeseries {
				got += fmt.Sprintf("%s:%d ", s.Labels[1].Value, len(s.Samples))
			}
		} else {
			set := remote.NewChunkedSeriesSet(remote.NewChunkedReader(w.Body, 1<<20, nil), io.NopCloser(w.Body), 0, 5000,
				func(error) {})
			for set.Next() { // as Prometheus reads it
				samples := 0
				it := set.At().Iterator(nil)
				for it.Next() != chunkenc.ValNone {
					samples++
				}
				got += fmt.Sprintf("%s:%d ", set.At().Labels().Get("n"), samples)
				if err := it.Err(); err != nil || set.At().Iterator(nil).Seek(1) != chunkenc.ValNone {
					t.Error("the series has samples:", err)
				}
			}
			if err := set.Err(); err != nil {
				t.Error(err)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
	for _, kind := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES,
		prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
		f(kind, "1:0 2:0 ", up)
		f(kind, "")
	}
}

// TestRemoteReadPartial: its answer has no place for a warning, so it fails.
func TestRemoteReadPartial(t *testing.T) {
	data := map[tenant.ID][]sourcetest.Series{tenant.Default: {oneSample(1, "__name__", "up")}}
	a, _ := receiver("a", data)
	b, broken := receiver("b", data)
	q := open(t, DefaultOptions(), a, b)
	if w := remoteRead(t, q, prompb.ReadRequest_SAMPLES, 0, 5000); w.Code != 200 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	broken.Fail = func() error { return errs.E(errs.Unavailable, "cable cut") }
	if w := remoteRead(t, q, prompb.ReadRequest_SAMPLES, 0, 5000); w.Code < 500 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

// ready is a source whose answer is made already, so that a benchmark measures the querier alone.
type ready struct {
	series.Source
	all []series.Series
}

func (r *ready) Select(context.Context, *series.Request) series.Set { return series.List(r.all) }

// BenchmarkSelect runs sum by (ns) (rate(x[5m])) over 20,000 series and 1 h at 1 m steps, from one source and from
// three replicas: alike, and with chunks of different boundaries.
func BenchmarkSelect(b *testing.B) {
	make3 := func(sizes ...int) (endpoints []Endpoint) {
		for i, size := range sizes {
			var all []series.Series
			for n := range 20_000 {
				var samples []sourcetest.Sample
				for t := range 240 {
					samples = append(samples, sourcetest.Sample{T: int64(t) * 15_000, V: float64(t * (1 + n%7))})
				}
				l := labels.FromStrings("__name__", "x", "instance", fmt.Sprint("10.0.0.", n), "job", "api", "ns", fmt.Sprint(n%50))
				all = append(all, series.Series{Labels: l, Chunks: sourcetest.Encode(samples, size)})
			}
			slices.SortFunc(all, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
			about := series.Info{Instance: fmt.Sprint(i), Role: "receive"}
			endpoints = append(endpoints, Endpoint{Name: fmt.Sprint(i), Source: &ready{&sourcetest.Memory{About: about}, all}})
		}
		return endpoints
	}
	for _, c := range []struct {
		name  string
		sizes []int
	}{{"one", []int{120}}, {"three-alike", []int{120, 120, 120}}, {"three-shifted", []int{120, 110, 100}}} {
		b.Run(c.name, func(b *testing.B) {
			opts := DefaultOptions()
			q := open(b, opts, make3(c.sizes...)...)
			b.ReportAllocs()
			for b.Loop() {
				query, err := q.engine.NewRangeQuery(context.Background(), q, nil, `sum by (ns) (rate(x[5m]))`, time.Unix(0, 0),
					time.Unix(3600, 0), time.Minute)
				if err != nil {
					b.Fatal(err)
				}
				if m, err := query.Exec(context.Background()).Matrix(); err != nil || len(m) != 50 {
					b.Fatal(len(m), err)
				}
				query.Close()
			}
		})
	}
}
