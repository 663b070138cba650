package rule

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// world is a Prometheus TSDB with an engine, and faults that come at the same moments in all worlds of a seed.
type world struct {
	t      *testing.T
	db     *teststorage.TestStorage
	engine *promql.Engine
	faults uint64 // seed of faults; 0 = none

	mu   sync.Mutex
	sent []string
}

func newWorld(t *testing.T, faults uint64) *world {
	t.Helper()
	w := &world{t: t, faults: faults}
	w.db = teststorage.New(t)
	w.engine = promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1e6, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, Parser: expr.New(0),
		LookbackDelta: 5 * time.Minute,
	})
	return w
}

// strikes reports whether a fault of that kind hits what; of many some are hit.
func (w *world) strikes(kind string, oneIn uint64, what ...any) bool {
	if w.faults == 0 {
		return false
	}
	h := fnv.New64a()
	fmt.Fprint(h, w.faults, kind, what)
	return h.Sum64()%oneIn == 0
}

// query is the QueryFunc of the library over the world.
func (w *world) query(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	if w.strikes("query", 40, text, at.UnixMilli()) {
		return nil, errors.New("injected: query")
	}
	return rules.EngineQueryFunc(w.engine, w.db)(ctx, text, at)
}

// Query implements Querier.
func (w *world) Query(ctx context.Context, q Query) (Answer, error) {
	if q.Lookback == 0 {
		v, err := w.query(ctx, q.Expr, q.At)
		return Answer{Vector: v}, err
	}
	opts := promql.NewPrometheusQueryOpts(false, q.Lookback, nil)
	query, err := w.engine.NewInstantQuery(ctx, w.db, opts, q.Expr, q.At)
	if err != nil {
		return Answer{}, err
	}
	defer query.Close()
	v, err := query.Exec(ctx).Vector()
	return Answer{Vector: v}, err
}

// AppenderV2 implements storage.AppendableV2.
func (w *world) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &faultyAppender{AppenderV2: w.db.AppenderV2(ctx), w: w}
}

type faultyAppender struct {
	storage.AppenderV2
	w     *world
	first string // the smallest series and its time
}

func (a *faultyAppender) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64,
	h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	name := fmt.Sprint(ls.String(), t)
	if a.first == "" || name < a.first {
		a.first = name
	}
	if a.w.strikes("append", 200, name, v) {
		return 0, errors.New("injected: append")
	}
	return a.AppenderV2.Append(0, ls, st, t, v, h, fh, opts)
}

func (a *faultyAppender) Commit() error {
	if a.first != "" && a.w.strikes("commit", 40, a.first) {
		return errors.Join(errors.New("injected: commit"), a.Rollback())
	}
	return a.AppenderV2.Commit()
}

// fill writes random series: gaps, ends, resets, histograms.
func (w *world) fill(seed uint64, slots int, start time.Time, step time.Duration) {
	w.t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	app := w.db.AppenderV2(w.t.Context())
	for m := range 3 {
		for i := range 6 {
			ls := labels.FromStrings("__name__", fmt.Sprintf("m%d", m), "instance", fmt.Sprint("i", i), "job",
				fmt.Sprint("j", i%2))
			alive, v := true, rnd.Float64()*10
			for s := range slots * 2 {
				t := start.Add(time.Duration(s) * step / 2).UnixMilli()
				if rnd.IntN(15) == 0 {
					alive = !alive
					if !alive {
						_, err := app.Append(0, ls, 0, t, math.Float64frombits(staleBits), nil, nil, storage.AOptions{})
						w.must(err)
						continue
					}
				}
				if !alive {
					continue
				}
				v += rnd.Float64()*4 - 1.9
				if rnd.IntN(30) == 0 {
					v = 0
				}
				_, err := app.Append(0, ls, 0, t, math.Round(v*4)/4, nil, nil, storage.AOptions{})
				w.must(err)
			}
		}
	}
	for i := range 2 {
		ls := labels.FromStrings("__name__", "h0", "instance", fmt.Sprint("i", i))
		for s := range slots * 2 {
			_, err := app.Append(0, ls, 0, start.Add(time.Duration(s)*step/2).UnixMilli(), 0,
				tsdbutil.GenerateTestHistogram(int64(s+i)), nil, storage.AOptions{})
			w.must(err)
		}
	}
	w.must(app.Commit())
}

const staleBits = 0x7ff0000000000002

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// contents are all samples of the world, one line each, with the bits of floats.
func (w *world) contents() (out []string) {
	w.t.Helper()
	q, err := w.db.Querier(math.MinInt64, math.MaxInt64)
	w.must(err)
	defer q.Close()
	set := q.Select(w.t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		s := set.At()
		it := s.Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			switch typ {
			case chunkenc.ValFloat:
				t, v := it.At()
				out = append(out, fmt.Sprintf("%s %d %x", s.Labels(), t, math.Float64bits(v)))
			default:
				t, h := it.AtFloatHistogram(nil)
				out = append(out, fmt.Sprintf("%s %d %s %x", s.Labels(), t, h, math.Float64bits(h.Sum)))
			}
		}
		w.must(it.Err())
	}
	w.must(set.Err())
	slices.Sort(out)
	return out
}

// notify remembers what was sent.
func (w *world) notify(text string, alerts []rules.Alert) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range alerts {
		w.sent = append(w.sent, text+" "+alertText(a))
	}
}

func alertText(a rules.Alert) string {
	return fmt.Sprint(a.State, a.Labels, a.Annotations, math.Float64bits(a.Value), a.ActiveAt.UnixNano(),
		a.FiredAt.UnixNano(), a.ResolvedAt.UnixNano(), a.LastSentAt.UnixNano(), a.ValidUntil.UnixNano(),
		a.KeepFiringSince.UnixNano())
}

// randomGroup is a group of rules with all that can go wrong.
func randomGroup(rnd *rand.Rand, step time.Duration) definition.Group {
	g := definition.Group{Tenant: "acme", Namespace: "rules.yml", RuleGroup: rulefmt.RuleGroup{
		Name: "g", Interval: model.Duration(step)}}
	if rnd.IntN(3) == 0 {
		g.Limit = 2 + rnd.IntN(6)
	}
	if rnd.IntN(3) == 0 {
		d := model.Duration(step / 2)
		g.QueryOffset = &d
	}
	if rnd.IntN(2) == 0 {
		g.Labels = map[string]string{"team": "t", "severity": "none"}
	}
	exprs := []string{
		"m0", "m1 * 2", "sum by (job) (m0)", "m0 > 4", "m1 > 100", "m2 < 1", "r0 + 1", "sum(r1)", "r0 > bool 3",
		"count(m0)",
		"rate(m0[4m])", "h0", "histogram_sum(h0)", `{__name__="m0"}`, "1", "vector(time())", `ALERTS{alertname="a0"}`,
		`ALERTS{alertstate="firing"}`, "ALERTS_FOR_STATE", "topk(2, m1)",
		`label_replace(m0, "x", "$1", "instance", "(.*)")`,
		"m0 / on(instance, job) m1", "m0 * on(job) m1", "avg_over_time(r0[5m])", "m2 % 3 == 0", "absent(m2)",
	}
	if rnd.IntN(3) == 0 {
		exprs = append(exprs, `{job="j0"}`, `count({job="j1"})`)
	}
	for i := range 3 + rnd.IntN(7) {
		r := rulefmt.Rule{Expr: exprs[rnd.IntN(len(exprs))]}
		if rnd.IntN(2) == 0 {
			r.Record = fmt.Sprint("r", i%4)
			switch rnd.IntN(4) {
			case 0:
				r.Labels = map[string]string{"instance": "same"}
			case 1:
				r.Labels = map[string]string{"x": "y"}
			}
		} else {
			r.Alert = fmt.Sprint("a", i%3)
			r.For = model.Duration(time.Duration(rnd.IntN(4)) * step)
			r.KeepFiringFor = model.Duration(time.Duration(rnd.IntN(3)) * step)
			texts := []string{
				"plain", "{{ $labels.instance }}", "{{ $value }}", `{{ if eq $labels.job "j0" }}x{{ end }}`,
				`{{ with query "m1" }}{{ len . }}{{ end }}`, "{{ $labels.nothing }}", "{{ .Oops }}", "",
				"{{ $externalLabels.e }}",
			}
			r.Labels = map[string]string{}
			for _, name := range []string{"severity", "instance", "job", "dyn"} {
				if rnd.IntN(3) == 0 {
					r.Labels[name] = texts[rnd.IntN(len(texts))]
				}
			}
			r.Annotations = map[string]string{"summary": texts[rnd.IntN(len(texts))] + " of {{ $labels.job }}",
				"link": "{{ externalURL }}"}
		}
		g.Rules = append(g.Rules, r)
	}
	return g
}

var externalURL = &url.URL{Scheme: "http", Host: "am.example", Path: "/x"}

// reference is the group as the library runs it.
func reference(w *world, def definition.Group, concurrency int64, restored bool) *rules.Group {
	opts := &rules.ManagerOptions{
		Context: w.t.Context(), QueryFunc: w.query, AppendableV2: w, Queryable: w.db, Logger: slog.New(slog.DiscardHandler),
		ExternalURL: externalURL, ResendDelay: time.Minute, MaxConcurrentEvals: concurrency,
		OutageTolerance: time.Hour, ForGracePeriod: 3 * time.Minute,
		ConcurrentEvalsEnabled: concurrency > 1, Parser: expr.New(0),
		NotifyFunc: func(_ context.Context, expr string, alerts ...*rules.Alert) {
			var sent []rules.Alert
			for _, a := range alerts {
				sent = append(sent, *a)
			}
			w.notify(expr, sent)
		},
	}
	rules.NewManager(opts)
	var all []rules.Rule
	for _, r := range def.Rules {
		e, err := opts.Parser.ParseExpr(r.Expr)
		w.must(err)
		ls := rules.FromMaps(def.Labels, r.Labels)
		if r.Alert != "" {
			all = append(all, rules.NewAlertingRule(r.Alert, e, time.Duration(r.For), time.Duration(r.KeepFiringFor), ls,
				labels.FromMap(r.Annotations), labels.FromStrings("e", "ext"), externalURL.String(), restored, opts.Logger))
		} else {
			all = append(all, rules.NewRecordingRule(r.Record, e, ls))
		}
	}
	opts.RuleDependencyController.AnalyseRules(all)
	return rules.NewGroup(rules.GroupOptions{
		Name: def.Name, File: string(def.Tenant) + "/" + def.Namespace, Interval: time.Duration(def.Interval),
		Limit: def.Limit, Rules: all, Opts: opts, QueryOffset: (*time.Duration)(def.QueryOffset),
	})
}

// own is the group as Hearth runs it.
func own(w *world, def definition.Group, concurrency int, restored bool) (*group, *engine) {
	opts := DefaultOptions()
	opts.ExternalURL, opts.ExternalLabels = externalURL, labels.FromStrings("e", "ext")
	opts.ForGracePeriod = 3 * time.Minute
	log := slog.New(slog.DiscardHandler)
	e := &engine{
		opts: &opts, metrics: newMetrics(nil), querier: w, closing: make(chan struct{}),
		storage:   func(tenant.ID) storage.AppendableV2 { return w },
		notify:    func(_ context.Context, _ tenant.ID, expr string, alerts []rules.Alert) { w.notify(expr, alerts) },
		templates: &templates{log, opts.ExternalLabels.Map(), externalURL},
	}
	if concurrency > 1 {
		e.places = make(chan struct{}, concurrency)
	}
	g, err := compile(log, def, &opts)
	w.must(err)
	for _, r := range g.rules {
		if r.alert != nil {
			r.alert.SetRestored(restored)
		}
	}
	return g, e
}

// compare fails when the two groups, or what they sent since the last call, differ.
func compare(t *testing.T, slot int, ref *rules.Group, refWorld *world, g *group, ownWorld *world) {
	t.Helper()
	for i, want := range ref.Rules() {
		r := g.rules[i]
		if got := r.lib.Health(); got != want.Health() {
			t.Fatalf("slot %d, rule %d %s: health %s (%v), want %s (%v)", slot, i, r.expr, got, r.lib.LastError(),
				want.Health(), want.LastError())
		}
		if a, b := fmt.Sprint(r.lib.LastError()), fmt.Sprint(want.LastError()); a != b {
			t.Fatalf("slot %d, rule %d %s: last error %s, want %s", slot, i, r.expr, a, b)
		}
		if a, ok := want.(*rules.AlertingRule); ok {
			var wants, gots []string
			a.ForEachActiveAlert(func(a *rules.Alert) { wants = append(wants, alertText(*a)) })
			for _, a := range r.alerts() {
				gots = append(gots, alertText(a))
			}
			slices.Sort(wants)
			slices.Sort(gots)
			if !slices.Equal(wants, gots) {
				t.Fatalf("slot %d, rule %d %s: alerts\n%s\nwant\n%s", slot, i, r.expr, strings.Join(gots, "\n"),
					strings.Join(wants, "\n"))
			}
		}
	}
	slices.Sort(refWorld.sent)
	slices.Sort(ownWorld.sent)
	if !slices.Equal(refWorld.sent, ownWorld.sent) {
		t.Fatalf("slot %d: sent\n%s\nwant\n%s", slot, strings.Join(ownWorld.sent, "\n"), strings.Join(refWorld.sent, "\n"))
	}
	refWorld.sent, ownWorld.sent = nil, nil
}

func compareContents(t *testing.T, ref, own *world) {
	t.Helper()
	a, b := ref.contents(), own.contents()
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			t.Fatalf("sample too many: %s", b[i])
		case i >= len(b):
			t.Fatalf("sample missing: %s", a[i])
		case a[i] != b[i]:
			t.Fatalf("sample %s, want %s", b[i], a[i])
		}
	}
}

// TestLikePrometheus runs random groups over random data as the library does and as Hearth does, with the same faults
// of queries and of the storage, and exchanges the groups now and then. All samples, alerts, notifications and errors
// are equal.
func TestLikePrometheus(t *testing.T) {
	const step = time.Minute
	slots, seeds := 200, 6
	if testing.Short() {
		seeds = 3
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 2))
			concurrency := 1 + int(seed%2)*3
			faults := seed % 3 * (seed + 1)
			if concurrency > 1 {
				faults = 0 // two rules may write one series: which of them is the first is not certain then
			}
			start := time.Unix(1_700_000_000, 0).UTC()
			refWorld, ownWorld := newWorld(t, faults), newWorld(t, faults)
			refWorld.fill(seed, slots, start, step)
			ownWorld.fill(seed, slots, start, step)
			def := randomGroup(rnd, step)
			if concurrency > 1 {
				def.Rules = certain(def.Rules)
			}
			ref := reference(refWorld, def, int64(concurrency), true)
			g, e := own(ownWorld, def, concurrency, true)
			for s := range slots {
				if s > 0 && rnd.IntN(25) == 0 {
					def = changed(rnd, def)
					if concurrency > 1 {
						def.Rules = certain(def.Rules)
					}
					nextRef := reference(refWorld, def, int64(concurrency), true)
					nextRef.CopyState(ref)
					next, nextEngine := own(ownWorld, def, concurrency, true)
					was := g.progress(true)
					adopt(t.Context(), []*group{next}, []*progress{was})
					next.stale = append(next.stale, was.series()...)
					ref, g, e = nextRef, next, nextEngine
				}
				slot := start.Add(time.Duration(s) * step).Add(17 * time.Second)
				ref.Eval(t.Context(), slot)
				g.evaluate(t.Context(), e, slot, true)
				compare(t, s, ref, refWorld, g, ownWorld)
			}
			compareContents(t, refWorld, ownWorld)
		})
	}
}

// certain are the rules of which it is certain what they read, also where some run at the same time: no two have one
// name, and only the last one may read what others write. (A rule that reads what a later one writes does not wait for
// it.)
func certain(in []rulefmt.Rule) (out []rulefmt.Rule) {
	seen := map[string]bool{}
	var reader []rulefmt.Rule
	for _, r := range in {
		name := r.Alert + r.Record
		reads := strings.Contains(r.Expr, "ALERTS") || strings.Contains(r.Expr, "r0") || strings.Contains(r.Expr, "r1")
		switch {
		case seen[name] || reads && reader != nil:
			continue
		case reads:
			reader = []rulefmt.Rule{r}
		default:
			out = append(out, r)
		}
		seen[name] = true
	}
	return append(out, reader...)
}

// changed is def with a rule removed, or with another expression or duration, or in another place.
func changed(rnd *rand.Rand, def definition.Group) definition.Group {
	def.Rules = slices.Clone(def.Rules)
	i := rnd.IntN(len(def.Rules))
	switch rnd.IntN(4) {
	case 0:
		if len(def.Rules) > 1 {
			def.Rules = slices.Delete(def.Rules, i, i+1)
		}
	case 1:
		def.Rules[i].Expr = "m1 > 3"
	case 2:
		if def.Rules[i].Alert != "" {
			def.Rules[i].For = model.Duration(time.Duration(rnd.IntN(5)) * time.Minute)
		}
	case 3:
		j := rnd.IntN(len(def.Rules))
		def.Rules[i], def.Rules[j] = def.Rules[j], def.Rules[i]
	}
	return def
}

// TestRestoreLikePrometheus runs a group, loses its state, and looks for the alerts in what was stored.
func TestRestoreLikePrometheus(t *testing.T) {
	const step = time.Minute
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			start := time.Unix(1_700_000_000, 0).UTC()
			refWorld, ownWorld := newWorld(t, 0), newWorld(t, 0)
			const slots = 60
			refWorld.fill(seed, slots, start, step)
			ownWorld.fill(seed, slots, start, step)
			def := randomGroup(rnd, step)
			for i := range def.Rules {
				if def.Rules[i].Alert != "" {
					def.Rules[i].For = model.Duration(time.Duration(rnd.IntN(12)) * step)
				}
			}
			ref := reference(refWorld, def, 1, true)
			g, e := own(ownWorld, def, 1, true)
			down := 15 + rnd.IntN(10)
			for s := 0; s < slots; s++ {
				slot := start.Add(time.Duration(s) * step).Add(17 * time.Second)
				if s == down {
					ref = reference(refWorld, def, 1, false)
					g, e = own(ownWorld, def, 1, false)
					s += rnd.IntN(8)
					down = -1
					slot = start.Add(time.Duration(s) * step).Add(17 * time.Second)
				}
				ref.Eval(t.Context(), slot)
				g.evaluate(t.Context(), e, slot, true)
				if down == -1 && g.rules[0].evals == 2 {
					ref.RestoreForState(slot.Add(time.Second))
					g.restore(t.Context(), e, slot.Add(time.Second))
				}
				compare(t, s, ref, refWorld, g, ownWorld)
			}
			compareContents(t, refWorld, ownWorld)
		})
	}
}

// TestGridLikePrometheus: the slots of a group are those of Prometheus for a file of that name.
func TestGridLikePrometheus(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 4))
	for range 1000 {
		interval := time.Duration(1+rnd.IntN(600)) * time.Second
		file, name := fmt.Sprint("acme/", rnd.Uint32()), fmt.Sprint("g", rnd.Uint32())
		want := rules.NewGroup(rules.GroupOptions{Name: name, File: file, Interval: interval})
		now := time.Unix(rnd.Int64N(4e9), rnd.Int64N(1e9))
		if got := gridOf(file, name, interval).before(now); !got.Equal(want.EvalTimestamp(now.UnixNano())) {
			t.Fatalf("%s %s %s at %s: slot %s, want %s", file, name, interval, now, got, want.EvalTimestamp(now.UnixNano()))
		}
	}
}

func TestGridNext(t *testing.T) {
	g := grid{interval: time.Minute, offset: 17 * time.Second}
	at := func(s int) time.Time { return time.Unix(int64(s), 0).UTC() }
	f := func(last, now, want, missed int) {
		t.Helper()
		slot, n := g.next(at(last), at(now))
		if !slot.Equal(at(want)) || n != missed || !g.has(slot) {
			t.Fatalf("after %d at %d: slot %d, %d missed; want %d, %d missed", last, now, slot.Unix(), n, want, missed)
		}
	}
	f(17, 20, 77, 0)    // not due yet
	f(17, 77, 77, 0)    // due
	f(17, 136, 77, 0)   // late, but no other one is due
	f(17, 137, 137, 1)  // one was missed
	f(17, 400, 377, 5)  // the newest one that is due
	f(377, 100, 437, 0) // the clock was set back
}
