package expr

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// TestForDownsampled: what each selector reads, in the order of the expression, and what the expression becomes.
func TestForDownsampled(t *testing.T) {
	f := func(text, want string, reads ...string) {
		t.Helper()
		e, err := New(0).ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		stmt := &parser.EvalStmt{Expr: e, Interval: time.Minute, LookbackDelta: 5 * time.Minute}
		var longest time.Duration
		uses := ForDownsampled(stmt, func(lookback, step time.Duration) time.Duration {
			longest = step
			return 2 * lookback
		})
		if got := stmt.Expr.String(); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
		var got []string
		parser.Inspect(stmt.Expr, func(n parser.Node, _ []parser.Node) error {
			if s, ok := n.(*parser.VectorSelector); ok {
				use, noted := uses[s.LabelMatchers[0]]
				if !noted {
					t.Errorf("%s: nothing is known of %s", text, s)
				}
				got = append(got, strings.TrimSpace(
					fmt.Sprint([]string{"average", "count", "sum", "min", "max", "counter"}[use.Read], " ", use.Vague)))
			}
			return nil
		})
		if strings.Join(got, ",") != strings.Join(reads, ",") {
			t.Errorf("%s reads %q, want %q", text, got, reads)
		}
		if stmt.LookbackDelta != 10*time.Minute || longest < time.Minute {
			t.Errorf("%s: look-back %s, longest step %s", text, stmt.LookbackDelta, longest)
		}
	}
	same := func(text string, reads ...string) { t.Helper(); f(text, text, reads...) }
	same("m", "average")
	same("sum by (a) (m)", "average")
	same("max(m)", "max")
	same("min by (a) ((m))", "min")
	same("max(-m)", "average")
	same("max(abs(m))", "average")
	same("max(m - n)", "average", "average")
	same("topk(scalar(max(m)), n)", "average", "max")
	same("rate(m[5m])", "counter")
	same("max(rate(m[5m]))", "counter")
	same("max_over_time(m[5m])", "max")
	same("max_over_time(m[1h:5m])", "max")
	same("max_over_time(rate(m[5m])[1h:5m])", "counter")
	same("sum_over_time(m[5m])", "sum")
	same("sum_over_time(m[1h:5m])", "average")
	same("count_over_time(m[1h:5m])", "average")
	same("avg_over_time(m[1h:5m])", "average")
	same("rate(m[1h:5m])", "counter")
	same("max_over_time((-m)[1h:5m])", "average")
	same("absent_over_time(m[5m])", "count")
	same("quantile_over_time(scalar(max(n)), m[5m])", "max", "average quantile_over_time")
	same("resets(m[5m])", "min resets")
	f("count_over_time(m[5m])", "sum_over_time(m[5m])", "count")
	f("avg_over_time(m[5m] offset 1m)", "sum_over_time(m[5m] offset 1m) / sum_over_time(m[5m] offset 1m)", "sum", "count")
	f("max(avg_over_time(m[5m]))", "max(sum_over_time(m[5m]) / sum_over_time(m[5m]))", "sum", "count")
	f("1 + -count_over_time((m[5m]))", "1 + -sum_over_time((m[5m]))", "count")
}
