package series_test

import (
	"bufio"
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// recorded is what two Prometheus servers scraped from three targets, themselves among them, each 5 s for 27 minutes:
// one was away for 170 s, a target was restarted, the other server stood still for 47 s and was away for 130 s, and
// the first was restarted. By metric and target, then by server. testdata/pair.txt has "metric target server" and its
// samples, ms and value.
func recorded(t *testing.T) map[string][2]stream {
	t.Helper()
	f, err := os.Open("testdata/pair.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][2]stream{}
	var name string
	var server int
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 {
			name, server = fields[0]+" "+fields[1], int(fields[2][0]-'a')
			continue
		}
		s := sourcetest.Sample{V: math.Float64frombits(value.StaleNaN)}
		if _, err := fmt.Sscan(fields[0], &s.T); err != nil {
			t.Fatal(err)
		}
		if fields[1] != "stale" {
			if _, err := fmt.Sscan(fields[1], &s.V); err != nil {
				t.Fatal(err)
			}
		}
		s.T += 1e6
		pair := out[name]
		pair[server] = append(pair[server], s)
		out[name] = pair
	}
	return out
}

func (s stream) living() stream {
	return slices.DeleteFunc(slices.Clone(s), func(p sourcetest.Sample) bool { return value.IsStaleNaN(p.V) })
}

// drops is how often s goes down.
func (s stream) drops() (n int) {
	for i := 1; i < len(s); i++ {
		if s[i].V < s[i-1].V {
			n++
		}
	}
	return n
}

// TestDedupRecorded: of a recorded pair, also with clocks that are apart, every sample's time is answered, and
// counters go back where their targets began anew and nowhere else.
func TestDedupRecorded(t *testing.T) {
	const interval = 5_000
	for _, skew := range []int64{0, 8_000, -8_000} {
		for name, pair := range recorded(t) {
			all := append(slices.Clone(pair[0]), pair[1]...).living()
			slices.SortFunc(all, func(a, b sourcetest.Sample) int { return cmp.Compare(a.T, b.T) })
			shifted := slices.Clone(pair[1])
			for i := range shifted {
				shifted[i].T += skew
			}
			pick := series.PickCounter
			if strings.HasPrefix(name, "up ") {
				pick = series.PickAvg
			}
			got := merged(t, pick, pair[0], shifted).living()
			longest := int64(0)
			for i := 1; i < len(got); i++ {
				longest = max(longest, got[i].T-got[i-1].T)
				for _, s := range append(pair[0].living(), shifted.living()...) {
					if s.T > got[i-1].T+interval*3/2+max(skew, -skew) && s.T < got[i].T {
						t.Errorf("skew %d, %s: nothing from %d to %d, where a server has a sample at %d", skew, name, got[i-1].T,
							got[i].T, s.T)
					}
				}
			}
			if pick != series.PickCounter {
				continue
			}
			t.Logf("skew %d, %s: %d samples of %d and %d, longest gap %d ms, increase %.1f of %.1f, %d resets of %d",
				skew, name, len(got), len(pair[0]), len(pair[1]), longest, got.increase(), all.increase(), got.drops(), all.drops())
			if got.drops() != all.drops() {
				t.Errorf("skew %d, %s: goes back %d times, want %d", skew, name, got.drops(), all.drops())
			}
			if truth := all.increase(); math.Abs(got.increase()-truth) > 0.01*truth {
				t.Errorf("skew %d, %s: increase %.1f, want %.1f", skew, name, got.increase(), truth)
			}
		}
	}
}
