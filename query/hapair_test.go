package query

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestPairOfCounters: what the merging of pairs knows of counters is what a query of raw data gets, also through the
// API's engine: two servers with clocks 8 s apart, of which each is away in turn, and a counter that is large.
func TestPairOfCounters(t *testing.T) {
	var copies [2][]sourcetest.Sample
	for at := 15 * second; at < 3*hour; at += 15 * second {
		for i := range copies {
			if at/(10*minute)%3 == int64(i) { // away for 10 of 30 minutes
				continue
			}
			copies[i] = append(copies[i], sourcetest.Sample{T: at + int64(i)*8*second, V: 1.3e9 + float64(at/second)})
		}
	}
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{tenant.Default: {
		{Labels: labels.FromStrings("__name__", "m", "replica", "a"), Samples: copies[0]},
		{Labels: labels.FromStrings("__name__", "m", "replica", "b"), Samples: copies[1]},
	}})
	opts := DefaultOptions()
	opts.ReplicaLabels = []string{"replica"}
	q := open(t, opts, e)
	for _, resolution := range []time.Duration{0, time.Hour} {
		for text, most := range map[string]float64{"increase(m[20m])": 1230, "rate(m[20m]) * 1200": 1230, "resets(m[20m])": 0, "irate(m[20m])": 2} {
			got, _ := ranged(t, q, text, 30*minute, 170*minute, 30*second, resolution)
			if len(got) != 1 {
				t.Fatal(text, got)
			}
			for _, points := range got {
				if len(points) != 281 {
					t.Errorf("%s: %d of 281 points", text, len(points))
				}
				for at, p := range points {
					if p.F > most {
						t.Fatalf("%s at %s: %v, want at most %v", text, time.Duration(at)*time.Millisecond, p.F, most)
					}
				}
			}
		}
	}
}
