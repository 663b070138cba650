package query

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// TestTimeoutOfOneSeries: a query that looks at long windows of one stored series ends when its time has. It would
// take hours: the engine looks at its context once for each series.
func TestTimeoutOfOneSeries(t *testing.T) {
	var samples []sourcetest.Sample
	for i := range 200_000 {
		samples = append(samples, sourcetest.Sample{T: int64(i) * 15_000, V: float64(i*7919%1000) + 1})
	}
	var s tiers
	s.add(labels.FromStrings("__name__", "m"), samples, sourcetest.Encode(samples, 0)...)
	opts := DefaultOptions()
	opts.Timeout = 300 * time.Millisecond
	q := s.open(t, opts)
	for _, text := range []string{"quantile_over_time(0.5, m[25d])", "stddev_over_time(m[25d])"} {
		query, err := q.engine.NewRangeQuery(t.Context(), q, nil, text, time.Unix(2_900_000, 0), time.Unix(2_999_000, 0),
			15*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		res := query.Exec(t.Context())
		query.Close()
		var late promql.ErrQueryTimeout
		if !errors.As(res.Err, &late) {
			t.Errorf("%s: %v, want a timeout", text, res.Err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("%s went on for %s after its timeout of %s", text, took, opts.Timeout)
		}
	}
}
