package rule

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// progress is all that the evaluation of a group has come to, as a value: what another group, or another process, needs
// to go on from there.
type progress struct {
	id    groupID
	slot  time.Time // the newest slot that was evaluated; zero = none
	rules []ruleProgress
	stale []labels.Labels // series whose end is to be marked
}

// ruleProgress is the part of one rule.
type ruleProgress struct {
	text, nameAndLabels string
	restored            bool // its alerts are all that there are
	evals               int
	alerts              []rules.Alert
	series              []labels.Labels // of the last evaluation
}

// progress is that of a group that does not run, or behind a slot, from its own goroutine. Without all, the series of
// recording rules are left out: they may be many, and are only needed to mark their ends.
func (g *group) progress(all bool) *progress {
	p := &progress{id: g.id, slot: g.last, stale: g.stale}
	for _, r := range g.rules {
		of := ruleProgress{text: r.text(), nameAndLabels: r.nameAndLabels(), restored: true, evals: r.evals,
			alerts: r.alerts()}
		if r.alert != nil {
			of.restored = r.alert.Restored()
		}
		if all || r.alert != nil {
			for _, ls := range r.previous {
				of.series = append(of.series, ls)
			}
		}
		p.rules = append(p.rules, of)
	}
	return p
}

// adopt gives the groups what the rules of earlier groups have come to. First each group looks among the rules of the
// group that had its name, as Prometheus does: by name and labels, so that an alert goes on when its expression or
// duration is changed. Then rules that found nothing look in all earlier groups of their tenant for one that does the
// same: a rule may move to another group or file. What is left stays in from.
func adopt(ctx context.Context, groups []*group, from []*progress) {
	byID := map[groupID]*progress{}
	for _, p := range from {
		byID[p.id] = p
	}
	found := map[*rule]bool{}
	take := func(g *group, r *rule, p *ruleProgress) {
		found[r] = true
		if err := r.take(ctx, p); err != nil {
			g.log.Error("alerts of a rule are not taken over; they are looked for in stored series", "rule", r.lib.Name(),
				"err", err)
		}
	}
	for _, g := range groups {
		p := byID[g.id]
		if p == nil {
			continue
		}
		if !p.slot.IsZero() && g.grid.has(p.slot) {
			g.last = p.slot
		}
		g.stale, p.stale = append(g.stale, p.stale...), nil
		for _, r := range g.rules {
			name := r.nameAndLabels()
			if i := slices.IndexFunc(p.rules, func(o ruleProgress) bool { return o.nameAndLabels == name }); i >= 0 {
				take(g, r, &p.rules[i])
			}
		}
	}
	type what struct {
		tenant tenant.ID
		text   string
	}
	rest := map[what][]*ruleProgress{}
	for _, p := range from {
		for i := range p.rules {
			of := &p.rules[i]
			rest[what{p.id.tenant, of.text}] = append(rest[what{p.id.tenant, of.text}], of)
		}
	}
	for _, g := range groups {
		for _, r := range g.rules {
			key := what{g.id.tenant, r.text()}
			if same := rest[key]; !found[r] && len(same) > 0 {
				rest[key] = same[1:]
				take(g, r, same[0])
			}
		}
	}
	for _, p := range from {
		p.rules = slices.DeleteFunc(p.rules, func(o ruleProgress) bool { return o.text == "" })
	}
}

// take gives r what p is, and empties p.
func (r *rule) take(ctx context.Context, p *ruleProgress) error {
	r.evals = p.evals
	r.previous = make(map[string]labels.Labels, len(p.series))
	for _, ls := range p.series {
		r.previous[string(ls.Bytes(nil))] = ls
	}
	err := r.reset(ctx)
	if err == nil {
		err = r.resume(ctx, p.alerts)
	}
	if r.alert != nil {
		r.alert.SetRestored(p.restored && err == nil)
	}
	*p = ruleProgress{}
	return err
}

func (p *progress) hasAlerts() bool {
	return slices.ContainsFunc(p.rules, func(r ruleProgress) bool { return len(r.alerts) > 0 })
}

// series are those of all that is left of p.
func (p *progress) series() (out []labels.Labels) {
	out = append(out, p.stale...)
	for _, r := range p.rules {
		out = append(out, r.series...)
	}
	return out
}
