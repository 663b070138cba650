package rpc

import (
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// TestSelectorsAreBounded: what a caller sends as an expression or as matchers is bounded before it is parsed or
// compiled.
func TestSelectorsAreBounded(t *testing.T) {
	f := func(name string, in *thanospb.ExemplarsRequest, want errs.Kind) {
		t.Helper()
		if _, err := selectorsOf(in); errs.KindOf(err) != want || want != errs.OK && !strings.Contains(err.Error(), "limit") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("good", &thanospb.ExemplarsRequest{Query: `rate(m{a=~"b.+"}[5m])`}, errs.OK)
	f("nested", &thanospb.ExemplarsRequest{Query: strings.Repeat("(", 10_000) + "m" + strings.Repeat(")", 10_000)},
		errs.TooLarge)
	f("open", &thanospb.ExemplarsRequest{Query: strings.Repeat("sum(", 10_000)}, errs.TooLarge)
	f("unary", &thanospb.ExemplarsRequest{Query: strings.Repeat("-", 10_000) + "m"}, errs.TooLarge)
	f("long", &thanospb.ExemplarsRequest{Query: "m #" + strings.Repeat("x", 1<<20)}, errs.TooLarge)
	matcher := func(value string) []*thanospb.LabelMatcher {
		return []*thanospb.LabelMatcher{{Type: thanospb.LabelMatcher_RE, Name: "a", Value: value}}
	}
	selector := func(value string) *thanospb.Selector { return &thanospb.Selector{Matchers: matcher(value)} }
	large := strings.Repeat("x", expr.MaxRegexpSize*2/3)
	f("one selector", &thanospb.ExemplarsRequest{Selectors: []*thanospb.Selector{selector(large)}}, errs.OK)
	f("selectors together", &thanospb.ExemplarsRequest{Selectors: []*thanospb.Selector{selector(large), selector(large)}},
		errs.TooLarge)

	if _, err := matchersFromPB(new(expr.Matchers),
		matcher(strings.Repeat("a{1000}", 1000))); errs.KindOf(err) != errs.TooLarge {
		t.Error("matchers of a series request:", err)
	}
	if _, err := matchersFromPB(new(expr.Matchers), matcher("(")); errs.KindOf(err) != errs.Invalid {
		t.Error(err)
	}
}
