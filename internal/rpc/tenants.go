package rpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Metadata keys of a call.
const (
	keyTenant   = "hearth-tenant"   // the tenant whose series the caller wants, with their own labels
	keyRole     = "hearth-role"     // which source of the process
	keyInstance = "hearth-instance" // who calls: present on every call of a Hearth process
	keyThanos   = "thanos-tenant"   // what Thanos calls send
)

// Tenants says whose series a caller sees that does not name tenants by hearth-tenant. The zero value is the default
// tenant.
type Tenants struct {
	// All shows every tenant, as Thanos does.
	All bool
	// Header obeys the metadata key THANOS-TENANT even when it names the default tenant; without the key it is that one.
	Header bool
	// IDs are the tenants otherwise; empty = the default tenant.
	IDs []tenant.ID
}

// ParseTenants reads the flag --store-api.tenants: "*", "header", or tenant ids separated by "|".
func ParseTenants(flag string) (Tenants, error) {
	switch flag {
	case "*":
		return Tenants{All: true}, nil
	case "header":
		return Tenants{Header: true}, nil
	}
	ids, err := tenant.ParseSet(flag)
	return Tenants{IDs: ids}, err
}

// caller is who asks, as the metadata of the call says. Trust in it needs mTLS.
type caller struct {
	tenant []string // values of hearth-tenant
	thanos []string // values of thanos-tenant
	role   string
	hearth bool // a Hearth process
}

func callerOf(ctx context.Context) caller {
	md, _ := metadata.FromIncomingContext(ctx)
	c := caller{tenant: md.Get(keyTenant), thanos: md.Get(keyThanos), hearth: len(md.Get(keyInstance)) > 0}
	if roles := md.Get(keyRole); len(roles) > 0 {
		c.role = roles[0]
	}
	return c
}

// grant is what a caller may see.
type grant struct {
	// own means the one tenant's series with their own labels; otherwise the series are as Thanos has them.
	own bool
	// all means every tenant there is; otherwise those in tenants, sorted.
	all     bool
	tenants []tenant.ID
}

// grantTo decides whose series c sees, and how.
func (t Tenants) grantTo(c caller) (grant, error) {
	if named := distinct(c.tenant); len(named) > 0 {
		if len(named) > 1 {
			return grant{}, errs.E(errs.Invalid, "%s names %d tenants: one call is for one tenant", keyTenant, len(named))
		}
		id, err := tenant.Parse(named[0])
		return grant{own: true, tenants: []tenant.ID{id}}, err
	}
	if named := distinct(c.thanos); len(named) > 0 && (t.Header || named[0] != string(tenant.Default)) {
		if len(named) > 1 {
			return grant{}, errs.E(errs.Invalid, "%s is set to %d different values", keyThanos, len(named))
		}
		ids, err := tenant.ParseSet(named[0])
		return grant{tenants: ids}, err
	}
	switch {
	case t.Header:
		return grant{tenants: []tenant.ID{tenant.Default}}, nil
	case t.All:
		return grant{all: true}, nil
	case len(t.IDs) == 0:
		return grant{tenants: []tenant.ID{tenant.Default}}, nil
	}
	ids := slices.Clone(t.IDs)
	slices.Sort(ids)
	return grant{tenants: ids}, nil
}

// announced is what Info says to anybody: it has no tenant of its own to go by, and a caller that selects by announced
// labels must find all that it could be granted.
func (t Tenants) announced() grant {
	if t.Header {
		return grant{all: true}
	}
	g, _ := t.grantTo(caller{})
	return g
}

// among are the granted tenants of those a source holds; nil means that the source did not say.
func (g grant) among(held []tenant.ID) []tenant.ID {
	switch {
	case g.all && held == nil:
		return []tenant.ID{tenant.Default}
	case g.all:
		return held
	case held == nil:
		return g.tenants
	}
	var ids []tenant.ID
	for _, id := range g.tenants {
		if _, ok := slices.BinarySearch(held, id); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// distinct are the values without repetitions and without empty ones.
func distinct(values []string) []string {
	var out []string
	for _, v := range values {
		if v = strings.TrimSpace(v); v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
