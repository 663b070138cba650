package distributor

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestResultKind: samples decide on a request; exemplars and metadata do so only where there is nothing else, and
// sending them again can help.
func TestResultKind(t *testing.T) {
	f := func(name string, stored int, want errs.Kind, failures ...wire.Failure) {
		t.Helper()
		r := Result{Samples: stored, Series: 3, Failures: failures}
		if got := r.Kind(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if got := errs.KindOf(r.Err()); got != want {
			t.Errorf("%s: error of kind %s, want %s", name, got, want)
		}
	}
	exemplars := func(k errs.Kind) wire.Failure { return wire.Failure{Series: 1, Kind: k, Exemplars: 2} }
	metadata := func(k errs.Kind) wire.Failure { return wire.Failure{Series: -1, Kind: k} }
	f("all stored", 1, errs.OK)
	for _, k := range []errs.Kind{errs.Invalid, errs.Conflict, errs.TooLarge, errs.Limited, errs.Unavailable,
		errs.Internal, errs.Exhausted} {
		f("exemplars beside samples: "+k.String(), 1, errs.OK, exemplars(k))
		f("metadata beside samples: "+k.String(), 1, errs.OK, metadata(k))
		f("both beside samples that failed: "+k.String(), 0, errs.Conflict, exemplars(k), metadata(k),
			wire.Failure{Kind: errs.Conflict, Samples: 1})
		f("both beside histograms that failed: "+k.String(), 0, errs.Invalid, exemplars(k),
			wire.Failure{Series: -1, Kind: errs.Invalid, Histograms: 1})
	}
	for _, k := range []errs.Kind{errs.Invalid, errs.Conflict, errs.TooLarge} {
		f("exemplars alone: "+k.String(), 0, errs.OK, exemplars(k))
		f("metadata alone: "+k.String(), 0, errs.OK, metadata(k))
	}
	f("exemplars alone, no quorum", 0, errs.Unavailable, exemplars(errs.Unavailable))
	f("metadata alone, no quorum", 0, errs.Unavailable, metadata(errs.Unavailable))
	f("exemplars of a sample that failed", 1, errs.Conflict, wire.Failure{Kind: errs.Conflict, Samples: 1, Exemplars: 1})
	dropped := Result{Dropped: Counts{Samples: 1}, Failures: []wire.Failure{exemplars(errs.Unavailable)}}
	if dropped.Kind() != errs.OK {
		t.Error("exemplars beside samples that were dropped on purpose decide")
	}
}

// TestResultCounts: the text counts series whose samples are missing, of those that the request named; an exemplar is
// none.
func TestResultCounts(t *testing.T) {
	f := func(want string, series int, failures ...wire.Failure) {
		t.Helper()
		if got, _, _ := strings.Cut(fmt.Sprint(Result{Series: series, Failures: failures}.Err()), "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	sample, exemplar := wire.Failure{Kind: errs.Conflict, Samples: 1}, wire.Failure{Series: 2,
		Kind: errs.Unavailable, Exemplars: 1}
	f("1 of 3 series not stored, or not wholly", 3, sample, exemplar)
	f("0 of 3 series not stored, or not wholly, and exemplars of 1 series", 3, exemplar)
	f("0 of 3 series not stored, or not wholly, and metadata of 1 families", 3,
		wire.Failure{Series: -1, Kind: errs.Unavailable})
	f("7 of 9 series not stored, or not wholly", 9, sample,
		wire.Failure{Series: -1, Kind: errs.Invalid, Samples: 8, Whole: 6})
	f("1 of 1 series not stored, or not wholly", 1, sample, wire.Failure{Series: -1, Kind: errs.Invalid, Histograms: 1})
}

// TestRefusedExemplarIsNoSeries sends exemplars that cannot be: beside the samples of their series, and in a series of
// their own, as Prometheus sends them.
func TestRefusedExemplarIsNoSeries(t *testing.T) {
	bad := prompb.Exemplar{Labels: []prompb.Label{{Name: "", Value: "x"}}, Timestamp: 1000}
	one, two, three := sample1("__name__", "a"), sample1("__name__", "b"), sample1("__name__", "refused")
	two.Exemplars = []prompb.Exemplar{bad}
	apart := prompb.TimeSeries{Labels: one.Labels, Exemplars: []prompb.Exemplar{bad}}
	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	defer c.close()
	c.member("a").become(func(_ context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
		for i, at := range s.Series {
			if strings.Contains(string(s.Batch.Series[at].Labels()), "refused") {
				failures = append(failures, wire.Failure{Series: i, Kind: errs.Conflict, Samples: 1, Reason: "too old"})
			}
		}
		return failures, nil
	})
	for _, body := range [][]byte{bodyV1(one, two, three), bodyV1(one, apart, two, three)} {
		w := c.do(httpRequest{body: body, content: contentV1})
		if text := w.Body.String(); w.Code != 409 || !strings.Contains(text, "1 of 3 series not stored") {
			t.Errorf("%d %s", w.Code, text)
		}
	}
}

// TestStartTimestamps: they reach a member only for a tenant that wants them.
func TestStartTimestamps(t *testing.T) {
	symbols := writev2.NewSymbolTable()
	msg, err := (&writev2.Request{Timeseries: []writev2.TimeSeries{{
		LabelsRefs: []uint32{symbols.Symbolize("__name__"), symbols.Symbolize("a")},
		Samples:    []writev2.Sample{{Timestamp: 2000, StartTimestamp: 1000, Value: 1}},
		Histograms: []writev2.Histogram{{Timestamp: 3000, StartTimestamp: 1000, Count: &writev2.Histogram_CountInt{},
			ZeroCount: &writev2.Histogram_ZeroCountInt{}}},
	}}, Symbols: symbols.Symbols()}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{false, true} {
		opts := DefaultOptions()
		opts.Limits = tenant.Fixed(tenant.Limits{StartTimestampZeros: keep})
		c := newCluster(t, newFakeRing(1, "a"), opts)
		c.member("a").become(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			one := &s.Batch.Series[s.Series[0]]
			if got := [2]bool{one.Samples[0].ST == 1000, one.Histograms[0].ST == 1000}; got != [2]bool{keep, keep} {
				t.Errorf("kept %v, want %v", got, keep)
			}
			return nil, nil
		})
		if w := c.do(httpRequest{body: snappy.Encode(nil, msg), content: contentV2}); w.Code != 204 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		c.close()
	}
}
