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

// selectors are what the selectors of one query read where data are downsampled (docs/design/017). nil = of no query.
type selectors struct {
	uses     expr.Uses
	lookback int64 // for raw samples, ms; 0 = the engine's
}

type selectorsKey struct{}

func selectorsFrom(ctx context.Context) *selectors {
	s, _ := ctx.Value(selectorsKey{}).(*selectors)
	return s
}

// newSelectors prepares q for downsampled data, if its params p allow to read them.
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

// picks are what is picked for each read.
var picks = map[expr.Read]series.Pick{
	expr.ReadAverage: series.PickAvg, expr.ReadCount: series.PickCount, expr.ReadSum: series.PickSum,
	expr.ReadMin: series.PickMin, expr.ReadMax: series.PickMax, expr.ReadCounter: series.PickCounter,
}

// apply says how the selector with matchers ms is read, and returns the function that it is too vague for.
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

// notedSet is set with a warning where its windows are too coarse for what it is for.
type notedSet struct {
	series.Set
	reading  *series.Reading
	vague    string // the function that windows tell too little for
	length   int64  // of the range, ms; 0 = none
	looked   int
	coarsest int64
}

// mostLooked is how many downsampled series are looked at: those of a selection are alike.
const mostLooked = 64

func (s *notedSet) Next() bool {
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

func (s *notedSet) Warnings() series.Warnings {
	all := s.Set.Warnings()
	if s.coarsest == 0 {
		return all
	}
	res := model.Duration(time.Duration(s.coarsest) * time.Millisecond)
	if s.vague != "" {
		all = append(all[:len(all):len(all)],
			fmt.Sprintf("%s is computed from one value for each %s, as data are downsampled: the true result may differ (max_source_resolution=0s reads raw data)", s.vague, res))
	}
	need := s.coarsest
	if s.reading.Pick == series.PickCounter {
		need *= 2
	}
	if s.length > 0 && s.length < need {
		all = append(all[:len(all):len(all)],
			fmt.Sprintf("a range of %s is too short for data downsampled to %s, and has no value at some times: it should be %s or more",
				model.Duration(time.Duration(s.length)*time.Millisecond), res, model.Duration(time.Duration(need)*time.Millisecond)))
	}
	return all
}
