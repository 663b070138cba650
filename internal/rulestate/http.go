package rulestate

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// View is what an answer is about.
type View struct {
	Source Source
	// Tenants are those that the request names, and may see.
	Tenants []tenant.ID
	// TenantLabel is the label that names the tenant in rules and alerts when there are several Tenants.
	TenantLabel string
}

// HandleRules answers GET /api/v1/rules as Prometheus does, with what Thanos adds.
func HandleRules(w http.ResponseWriter, r *http.Request, v View) {
	q, page, err := parseRules(r)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	groups, warnings, err := v.groups(r, q)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	answer := struct {
		Groups []groupJSON[any] `json:"groups"`
		Next   string           `json:"groupNextToken,omitempty"`
	}{Groups: []groupJSON[any]{}}
	if groups, answer.Next, err = page.of(groups); err != nil {
		promapi.WriteError(w, err)
		return
	}
	for i := range groups {
		answer.Groups = append(answer.Groups, groups[i].json())
	}
	httpx.WriteData(w, answer, warnings...)
}

// HandleAlerts answers GET /api/v1/alerts as Prometheus does, with what Thanos adds.
func HandleAlerts(w http.ResponseWriter, r *http.Request, v View) {
	groups, warnings, err := v.groups(r, Query{Type: Alerting})
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	answer := struct {
		Alerts []alertJSON `json:"alerts"`
	}{[]alertJSON{}}
	for i := range groups {
		for _, rule := range groups[i].Rules {
			answer.Alerts = append(answer.Alerts, alertsJSON(rule.Alerts, groups[i].strategy())...)
		}
	}
	httpx.WriteData(w, answer, warnings...)
}

// groups asks for all tenants. A rule of one of several tenants gets a label that names it.
func (v View) groups(r *http.Request, q Query) (all []Group, warnings []string, err error) {
	for _, id := range v.Tenants {
		groups, more, err := v.Source.Rules(r.Context(), id, q)
		if err != nil {
			return nil, nil, err
		}
		if len(v.Tenants) > 1 {
			groups = named(groups, v.TenantLabel)
		}
		all, warnings = append(all, groups...), append(warnings, more...)
	}
	Sort(all)
	slices.Sort(warnings)
	return all, slices.Compact(warnings), nil
}

// named adds the tenant to the labels of rules and alerts, under label.
func named(groups []Group, label string) []Group {
	groups = slices.Clone(groups)
	for i, g := range groups {
		add := func(ls labels.Labels) labels.Labels {
			return labels.NewBuilder(ls).Set(label, string(g.Tenant)).Labels()
		}
		rules := slices.Clone(g.Rules)
		for k := range rules {
			rules[k].Labels = add(rules[k].Labels)
			rules[k].Alerts = slices.Clone(rules[k].Alerts)
			for j := range rules[k].Alerts {
				rules[k].Alerts[j].Labels = add(rules[k].Alerts[j].Labels)
			}
		}
		groups[i].Rules = rules
	}
	return groups
}

func parseRules(r *http.Request) (q Query, p page, err error) {
	if err := r.ParseForm(); err != nil {
		return q, p, errs.E(errs.Invalid, "error parsing form values: %w", err)
	}
	q.Names, q.Groups, q.Files = r.Form["rule_name[]"], r.Form["rule_group[]"], r.Form["file[]"]
	switch typ := strings.ToLower(r.FormValue("type")); typ {
	case "":
	case "alert":
		q.Type = Alerting
	case "record":
		q.Type = Recording
	default:
		return q, p, errs.E(errs.Invalid, "invalid parameter %q: not supported value %q", "type", typ)
	}
	if q.Matchers, err = ParseMatchers(r.Form["match[]"]); err != nil {
		return q, p, err
	}
	if text := r.FormValue("exclude_alerts"); text != "" {
		if q.ExcludeAlerts, err = strconv.ParseBool(text); err != nil {
			return q, p, errs.E(errs.Invalid, "invalid parameter %q: error converting exclude_alerts: %w", "exclude_alerts", err)
		}
	}
	p, err = parsePage(r)
	return q, p, err
}

// page is a part of the groups: at most limit of them, from that with the token on.
type page struct {
	limit int    // 0 = all
	token string // "" = from the first
}

func parsePage(r *http.Request) (page, error) {
	p := page{token: r.FormValue("group_next_token")}
	text := r.FormValue("group_limit")
	switch {
	case text == "" && p.token != "":
		return p, errs.E(errs.Invalid, "invalid parameter %q: group_limit needs to be present in order to paginate over "+
			"the groups", "group_next_token")
	case text == "":
		return p, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return p, errs.E(errs.Invalid, "invalid parameter %q: group_limit needs to be a valid number: %w", "group_limit", err)
	}
	if n <= 0 {
		return p, errs.E(errs.Invalid, "invalid parameter %q: group_limit needs to be a number greater than 0", "group_limit")
	}
	p.limit = int(n)
	return p, nil
}

// of returns the part of groups, and the token of the next part.
func (p page) of(groups []Group) (part []Group, next string, err error) {
	if p.limit == 0 {
		return groups, "", nil
	}
	if p.token != "" {
		at := slices.IndexFunc(groups, func(g Group) bool { return g.token() == p.token })
		if at < 0 {
			return nil, "", errs.E(errs.Invalid, "invalid parameter %q: invalid group_next_token '%v'. were rule groups "+
				"changed?", "group_next_token", p.token)
		}
		groups = groups[at:]
	}
	if len(groups) <= p.limit {
		return groups, "", nil
	}
	return groups[:p.limit], groups[p.limit].token(), nil
}

// token names a group in pages. For the default tenant it is Prometheus's.
func (g *Group) token() string {
	text := g.File + ";" + g.Name
	if g.Tenant != tenant.Default {
		text += ";" + string(g.Tenant)
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
