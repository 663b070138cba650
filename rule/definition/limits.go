package definition

import (
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// CheckLimits reports which of its tenant's limits the group exceeds, as an error of kind Invalid. It does not know how
// many groups the tenant has.
func (g *Group) CheckLimits(l *tenant.Limits) error {
	if n := len(g.Rules); l.RulesPerGroup > 0 && n > l.RulesPerGroup {
		return errs.E(errs.Invalid, "tenant %s, group %q in %q has %d rules, and may have %d (limit rules_per_group)",
			g.Tenant, g.Name, g.Namespace, n, l.RulesPerGroup)
	}
	if g.Interval > 0 && g.Interval < l.RuleInterval {
		return errs.E(errs.Invalid, "tenant %s, group %q in %q: interval %s is shorter than %s (limit rule_interval)",
			g.Tenant, g.Name, g.Namespace, time.Duration(g.Interval), time.Duration(l.RuleInterval))
	}
	return g.CheckSources(l)
}

// CheckSources reports which of SourceTenants the group may not read, as an error of kind Forbidden. It is checked when
// a group is stored, and again at each evaluation, since limits change.
func (g *Group) CheckSources(l *tenant.Limits) error {
	for _, id := range g.SourceTenants {
		if id != g.Tenant && !l.RulesMayRead(id) {
			return errs.E(errs.Forbidden, "tenant %s, group %q in %q: its rules may not read tenant %s (limit "+
				"rule_source_tenants)", g.Tenant, g.Name, g.Namespace, id)
		}
	}
	return nil
}

// CheckCount reports that a tenant with n groups has more than it may have, as an error of kind Invalid.
func CheckCount(id tenant.ID, n int, l *tenant.Limits) error {
	if l.RuleGroups > 0 && n > l.RuleGroups {
		return errs.E(errs.Invalid, "tenant %s has %d groups of rules, and may have %d (limit rule_groups)", id, n,
			l.RuleGroups)
	}
	return nil
}
