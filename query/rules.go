package query

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// RulePeer is something with rules.
type RulePeer struct {
	// Name is its name for people.
	Name   string
	Source rulestate.Source
}

var _ rulestate.Source = (*Querier)(nil)

// Rules implements rulestate.Source over Options.Rules. All are asked at the same time. Each group is there once, and
// each of its rules, although several rulers may run it, or be its copies: labels in which only copies differ are
// dropped, as for series.
func (q *Querier) Rules(ctx context.Context, id tenant.ID, of rulestate.Query) ([]rulestate.Group, []string, error) {
	if id == "" {
		return q.rulesOfAll(ctx, of)
	}
	var peers []RulePeer
	if q.opts.Rules != nil {
		peers = q.opts.Rules()
	}
	asked, cancel := context.WithTimeout(ctx, cmp.Or(q.opts.ResponseTimeout, q.opts.Timeout))
	defer cancel()
	var mu sync.Mutex // guards lists, warnings and missing
	var lists [][]rulestate.Group
	var warnings, missing []string
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() {
			groups, said, err := p.Source.Rules(asked, id, of)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				missing = append(missing, "rules of "+p.Name+": "+err.Error())
			}
			lists = append(lists, groups)
			warnings = append(warnings, said...)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	p := q.paramsFrom(ctx)
	if len(missing) > 0 {
		slices.Sort(missing)
		q.m.partial.Inc()
		p.incomplete.Store(true)
		if !p.partial {
			return nil, nil, errs.E(errs.Unavailable, "the answer would be incomplete: %s", strings.Join(missing, "; "))
		}
	}
	return rulestate.Merge(p.replicaLabels, lists...), withMissing(warnings, missing), nil
}

// rulesOfAll are the rules of all tenants that endpoints have.
func (q *Querier) rulesOfAll(
	ctx context.Context, of rulestate.Query,
) (all []rulestate.Group, warnings []string, _ error) {
	ids := q.snapshot.Load().info.Tenants
	if len(ids) == 0 {
		ids = []tenant.ID{tenant.Default}
	}
	for _, id := range ids {
		groups, said, err := q.Rules(ctx, id, of)
		if err != nil {
			return nil, nil, err
		}
		all, warnings = append(all, groups...), append(warnings, said...)
	}
	slices.Sort(warnings)
	return all, slices.Compact(warnings), nil
}
