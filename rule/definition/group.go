package definition

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/rulefmt"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Group is a checked group of rules of one tenant, as people wrote it. Nobody changes a Group that a Source returned.
type Group struct {
	// Tenant is whose results and alerts these are.
	Tenant tenant.ID
	// Namespace holds groups, each with a name of its own: the path of a file as the user gave it, or any name that a
	// client of the API chose. It may have any bytes.
	Namespace string
	// RuleGroup has the group's name, interval, query_offset, limit, labels and rules. An Interval of 0 is the default
	// of the evaluation.
	rulefmt.RuleGroup
	// PartialResponse says what happens when the answer to a rule's query may be incomplete.
	PartialResponse Strategy
	// SourceTenants are the tenants that the rules read, sorted; none = Tenant alone.
	SourceTenants []tenant.ID
}

// Strategy is what a rule does with an answer that may be incomplete. Abort is the zero value.
type Strategy uint8

// The strategies.
const (
	Abort Strategy = iota // the rule fails and writes nothing
	Warn                  // the answer is used, with a warning
)

// String is the strategy's word in files.
func (s Strategy) String() string {
	if s == Warn {
		return "warn"
	}
	return "abort"
}

// ParseStrategy reads the word of a file, in any case; "" is Abort.
func ParseStrategy(word string) (Strategy, error) {
	switch strings.ToLower(word) {
	case "", "abort":
		return Abort, nil
	case "warn":
		return Warn, nil
	}
	return Abort, fmt.Errorf("partial_response_strategy %q: want warn or abort", word)
}

// Source gives the groups that should run now. Its methods may be called by several goroutines.
type Source interface {
	// Groups returns the groups that can be read, sorted by tenant, namespace and name, and an error that names what
	// cannot. Both may be there at once: last good forms are among the groups. The caller owns the slice.
	Groups(ctx context.Context) ([]Group, error)
	// Changed receives after each change; several changes may come as one. Groups is then asked again.
	Changed() <-chan struct{}
}

// Sort sorts groups as a Source returns them.
func Sort(groups []Group) {
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}
