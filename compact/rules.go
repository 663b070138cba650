package compact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/compact/plan"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
)

// millis are periods by resolution (raw, 5m, 1h) in ms, 0 = for ever.
type millis [3]int64

func millisOf(p Periods) millis {
	return millis{p.Raw.Milliseconds(), p.FiveMinutes.Milliseconds(), p.OneHour.Milliseconds()}
}

func (m millis) keep() plan.Keep {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	return plan.Keep{Raw: ms(m[0]), FiveMin: ms(m[1]), OneHour: ms(m[2])}
}

// tenantRules are TenantPeriods as the bucket has them.
type tenantRules struct {
	Keep  millis        `json:"keep"`
	Rules []matchedRule `json:"rules,omitempty"`
}

type matchedRule struct {
	Match string `json:"match"`
	Keep  millis `json:"keep"`
}

func tenantRulesOf(t TenantPeriods) tenantRules {
	out := tenantRules{Keep: millisOf(t.Periods)}
	for _, r := range t.Rules {
		out.Rules = append(out.Rules, matchedRule{r.Match, millisOf(r.Periods)})
	}
	return out
}

// ruleSet is all that decides how long blocks are kept.
type ruleSet struct {
	Default millis                 `json:"default"` // of blocks without a tenant
	Others  tenantRules            `json:"others"`
	Tenants map[string]tenantRules `json:"tenants,omitempty"`
}

// equal reports whether two sets say the same. JSON has the names of tenants in order.
func (s ruleSet) equal(o ruleSet) bool {
	a, errA := json.Marshal(s)
	b, errB := json.Marshal(o)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func parseMatch(text string) ([]*labels.Matcher, error) {
	all, err := expr.New(0).ParseMetricSelector(text)
	if err != nil {
		return nil, errs.E(errs.Invalid, "matchers %q: %w", text, err)
	}
	return all, nil
}

// plan is the set as plans have it.
func (s ruleSet) plan() (plan.Rules, error) {
	rulesOf := func(t tenantRules) ([]plan.Rule, error) {
		var out []plan.Rule
		for _, r := range t.Rules {
			matchers, err := parseMatch(r.Match)
			if err != nil {
				return nil, err
			}
			out = append(out, plan.Rule{Matchers: matchers, Keep: r.Keep.keep()})
		}
		return append(out, plan.Rule{Keep: t.Keep.keep()}), nil
	}
	out := plan.Rules{Default: s.Default.keep(), Tenants: map[string][]plan.Rule{}}
	var err error
	if out.Others, err = rulesOf(s.Others); err != nil {
		return out, err
	}
	for name, t := range s.Tenants {
		if out.Tenants[name], err = rulesOf(t); err != nil {
			return out, fmt.Errorf("tenant %q: %w", name, err)
		}
	}
	return out, nil
}

// maxEarlier bounds how many sets hold beside the one in force.
const maxEarlier = 64

// rulesRecord is what counts now and what still holds from before. It is kept in the bucket, so that neither a restart
// nor another process shortens anything.
type rulesRecord struct {
	Version int       `json:"version"`
	Now     ruleSet   `json:"now"`
	Earlier []heldSet `json:"earlier,omitempty"`
}

// heldSet is a set that was in force: no block goes that it keeps, until a time (Unix seconds).
type heldSet struct {
	ruleSet
	Until int64 `json:"until"`
}

// settle is r after the configuration says want at the time now. What kept blocks until now goes on to keep them for
// wait. At first (a zero r) all is kept for ever. known is false while the configuration is not valid: then nothing
// changes, and all waits begin anew. The error says that there are too many changes.
func (r rulesRecord) settle(want ruleSet, known bool, now time.Time, wait time.Duration) (rulesRecord, error) {
	if !known {
		want = r.Now
	}
	out, until := rulesRecord{Version: 2, Now: want}, now.Add(wait).Unix()
	for _, e := range r.Earlier {
		if !known && e.Until > now.Unix() {
			e.Until = until
		}
		if e.Until > now.Unix() && !e.equal(want) && !e.equal(r.Now) {
			out.Earlier = append(out.Earlier, e)
		}
	}
	if !r.Now.equal(want) && wait > 0 {
		out.Earlier = append(out.Earlier, heldSet{r.Now, until})
	}
	if len(out.Earlier) > maxEarlier {
		return r, errs.E(errs.Exhausted, "retention changed more than %d times within %s: nothing expires until %s",
			maxEarlier, wait, time.Unix(slices.MinFunc(out.Earlier, func(a, b heldSet) int {
				return int(a.Until - b.Until)
			}).Until, 0).UTC().Format(time.RFC3339))
	}
	return out, nil
}

// policy is r as plans have it.
func (r rulesRecord) policy() (p plan.Policy, err error) {
	if p.Rules, err = r.Now.plan(); err != nil {
		return p, err
	}
	for _, e := range r.Earlier {
		rules, err := e.plan()
		if err != nil {
			return p, err
		}
		p.Earlier = append(p.Earlier, plan.Dated{Rules: rules, Until: time.Unix(e.Until, 0)})
	}
	return p, nil
}
