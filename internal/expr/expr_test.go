package expr

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// nested is every way to make a tree of n levels, by name.
func nested(n int) map[string]string {
	around := func(before, within, after string) string {
		return strings.Repeat(before, n) + within + strings.Repeat(after, n)
	}
	return map[string]string{
		"parentheses":                           around("(", "m", ")"),
		"open parentheses":                      around("(", "", ""),
		"calls":                                 around("abs(", "m", ")"),
		"open calls":                            around("abs(", "m", ""),
		"aggregations":                          around("sum(", "m", ")"),
		"aggregations by":                       around("sum by (a, b) (", "m", ")"),
		"behind":                                around("sum(", "m", ") by (a)"),
		"second argument":                       around("topk(1, ", "m", ")"),
		"later argument":                        around(`label_join(`, "m", `, "a", "b")`),
		"unary":                                 around("-", "m", ""),
		"unary plus":                            around("+ ", "m", ""),
		"left":                                  around("1+", "1", ""),
		"right":                                 around("1^", "1", ""),
		"comparisons":                           around("m == bool ", "m", ""),
		"sets":                                  around("m or ", "m", ""),
		"matching":                              around("m * on (a) group_left (b) ", "m", ""),
		"atan2":                                 around("m atan2 ", "m", ""),
		"mixed":                                 around("1+2*3^", "1", ""),
		"subqueries":                            around("max_over_time(", "m", "[1m:1m])"),
		"subqueries, bare":                      around("", "m", "[1m:1m]"),
		"offsets":                               around("", "m", " offset 1m"),
		"at":                                    around("", "m", " @ 1"),
		"duration":                              "m[" + around("(", "1m", ")") + "]",
		"duration sum":                          "m[" + around("1m+", "1m", "") + "]",
		"offset expression":                     "m offset " + around("(", "1m", ")"),
		"behind a comment":                      around("(# )))\n", "m", ")"),
		"behind strings":                        around(`label_replace(`, "m", `, "a", ")", "b", '[(]')`),
		"within an argument":                    "topk(1, " + around("-", "m", "") + ")",
		"operators in parentheses in operators": around("1+(2*", "m", ")"),
	}
}

// TestNesting: what is nested too deeply is refused before it is parsed, and what is not can be printed, walked and
// run.
func TestNesting(t *testing.T) {
	p := New(64 << 20)
	for name, text := range nested(20_000) {
		if _, err := p.ParseExpr(text); errs.KindOf(err) != errs.TooLarge || !strings.Contains(err.Error(), "limit on") {
			t.Errorf("%s, %d bytes: %v", name, len(text), err)
		}
		if _, err := p.ParseMetricSelector(text); errs.KindOf(err) != errs.TooLarge {
			t.Errorf("%s as a selector: %v", name, err)
		}
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: p,
		EnableAtModifier: true, EnableNegativeOffset: true})
	nothing := storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil })
	for name, text := range nested(MaxDepth / 4) {
		e, err := p.ParseExpr(text)
		if errs.KindOf(err) == errs.TooLarge {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue // no PromQL, whatever its depth
		}
		depth := 0
		parser.Inspect(e, func(_ parser.Node, path []parser.Node) error {
			depth = max(depth, len(path))
			return nil
		})
		if depth > MaxDepth || len(e.String()) == 0 || len(e.Pretty(0)) == 0 {
			t.Errorf("%s: %d levels", name, depth)
		}
		q, err := engine.NewRangeQuery(t.Context(), nothing, nil, text, time.Unix(0, 0), time.Unix(60, 0), time.Minute)
		if err != nil {
			if !strings.Contains(err.Error(), "must be Scalar or instant Vector") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if res := q.Exec(context.Background()); res.Err != nil {
			t.Errorf("%s: %v", name, res.Err)
		}
		q.Close()
	}
}

// FuzzDepth: no text becomes a tree that is deeper than the scan says.
func FuzzDepth(f *testing.F) {
	for _, text := range nested(3) {
		f.Add(text)
	}
	f.Add(`sum by (job) (rate(http_requests_total{code=~"5..",path!~"/a|/b"}[5m] offset -1w)) / on (job) group_left () up > bool 1 or vector(1)`)
	p := New(1 << 10)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := p.ParseExpr(text)
		if err != nil || e == nil {
			return
		}
		var levels nesting
		lexer := parser.Lex(text)
		for item := (parser.Item{}); ; {
			lexer.NextItem(&item)
			if item.Typ == parser.EOF || item.Typ == parser.ERROR {
				break
			}
			levels.add(item.Typ)
		}
		bound := levels.depth()
		parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
			if n != nil && len(path) > bound {
				if _, selector := n.(*parser.VectorSelector); !selector || len(path) > bound+1 { // m[5m] is two nodes
					t.Fatalf("%q: %T at level %d, and the scan says %d", text, n, len(path), bound)
				}
			}
			return nil
		})
	})
}

func TestLength(t *testing.T) {
	p := New(100)
	long := `m{a="` + strings.Repeat("x", 100) + `"}`
	f := func(name string, err error) {
		t.Helper()
		if errs.KindOf(err) != errs.TooLarge || !strings.Contains(err.Error(), "--query.max-expression-bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := p.ParseExpr(long)
	f("expression", err)
	_, err = p.ParseExpr("m #" + long)
	f("comment", err)
	_, err = p.ParseMetric(long)
	f("metric", err)
	_, err = p.ParseMetricSelector(long)
	f("selector", err)
	_, _, err = p.ParseSeriesDesc(long)
	f("series", err)
	_, err = p.ParseMetricSelectors([]string{long[:60] + `"}`, long[:60] + `"}`})
	f("selectors together", err)
	if ms, err := p.ParseMetricSelectors([]string{"m", "n{a='b'}"}); err != nil || len(ms) != 2 {
		t.Error(ms, err)
	}
	if _, err := Selectors(strings.Repeat(" ", DefaultMaxBytes) + "m"); errs.KindOf(err) != errs.TooLarge {
		t.Error(err)
	}
	if _, err := Selectors("m{"); errs.KindOf(err) != errs.Invalid {
		t.Error(err)
	}
	if ms, err := Selectors(`rate(m[5m]) + n{a=~"b|c"}`); err != nil ||
		fmt.Sprint(ms) != `[[__name__="m"] [a=~"b|c" __name__="n"]]` {
		t.Error(ms, err)
	}
}

func TestRegexpSizes(t *testing.T) {
	f := func(pattern string, fits bool) {
		t.Helper()
		name := fmt.Sprintf("%.30q of %d bytes", pattern, len(pattern))
		_, err := new(Matchers).New(labels.MatchRegexp, "a", pattern)
		if fits && err != nil ||
			!fits && (errs.KindOf(err) != errs.TooLarge || !strings.Contains(err.Error(), "limit on regular expressions")) {
			t.Errorf("%s: %v, want it to fit: %v", name, err, fits)
		}
		for _, text := range []string{`m{a!~` + "`%s`" + `}`, "label_replace(m, 'a', 'b', 'c', `%s`)"} {
			_, err := New(1 << 20).ParseExpr(fmt.Sprintf(text, pattern))
			if (errs.KindOf(err) == errs.TooLarge) == fits {
				t.Errorf("%s in %s: %v, want it to fit: %v", name, text, err, fits)
			}
		}
	}
	f("", true)
	f("prod-.+|(?i)dev-[0-9]{1,5}", true)
	f(strings.Repeat("host-00000.example.com:9100|", 2000)+"x", true)
	f(strings.Repeat(`10\.0\.0\.1:9100|`, 2000)+"x", true)
	f(strings.Repeat("(", 900)+"a"+strings.Repeat(")", 900), true)
	f(`\pL+\d{3}`, true)
	f(strings.Repeat("abcdefgh|", 15000), false)
	f(strings.Repeat("a{1000}", 200), false)
	f(strings.Repeat(".*host-00000.*|", 2000)+"x", true)
	f(strings.Repeat(`10\.0\.\d{1,3}\.\d{1,3}:\d+|`, 500)+"x", true)
	f("(?:"+strings.Repeat("(?:a?b?){1000}", 16)+")*[c-z]", false) // it went on for minutes over a long value
	f("("+strings.Repeat("a?b?", 5000)+")*c", false)
	f("("+strings.Repeat("ab{9}c", 200)+"){100}", false)
	f(strings.Repeat(`\pL`, 200), false)
	f(strings.Repeat(`[^\p{Greek}]`, 200), false)
	f("(?i)"+strings.Repeat(`\pL`, 40), false)
	f("(?si:"+strings.Repeat(`[!-\x{1e900}]`, 40)+")", false)

	var together Matchers
	for i := range 3 {
		_, err := together.New(labels.MatchRegexp, "a", strings.Repeat("x", 60_000))
		if (err == nil) != (i < 2) {
			t.Errorf("expression %d: %v", i, err)
		}
	}
	if _, err := new(Matchers).New(labels.MatchRegexp, "a", "("); errs.KindOf(err) != errs.Invalid {
		t.Error(err)
	}
	if _, err := new(Matchers).New(labels.MatchEqual, "a", strings.Repeat("a{1000}", 200)); err != nil {
		t.Error("a plain value is no pattern:", err)
	}
}

func TestGrowthOfLabels(t *testing.T) {
	f := func(text string, fits bool, bytes int) {
		t.Helper()
		e, err := New(1 << 20).ParseExpr(text)
		if (err == nil) != fits || err != nil && !strings.Contains(err.Error(), "growth of labels") {
			t.Errorf("%.60s: %v, want it to fit: %v", text, err, fits)
		}
		if got := LabelBytes(&parser.EvalStmt{Expr: e}); err == nil && got != bytes {
			t.Errorf("%.60s: makes %d bytes, want %d", text, got, bytes)
		}
	}
	nest := func(n int, before, after string) string {
		return strings.Repeat(before, n) + "m" + strings.Repeat(after, n)
	}
	f("m", true, 0)
	f(`label_replace(m, "a", "$1-$2", "b", "(.*):(.*)")`, true, 5)
	f(nest(100, "label_replace(", `, "a", "x$1", "b", "(.*)")`), true, 3) // each anew from b
	f(nest(6, "label_replace(", `, "a", "$1$1", "a", "(.*)")`), true, 4+2*(4+2*(4+2*(4+2*(4+2*4)))))
	f(nest(7, "label_replace(", `, "a", "$1$1", "a", "(.*)")`), false, 0)
	f(nest(30, "label_replace(", `, "a", "${x}$1${x}", "a", "(?P<x>.*)")`), false, 0)
	f(nest(7, "label_join(", `, "a", "-", "a", "a")`), false, 0)
	f(nest(20, "label_join(", `, "a", "-", "a", "b")`), true, 40)
	f(`label_replace(m, "a", "`+strings.Repeat("$1", 65)+`", "b", "(.*)")`, false, 0)
	f(`label_replace(m, "a", "`+strings.Repeat("x", 5000)+`", "", "")`, true, 5000)
	f(`sum by (a) (label_replace(m, "a", "xyz", "", "")) + on (a) group_left (b) label_replace(n, "b", "xyz", "", "")`,
		true, 6)
}

func statement(t *testing.T, text string, start, end int64, interval time.Duration) *parser.EvalStmt {
	t.Helper()
	e, err := New(0).ParseExpr(text)
	if err != nil {
		t.Fatal(text, err)
	}
	s := &parser.EvalStmt{Start: time.Unix(start, 0), End: time.Unix(end, 0), Interval: interval}
	if s.Expr, err = promql.PreprocessExpr(e, s.Start, s.End, interval); err != nil {
		t.Fatal(text, err)
	}
	return s
}

func TestWork(t *testing.T) {
	f := func(text string, steps, visits int64) {
		t.Helper()
		if got := WorkOf(statement(t, text, 0, 100, time.Second), time.Minute); got != (Work{steps, visits}) {
			t.Errorf("%s: %v, want %v", text, got, Work{steps, visits})
		}
	}
	const most = math.MaxInt64
	f("rate(m[1h])", 0, 0)
	f("max_over_time(m[1h:1s])", 3701, 101*3601)
	f("max_over_time(m[1h:])", 62, 101*61)
	f("max_over_time(m[1h:1s]) + -(max_over_time(m[1h:1s] offset 1h))", 7402, 2*101*3601)
	f("max_over_time(max_over_time(m[1h:1s])[1h:1m])", 62+7301, 101*61+62*3601)
	f("m + max_over_time(m[1h:1s] @ 5)", 3601, 3601) // once
	const years = 290 * 365 * 86400 * 1000
	f("max_over_time(vector(1)[290y:1ms] @ 5)", years+1, years+1)
	f("m + max_over_time(max_over_time(m[290y:1ms])[290y:1ms])", 3*years+200_002, most)
	if got := WorkOf(statement(t, "max_over_time(m[1h:1h])", -9e9, 9e9, 1000*time.Hour),
		time.Minute); got.Steps != 5_000_002 {
		t.Errorf("over 570 years, which are more than a time.Duration says: %v", got)
	}
	if got := WorkOf(statement(t, "max_over_time(m[1h:1h])", 5, 5, 0), time.Minute); got != (Work{2, 2}) {
		t.Errorf("at one time: %v", got)
	}
}

func TestCheckSteps(t *testing.T) {
	f := func(text string, interval time.Duration, want errs.Kind) {
		t.Helper()
		if err := CheckSteps(statement(t, text, 0, 0, interval)); errs.KindOf(err) != want {
			t.Errorf("%s every %s: %v, want %v", text, interval, err, want)
		}
	}
	f("m", 0, errs.OK)
	f("m", time.Millisecond, errs.OK)
	f("m", time.Microsecond, errs.Invalid)
	f("abs(max_over_time(m[1h:0.0001] @ 5))", 0, errs.Invalid)
	f("max_over_time(m[1h:]) + max_over_time(m[1h:1ms])", 0, errs.OK)
}
