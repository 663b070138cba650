package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
)

// Keep says how long blocks are kept after their last sample, by resolution. 0 = for ever.
type Keep struct{ Raw, FiveMin, OneHour time.Duration }

// of is how long blocks of a resolution are kept. Blocks of a resolution that nobody knows are kept for ever.
func (k Keep) of(resolution int64) time.Duration {
	switch resolution {
	case Raw:
		return k.Raw
	case FiveMin:
		return k.FiveMin
	case OneHour:
		return k.OneHour
	}
	return 0
}

// Rule is the retention of some blocks of a tenant.
type Rule struct {
	// Matchers are about the external labels of blocks. All must match.
	Matchers []*labels.Matcher
	Keep     Keep
}

// Rules say how long each block is kept: as the first rule of its tenant says that matches, or else as Default.
type Rules struct {
	Default Keep
	// Tenants are the rules of single tenants, and Others those of all tenants that have none of their own.
	Tenants map[string][]Rule
	Others  []Rule
}

// Policy is what counts now, and what counted before.
type Policy struct {
	Rules
	// Earlier are rules that were in force. Until the time that each has no block goes that they keep, so that a mistake
	// can be undone.
	Earlier []Dated
}

// Dated are rules that hold until a time.
type Dated struct {
	Rules
	Until time.Time
}

// keep is how long a block of a tenant is kept. A block without a tenant is nobody's, so no rule is about it.
func (r *Rules) keep(tenant string, m *block.Meta) Keep {
	if tenant == "" {
		return r.Default
	}
	rules, own := r.Tenants[tenant]
	if !own {
		rules = r.Others
	}
	for _, rule := range rules {
		if !slices.ContainsFunc(rule.Matchers, func(l *labels.Matcher) bool { return !l.Matches(m.Thanos.Labels[l.Name]) }) {
			return rule.Keep
		}
	}
	return r.Default
}

// overBy reports whether samples of time t, in ms, that blocks of m's stream have at a resolution, are kept no
// longer.
func (r *Rules) overBy(tenant string, m *block.Meta, resolution, t, now int64) bool {
	keep := r.keep(tenant, m).of(resolution)
	return keep > 0 && now-t > keep.Milliseconds()
}

// over is overBy for all rules that count. until is why they do not agree, zero if the present ones keep them or
// none does.
func (p *Policy) over(tenant string, m *block.Meta, resolution, t, now int64) (over bool, until time.Time) {
	if !p.overBy(tenant, m, resolution, t, now) {
		return false, time.Time{}
	}
	for i := range p.Earlier {
		d := &p.Earlier[i]
		if d.Until.UnixMilli() > now && d.Until.After(until) && !d.overBy(tenant, m, resolution, t, now) {
			until = d.Until
		}
	}
	return until.IsZero(), until
}

// over reports whether samples of time t that m's stream has at a resolution are kept no longer.
func (p *planner) over(m *block.Meta, resolution, t int64) bool {
	over, _ := p.Retention.over(p.tenantOf(m), m, resolution, t, p.now)
	return over
}

// Expiry is a block that is kept no longer.
type Expiry struct {
	Meta *block.Meta
	// Keep is how long it was to be kept.
	Keep time.Duration
	// Bytes are those of its files, as far as they are known.
	Bytes int64
	// Waits is why it is not marked for deletion yet, "" if it is to be marked.
	Waits string
	// Until is when the wait ends, if it is one for a retention that became shorter.
	Until time.Time
}

// Expired are the blocks whose retention is over and that are not marked for deletion, in order of time. A block
// waits while a coarser one is missing: as long as samples of a time are kept at any resolution, they can be read
// at the finest of these.
func Expired(b Bucket, s *Settings, now time.Time) (out []Expiry) {
	p := &planner{Settings: s, bucket: b, now: now.UnixMilli()}
	for _, m := range b.Metas {
		if _, marked := b.View.Deletions[m.ULID]; marked {
			continue
		}
		tenant, own := s.tenantOf(m), m.Thanos.Downsample.Resolution
		if !s.Retention.overBy(tenant, m, own, m.MaxTime, p.now) {
			continue
		}
		e := Expiry{Meta: m, Keep: s.Retention.keep(tenant, m).of(own), Bytes: m.Bytes()}
		var over bool
		if over, e.Until = s.Retention.over(tenant, m, own, m.MaxTime, p.now); !over {
			e.Waits = fmt.Sprintf("the retention became shorter, which has an effect at %s", e.Until.UTC().Format(time.RFC3339))
		} else {
			if p.cover.of == nil {
				p.cover = newCoverage(b, s)
			}
			e.Waits = p.missing(m)
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Expiry) int { return block.ByTime(a.Meta, b.Meta) })
	return out
}

// missing says which resolution the samples of m have to be kept at, and are not yet.
func (p *planner) missing(m *block.Meta) string {
	for _, r := range p.coarser(m.Thanos.Downsample.Resolution, []*block.Meta{m}) {
		if p.over(m, r, m.MaxTime) {
			continue
		}
		if p.cover.has(p.cover.keys.of(m.Thanos.Labels, p.cover.removed), r, m) {
			return ""
		}
		return fmt.Sprintf("its samples are to be kept at a resolution of %s, and are not there yet",
			time.Duration(r)*time.Millisecond)
	}
	return ""
}
