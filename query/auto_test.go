package query

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// TestAutoResolutionOfSubquery: the instants of a subquery whose steps are too short for windows look back as far as
// without downsampled data, also when the query's own steps are long enough for windows.
func TestAutoResolutionOfSubquery(t *testing.T) {
	var s tiers
	var samples []sourcetest.Sample
	for at := since; at < since+day; at += minute {
		if at%hour < 30*minute { // it is away for half of each hour
			samples = append(samples, sourcetest.Sample{T: at, V: 1})
		}
	}
	s.add(labels.FromStrings("__name__", "m"), samples, sourcetest.Encode(samples, 0)...)
	opts := DefaultOptions()
	opts.AutoResolution = true
	q := s.open(t, opts)
	const text, step = "sum_over_time(m[1h:1m])", 2 * hour
	want, _ := ranged(t, s.open(t, DefaultOptions()), text, since+2*hour, since+20*hour, step, 0)
	query, err := q.engine.NewRangeQuery(t.Context(), q, nil, text, time.UnixMilli(since+2*hour),
		time.UnixMilli(since+20*hour), time.Duration(step)*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	m, err := query.Exec(t.Context()).Matrix()
	if err != nil || len(m) != 1 {
		t.Fatal(m, err)
	}
	for _, p := range m[0].Floats {
		if w := want[m[0].Metric.String()][p.T]; p.F != w.F {
			t.Errorf("at %d: %v, want %v", p.T-since, p.F, w.F)
		}
	}
}

// TestRemoteReadIsRaw: whoever reads takes windows for samples, so a read has them only where it asks for them.
func TestRemoteReadIsRaw(t *testing.T) {
	opts := DefaultOptions()
	opts.AutoResolution, opts.MaxSourceResolution = true, time.Hour
	var s tiers
	q := s.open(t, opts)
	for query, want := range map[string]int64{"": 0, "?max_source_resolution=5m": 5 * minute} {
		p, err := q.parseParams(httptest.NewRequest(http.MethodPost, "/api/v1/read"+query, nil), "/read")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.resolution(10 * hour); got != want {
			t.Errorf("%q reads windows of up to %d ms, want %d", query, got, want)
		}
	}
}
