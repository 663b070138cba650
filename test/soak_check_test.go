package test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"
)

// reading is what an answer held of what was acknowledged before it was asked for.
type reading struct {
	samples  int      // acknowledged ones, each found once with its value
	extra    int      // sent, not acknowledged, and there all the same
	missing  []string // acknowledged and not there; the first few are named
	lacking  int      // how many those are
	wrong    []string // there and should not be: twice, at a time or under a name never sent, with another value
	warnings []string
}

func (r *reading) add(o reading) {
	r.samples, r.extra, r.lacking = r.samples+o.samples, r.extra+o.extra, r.lacking+o.lacking
	r.missing, r.wrong = append(r.missing, o.missing...), append(r.wrong, o.wrong...)
	r.warnings = append(r.warnings, o.warnings...)
}

// fault is what the answer says wrongly: what is missing is no lie if a warning says that something may be.
func (r reading) fault() error {
	switch {
	case len(r.wrong) > 0:
		return fmt.Errorf("%d wrong samples: %q", len(r.wrong), r.wrong[:min(3, len(r.wrong))])
	case r.lacking > 0 && len(r.warnings) == 0:
		return fmt.Errorf("%d acknowledged samples are missing without a warning: %q", r.lacking,
			r.missing[:min(3, len(r.missing))])
	}
	return nil
}

// read asks for all samples of the shard from lo to hi and holds them against what was sent. Both ends belong to it.
func (s *soakShard) read(a api, lo, hi int64) (reading, error) {
	sent := s.sentNow()
	ans, err := a.query(fmt.Sprintf(`soak{shard="%d"}[%dms]`, s.number, hi-lo+1), time.UnixMilli(hi))
	if err != nil {
		return reading{}, err
	}
	var data struct {
		Result []struct {
			Metric             map[string]string
			Values, Histograms [][2]json.RawMessage
		}
	}
	if err := json.Unmarshal(ans.Data, &data); err != nil {
		return reading{}, err
	}
	r := reading{warnings: ans.Warnings}
	seen := make([][]bool, s.series)
	for i := range seen {
		seen[i] = make([]bool, len(s.sentNow()))
	}
	for _, series := range data.Result {
		i, err := strconv.Atoi(series.Metric["series"])
		values := append(series.Values, series.Histograms...)
		if err != nil || i < 0 || i >= s.series || len(values) == 0 || (len(series.Values) > 0) == s.histograms {
			r.wrong = append(r.wrong, fmt.Sprintf("series %v", series.Metric))
			continue
		}
		for _, v := range values {
			n, err := s.sample(i, series.Metric, v, seen[i])
			switch {
			case err != nil:
				r.wrong = append(r.wrong, err.Error())
			case n >= len(sent) || sent[n].acked.IsZero():
				r.extra++
			default:
				r.samples++
			}
		}
	}
	r.miss(s, sent, seen, lo, hi)
	return r, nil
}

func (s *soakShard) sentNow() []slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.slots)
}

// sample finds the slot of a sample of series i, and marks it as seen.
func (s *soakShard) sample(i int, metric map[string]string, v [2]json.RawMessage, seen []bool) (n int, err error) {
	secs, _ := strconv.ParseFloat(string(v[0]), 64)
	at := int64(math.Round(secs * 1000))
	fault := func(what string) (int, error) {
		return 0, fmt.Errorf("%s: %v at %d is %s", what, metric, at, v[1])
	}
	n, ok := s.slotOf(at)
	switch {
	case !ok || n >= len(seen):
		return fault("never sent")
	case seen[n]:
		return fault("twice")
	case !slices.EqualFunc(s.labels(i, n), sortedLabels(metric), func(a, b [2]string) bool { return a == b }):
		return fault("not the labels sent")
	case !s.histograms && string(v[1]) != strconv.Quote(strconv.FormatFloat(s.value(i, at), 'f', -1, 64)),
		s.histograms && !sameHistogram(v[1], s.value(i, at)):
		return fault(fmt.Sprintf("not the value %v", s.value(i, at)))
	}
	seen[n] = true
	return n, nil
}

func sortedLabels(metric map[string]string) (all [][2]string) {
	for k, v := range metric {
		all = append(all, [2]string{k, v})
	}
	slices.SortFunc(all, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return all
}

// sameHistogram compares what the API says of a histogram with the one that value stands for.
func sameHistogram(raw json.RawMessage, value float64) bool {
	var h struct {
		Count, Sum string
		Buckets    [][4]any
	}
	if json.Unmarshal(raw, &h) != nil || h.Sum != strconv.FormatFloat(value, 'f', -1, 64) {
		return false
	}
	var sum int64
	want := buckets(value)
	if len(h.Buckets) != len(want) {
		return false
	}
	for i, b := range h.Buckets {
		if b[3] != strconv.FormatInt(want[i], 10) {
			return false
		}
		sum += want[i]
	}
	return h.Count == strconv.FormatInt(sum, 10)
}

// miss notes what was acknowledged and not seen.
func (r *reading) miss(s *soakShard, sent []slot, seen [][]bool, lo, hi int64) {
	for n, sl := range sent {
		at := s.at(n)
		if sl.acked.IsZero() || at < lo || at > hi {
			continue
		}
		for i := range seen {
			if seen[i][n] {
				continue
			}
			r.lacking++
			if len(r.missing) < 3 {
				r.missing = append(r.missing,
					fmt.Sprintf("tenant %s shard %d series %d life %d at %s, acknowledged at %s by %s at the %d. try", s.id, s.number,
						i, s.life(i, n), time.UnixMilli(at).Format("15:04:05.000"), sl.acked.Format("15:04:05.000"), sl.by, sl.tries))
			}
		}
	}
}

// span is the first and the last time of what the shard sent so far.
func (s *soakShard) span() (lo, hi int64) {
	n := len(s.sentNow())
	if n == 0 {
		return s.first, s.first
	}
	lo, hi = s.at(0), s.at(n-1)
	if s.reversed {
		lo, hi = s.at(reversal-1), s.at((n-1)/reversal*reversal)
	}
	return lo, hi
}

// TestSoakLoad: times and slots are each other's inverse, values differ, and what is not as sent is found.
func TestSoakLoad(t *testing.T) {
	values := map[float64]bool{}
	for _, tenant := range soakTenants {
		s := &soakShard{soakTenant: tenant, number: 3, series: 50, first: 1_700_000_000_000, interval: 1000}
		for n := range 200 {
			s.slots = append(s.slots, slot{})
			lo, hi := s.span()
			if got, ok := s.slotOf(s.at(n)); !ok || got != n || s.at(n) < lo || s.at(n) > hi {
				t.Fatalf("%s: slot %d is at %d, which is slot %d, %v, span %d to %d", s.id, n, s.at(n), got, ok, lo, hi)
			}
			for i := range 3 {
				values[s.value(i, s.at(n))] = true
			}
		}
		if _, ok := s.slotOf(s.at(5) + 1); ok {
			t.Errorf("%s: a time between slots is one", s.id)
		}
		if len(s.body(0)) == 0 {
			t.Errorf("%s: no body", s.id)
		}
	}
	if len(values) != 200*3*len(soakTenants) {
		t.Errorf("%d different values", len(values))
	}
}

// TestSoakReading: each fault of an answer is distinguished from the others.
func TestSoakReading(t *testing.T) {
	s := &soakShard{soakTenant: soakTenants[0], series: 1, first: 1000, interval: 1000,
		slots: []slot{{acked: time.Now()}, {acked: time.Now()}, {}}}
	f := func(what string, n, acked int, missing, wrong bool, samples ...[2]string) {
		t.Helper()
		seen := [][]bool{make([]bool, n)}
		var r reading
		for _, v := range samples {
			metric := map[string]string{}
			for _, l := range s.labels(0, 0) {
				metric[l[0]] = l[1]
			}
			if _, err := s.sample(0, metric, [2]json.RawMessage{json.RawMessage(v[0]), json.RawMessage(v[1])},
				seen[0]); err != nil {
				r.wrong = append(r.wrong, err.Error())
			}
		}
		r.miss(s, s.slots, seen, 1000, 3000)
		if (r.lacking > 0) != missing || (len(r.wrong) > 0) != wrong {
			t.Errorf("%s: missing %q, wrong %q", what, r.missing, r.wrong)
		}
	}
	value := func(at int64) string { return strconv.Quote(strconv.FormatFloat(s.value(0, at), 'f', -1, 64)) }
	one, two, three := [2]string{"1", value(1000)}, [2]string{"2", value(2000)}, [2]string{"3.000", value(3000)}
	f("all", 3, 2, false, false, one, two)
	f("and one that was not acknowledged", 3, 2, false, false, one, two, three)
	f("one is missing", 3, 1, true, false, two, three)
	f("twice", 3, 2, false, true, one, two, two)
	f("another value", 3, 2, true, true, one, [2]string{"2", value(1000)})
	f("never sent", 3, 2, false, true, one, two, [2]string{"4", value(4000)})
	f("between", 3, 2, false, true, one, two, [2]string{"2.5", value(2500)})
}
