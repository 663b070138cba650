package query

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/series"
)

// selectors say what the selectors of one query read where data are downsampled (docs/design/017). nil = they read raw
// data.
type selectors struct {
	uses     expr.Uses
	lookback int64 // for raw samples, ms; 0 = the engine's
}

type selectorsKey struct{}

func selectorsFrom(ctx context.Context) *selectors {
	s, _ := ctx.Value(selectorsKey{}).(*selectors)
	return s
}

// newSelectors prepares q for downsampled data, if its params p allow it to read them.
func newSelectors(q promql.Query, p *params) *selectors {
	if !p.autoResolve && p.maxResolution.Milliseconds() < series.FiveMinutes {
		return nil
	}
	s := new(selectors)
	s.uses = expr.ForDownsampled(q.Statement(), func(lookback, step time.Duration) time.Duration {
		raw := lookback.Milliseconds()
		wide := series.Widened(raw, p.resolution(step.Milliseconds()))
		if wide > raw {
			s.lookback = raw
		}
		return time.Duration(wide) * time.Millisecond
	})
	return s
}

// picks are the values of a window that each kind of read takes.
var picks = map[expr.Read]series.Pick{
	expr.ReadAverage: series.PickAvg, expr.ReadCount: series.PickCount, expr.ReadSum: series.PickSum,
	expr.ReadMin: series.PickMin, expr.ReadMax: series.PickMax, expr.ReadCounter: series.PickCounter,
}

// apply sets how the selector with matchers ms is read. It returns the function whose result may differ over windows,
// "" if there is none.
func (s *selectors) apply(to *series.Reading, ms []*labels.Matcher) (vague string) {
	if s == nil || len(ms) == 0 {
		return ""
	}
	use := s.uses[ms[0]]
	to.Pick = picks[use.Read]
	return use.Vague
}

// rawLookback is series.Reading.Lookback for selectors of instants.
func (s *selectors) rawLookback() int64 {
	if s == nil {
		return 0
	}
	return s.lookback
}

// coarseSet adds a warning to a set whose windows are too coarse for what the query does with them.
type coarseSet struct {
	series.Set
	reading  *series.Reading
	vague    string // the function whose result may differ over windows; "" = none
	length   int64  // of the range, ms; 0 = none
	looked   int    // downsampled series that were looked at
	coarsest int64  // resolution among them, ms
}

// mostLooked is how many downsampled series are looked at. It is enough, since the series of a selection are alike.
const mostLooked = 64

func (s *coarseSet) Next() bool {
	if !s.Set.Next() {
		return false
	}
	if s.looked < mostLooked {
		if res := series.Resolution(s.Set.At().Chunks, s.reading.Resolution); res > 0 {
			s.looked++
			s.coarsest = max(s.coarsest, res)
		}
	}
	return true
}

func (s *coarseSet) Warnings() series.Warnings {
	all := s.Set.Warnings()
	if s.coarsest == 0 {
		return all
	}
	text := func(ms int64) string { return model.Duration(time.Duration(ms) * time.Millisecond).String() }
	all = all[:len(all):len(all)] // the slice may be the inner set's
	if s.vague != "" {
		all = append(all, fmt.Sprintf("%s is computed from one value for each %s, as data are downsampled: "+
			"the true result may differ (max_source_resolution=0s reads raw data)", s.vague, text(s.coarsest)))
	}
	need := s.coarsest
	if s.reading.Pick == series.PickCounter {
		need *= 2 // a rate needs two values
	}
	if s.length > 0 && s.length < need {
		all = append(all, fmt.Sprintf("a range of %s is too short for data downsampled to %s, and has no value "+
			"at some times: it should be %s or more", text(s.length), text(s.coarsest), text(need)))
	}
	return all
}
