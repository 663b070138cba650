package deletion

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// How many selectors, matchers in all of them, and bytes of text one request for series may have. Each read of the
// tenant that overlaps the request compares series with all of them.
const (
	maxSelectors    = 16
	maxMatchers     = 64
	maxSelectorText = 8 << 10
)

// MaxSeriesRequests is how many requests for series of one tenant are in effect at once. The oldest ones count.
const MaxSeriesRequests = 100

// Series are samples of a tenant: those of series that a selector matches, at times of a range.
type Series struct {
	// Selectors are as in PromQL. One of them must match.
	Selectors []string `json:"selectors"`
	// MinTime and MaxTime are the first and the last time in Unix ms. MaxTime is not after the request was made.
	MinTime int64 `json:"mint"`
	MaxTime int64 `json:"maxt"`

	matchers [][]*labels.Matcher // of Selectors; validate sets it
}

// NewSeries is a request for samples that takes effect delay after at, as New. A range that ends later than at is
// cut. Errors: Invalid, TooLarge.
func NewSeries(id tenant.ID, s Series, at time.Time, delay time.Duration) (Request, error) {
	r := newRequest(KindSeries, id, at, delay)
	s.MaxTime = min(s.MaxTime, r.Asked)
	r.Series = &s
	return r, r.Validate()
}

// Matchers are those of each selector. Nobody may change them.
func (s *Series) Matchers() [][]*labels.Matcher { return s.matchers }

// Overlaps reports whether the range has times of [mint, maxt].
func (s *Series) Overlaps(mint, maxt int64) bool { return s.MinTime <= maxt && s.MaxTime >= mint }

// validate checks s and reads its selectors. asked is when the request was made.
func (s *Series) validate(asked int64) error {
	text := 0
	for _, one := range s.Selectors {
		text += len(one)
	}
	switch {
	case len(s.Selectors) == 0:
		return errs.E(errs.Invalid, "there is no selector: it says which series are meant, such as {job=\"a\"}")
	case len(s.Selectors) > maxSelectors || text > maxSelectorText:
		return errs.E(errs.TooLarge, "%d selectors of %d bytes: at most %d selectors of %d bytes together are allowed",
			len(s.Selectors), text, maxSelectors, maxSelectorText)
	case s.MinTime > s.MaxTime:
		return errs.E(errs.Invalid, "the range ends at %d, before it begins at %d", s.MaxTime, s.MinTime)
	case s.MaxTime > asked:
		return errs.E(errs.Invalid, "the range ends at %d, after the request was made at %d", s.MaxTime, asked)
	}
	parsed, err := expr.New(maxSelectorText).ParseMetricSelectors(s.Selectors)
	if err != nil {
		if errs.KindOf(err) == errs.Internal { // an error of the library has no kind
			err = errs.Wrap(errs.Invalid, err)
		}
		return err
	}
	n := 0
	for i, ms := range parsed {
		n += len(ms)
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return errs.E(errs.Invalid, "the selector %s also matches series that have none of its labels: if all series are "+
				"meant, write {__name__=~\".+\"}", clip(s.Selectors[i]))
		}
	}
	if n > maxMatchers {
		return errs.E(errs.TooLarge, "%d matchers: at most %d are allowed", n, maxMatchers)
	}
	s.matchers = parsed
	return nil
}

// bound takes out of requests for series of one tenant those that are too many to be followed, and returns why.
func bound(all []*Entry) (kept []*Entry, faults map[*Entry]error) {
	n := 0
	for _, e := range all {
		if e.undone() || e.Fault == nil && e.Renewal != nil {
			kept = append(kept, e)
			continue
		}
		if n++; n <= MaxSeriesRequests {
			kept = append(kept, e)
			continue
		}
		if faults == nil {
			faults = map[*Entry]error{}
		}
		faults[e] = errs.E(errs.Exhausted, "tenant %q has more than %d requests for series in effect: this one has none",
			e.Tenant, MaxSeriesRequests)
	}
	return kept, faults
}

// SeriesRequests are all requests for series, the oldest first. Nobody may change them.
func (l *List) SeriesRequests() []*Entry {
	if l == nil {
		return nil
	}
	return l.seriesRequests
}

// SeriesOf are the requests for series of a tenant, the oldest first.
func (l *List) SeriesOf(id tenant.ID) []*Entry {
	if l == nil || len(l.series) == 0 {
		return nil
	}
	return l.series[id]
}

// Hidden are the requests for series of a tenant whose samples reads do not find, of those that overlap [mint, maxt].
// It is nil for a tenant without any.
func (l *List) Hidden(id tenant.ID, mint, maxt int64, now time.Time) []*Entry {
	return l.inState(id, mint, maxt, now, State.refuses)
}

// HiddenElse are the requests for series whose samples are hidden by one of l and was, and not by the other one. What
// was answered about these samples does not hold.
func (l *List) HiddenElse(was *List, now time.Time) (all []*Entry) {
	hidden := func(l *List) map[ulid.ULID]*Entry {
		out := map[ulid.ULID]*Entry{}
		for _, e := range l.SeriesRequests() {
			if e.State(now).refuses() {
				out[e.ID] = e
			}
		}
		return out
	}
	before, after := hidden(was), hidden(l)
	for id, e := range before {
		if after[id] == nil {
			all = append(all, e)
		}
	}
	for id, e := range after {
		if before[id] == nil {
			all = append(all, e)
		}
	}
	return all
}

// Erased are those whose samples are deleted wherever they are.
func (l *List) Erased(id tenant.ID, mint, maxt int64, now time.Time) []*Entry {
	return l.inState(id, mint, maxt, now, func(s State) bool { return s == Due })
}

func (l *List) inState(id tenant.ID, mint, maxt int64, now time.Time, is func(State) bool) (out []*Entry) {
	for _, e := range l.SeriesOf(id) {
		if e.Series.Overlaps(mint, maxt) && is(e.State(now)) {
			out = append(out, e)
		}
	}
	return out
}

// SeriesTenants are the tenants that there are requests for series of, in order.
func (l *List) SeriesTenants() (ids []tenant.ID) {
	for _, e := range l.SeriesRequests() {
		ids = append(ids, e.Tenant)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// CountSeries is how many requests for series there are by state.
func (l *List) CountSeries(now time.Time) map[State]int {
	n := map[State]int{Waiting: 0, Held: 0, Undone: 0, Due: 0, Ended: 0}
	for _, e := range l.SeriesRequests() {
		n[e.State(now)]++
	}
	return n
}
