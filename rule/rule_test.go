package rule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// fakeSource gives the groups that it was set to.
type fakeSource struct {
	mu      sync.Mutex
	groups  []definition.Group
	err     error
	changed chan struct{}
}

func newSource(groups ...definition.Group) *fakeSource {
	return &fakeSource{groups: groups, changed: make(chan struct{}, 1)}
}

func (s *fakeSource) Groups(context.Context) ([]definition.Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.groups), s.err
}

func (s *fakeSource) Changed() <-chan struct{} { return s.changed }

func (s *fakeSource) set(err error, groups ...definition.Group) {
	s.mu.Lock()
	s.groups, s.err = groups, err
	s.mu.Unlock()
	s.changed <- struct{}{}
}

// stage is what a ruler is played on: queries are answered by functions of time, and all effects are lines of a text.
type stage struct {
	series map[string]func(slot int) (promql.Vector, []string, error)
	begin  time.Time
	step   time.Duration

	mu    sync.Mutex
	lines []string
	off   bool // a ruler that was killed has no effects any more
}

func (s *stage) Query(_ context.Context, q Query) (Answer, error) {
	f := s.series[q.Expr]
	if f == nil {
		return Answer{}, nil
	}
	v, missing, err := f(int(q.At.Sub(s.begin) / s.step))
	for i := range v {
		v[i].T = q.At.UnixMilli()
	}
	return Answer{v, missing}, err
}

func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.off {
		s.lines = append(s.lines, fmt.Sprintf(format, args...))
	}
}

func (s *stage) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := slices.Clone(s.lines)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (s *stage) store(id tenant.ID) storage.AppendableV2 { return stageAppendable{s, id} }

type stageAppendable struct {
	*stage
	id tenant.ID
}

func (s stageAppendable) AppenderV2(context.Context) storage.AppenderV2 { return s }

func (s stageAppendable) Append(_ storage.SeriesRef, ls labels.Labels, _, t int64, v float64, _ *histogram.Histogram,
	_ *histogram.FloatHistogram, _ storage.AOptions) (storage.SeriesRef, error) {
	s.note("%d %s store %s %v", t, s.id, ls, v)
	return 0, nil
}

func (stageAppendable) Commit() error   { return nil }
func (stageAppendable) Rollback() error { return nil }

func (s *stage) notify(_ context.Context, id tenant.ID, _ string, alerts []rules.Alert) {
	for _, a := range alerts {
		s.note("%d %s send %s", a.LastSentAt.UnixMilli(), id, alertText(a))
	}
}

func sample(v float64, ls ...string) promql.Sample {
	return promql.Sample{F: v, Metric: labels.FromStrings(ls...)}
}

// between answers with the samples in the slots that ranges name.
func between(v promql.Vector, ranges ...int) func(int) (promql.Vector, []string, error) {
	return func(slot int) (promql.Vector, []string, error) {
		for i := 0; i < len(ranges); i += 2 {
			if slot >= ranges[i] && slot < ranges[i+1] {
				return slices.Clone(v), nil, nil
			}
		}
		return nil, nil, nil
	}
}

func (s *stage) ruler(t *testing.T, source definition.Source, dir string) *Ruler {
	t.Helper()
	opts := DefaultOptions()
	opts.StateDir, opts.Interval = dir, s.step
	r, err := New(slog.New(slog.DiscardHandler), nil, Parts{source, s, s.store, s.notify}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t *testing.T, r *Ruler) {
	t.Helper()
	if err := r.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func closed(t *testing.T, r *Ruler) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// alerting has alerts that wait, fire, are kept and end, and a rule that depends on another one.
func alerting(namespace string) []definition.Group {
	min := model.Duration(time.Minute)
	return []definition.Group{
		{Tenant: "acme", Namespace: namespace, RuleGroup: rulefmt.RuleGroup{Name: "alerts", Rules: []rulefmt.Rule{
			{Alert: "Waits", Expr: "waits", For: 5 * min, Labels: map[string]string{"sev": "{{ $labels.i }}"}},
			{Alert: "Kept", Expr: "kept", For: min, KeepFiringFor: 4 * min},
			{Alert: "AtOnce", Expr: "at_once", Annotations: map[string]string{"v": "{{ $value }}"}},
		}}},
		{Tenant: "acme", Namespace: namespace, RuleGroup: rulefmt.RuleGroup{Name: "records", Rules: []rulefmt.Rule{
			{Record: "r:x", Expr: "x"},
		}}},
	}
}

func newStage() *stage {
	now := time.Now()
	i0, i1 := sample(1, "i", "0"), sample(2, "i", "1")
	s := &stage{begin: now, step: time.Minute}
	s.series = map[string]func(int) (promql.Vector, []string, error){
		"waits":   between(promql.Vector{i0, i1}, 2, 6, 9, 25, 30, 38),
		"kept":    between(promql.Vector{i0}, 1, 8, 10, 12, 20, 30),
		"at_once": between(promql.Vector{i1}, 0, 4, 5, 6, 18, 22, 35, 60),
		"x":       between(promql.Vector{i0, i1}, 3, 20, 21, 60),
	}
	return s
}

// play runs a scenario of 40 slots. event comes between two slots; it may exchange the ruler.
func play(t *testing.T, at int, event func(s *stage, r *Ruler, source *fakeSource, dir string) *Ruler) (out string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, dir := newStage(), t.TempDir()
		source := newSource(alerting("a.yml")...)
		r := s.ruler(t, source, dir)
		open(t, r)
		for slot := range 40 {
			if slot == at {
				r = event(s, r, source, dir)
			}
			time.Sleep(s.step)
			synctest.Wait()
		}
		out = s.text()
		closed(t, r)
	})
	return out
}

// TestRestart restarts the ruler between every two slots: what it stores and sends is what a ruler stores and sends
// that runs all the time. So it is when the process is killed, and when a group moves to another file.
func TestRestart(t *testing.T) {
	want := play(t, -1, nil)
	if n := strings.Count(want, "send firing"); n < 20 || strings.Count(want, "send inactive") < 5 {
		t.Fatalf("%d firing alerts were sent: the scenario shows nothing:\n%s", n, want)
	}
	for name, event := range map[string]func(*stage, *Ruler, *fakeSource, string) *Ruler{
		"stop": func(s *stage, r *Ruler, source *fakeSource, dir string) *Ruler {
			closed(t, r)
			next := s.ruler(t, source, dir)
			open(t, next)
			return next
		},
		"kill": func(s *stage, r *Ruler, source *fakeSource, dir string) *Ruler {
			copied := t.TempDir()
			if err := os.CopyFS(filepath.Join(copied, "state"), os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			s.off = true
			s.mu.Unlock()
			closed(t, r)
			s.mu.Lock()
			s.off = false
			s.mu.Unlock()
			next := s.ruler(t, source, filepath.Join(copied, "state"))
			open(t, next)
			return next
		},
		"reload": func(_ *stage, r *Ruler, _ *fakeSource, _ string) *Ruler {
			if err := r.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			return r
		},
		"change": func(_ *stage, r *Ruler, source *fakeSource, _ string) *Ruler {
			groups := alerting("a.yml")
			groups[0].Rules = append([]rulefmt.Rule{{Record: "another", Expr: "nothing"}}, groups[0].Rules...)
			groups[1].Limit = 1000
			source.set(nil, groups...)
			synctest.Wait()
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			every := 1 // state is lost with the process only
			if name == "reload" || name == "change" {
				every = 5
			}
			for at := 0; at < 40; at += every {
				got := play(t, at, event)
				if name == "kill" { // a killed ruler cannot know which series recording rules had
					got = withoutEnds(got)
					if got == withoutEnds(want) {
						continue
					}
				}
				if got != want {
					t.Fatalf("%s before slot %d:\n%s", name, at, difference(want, got))
				}
			}
		})
	}
}

// withoutEnds is text without the ends of recorded series.
func withoutEnds(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool {
		return strings.HasSuffix(l, "NaN") &&
			strings.Contains(l, `"r:x"`)
	}), "\n")
}

func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	for _, l := range w {
		if !slices.Contains(g, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}

// TestMove moves a rule to another group and file, with other slots: its alerts go on.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		source := newSource(alerting("a.yml")...)
		r := s.ruler(t, source, t.TempDir())
		open(t, r)
		defer closed(t, r)
		time.Sleep(13 * s.step)
		before := map[string]rulestate.Alert{}
		for _, g := range r.Snapshot() {
			for _, of := range g.Rules {
				for _, a := range of.Alerts {
					before[a.Labels.String()] = a
				}
			}
		}
		if len(before) != 3 {
			t.Fatalf("%d alerts: %v", len(before), before)
		}
		groups := alerting("a.yml")
		moved := groups[0]
		moved.Namespace, moved.Name, moved.Rules = "b.yml", "others", slices.Clone(groups[0].Rules[:1])
		groups[0].Rules = groups[0].Rules[1:]
		source.set(nil, append(groups, moved)...)
		synctest.Wait()
		time.Sleep(time.Second)
		s.mu.Lock()
		s.lines = nil
		s.mu.Unlock()
		time.Sleep(5 * s.step)
		n := 0
		for _, g := range r.Snapshot() {
			for _, of := range g.Rules {
				for _, a := range of.Alerts {
					was, known := before[a.Labels.String()]
					if !known {
						continue
					}
					n++
					if !a.ActiveAt.Equal(was.ActiveAt) {
						t.Errorf("%s: active at %s, was %s", a.Labels, a.ActiveAt, was.ActiveAt)
					}
				}
			}
		}
		if n != 2 { // the third one has ended
			t.Errorf("%d of 2 alerts are there", n)
		}
		if text := s.text(); strings.Contains(text, `ALERTS_FOR_STATE", alertname="Waits", i="0", sev="0"} NaN`) {
			t.Errorf("the series of a rule that moved ended:\n%s", text)
		}
	})
}

// TestRemoved: the series of a group that is gone end after two intervals, and of a rule that is gone with the next
// slot.
func TestRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		groups := alerting("a.yml")
		source := newSource(groups...)
		r := s.ruler(t, source, "")
		open(t, r)
		defer closed(t, r)
		time.Sleep(13 * s.step)
		source.set(nil, groups[0])
		synctest.Wait()
		if len(r.Snapshot()) != 1 {
			t.Fatal("the group is still there")
		}
		time.Sleep(s.step * 3 / 2)
		if strings.Contains(s.text(), `r:x", i="0"} NaN`) {
			t.Fatal("its series end too early")
		}
		time.Sleep(s.step)
		if strings.Count(s.text(), `"r:x"`) == 0 || strings.Count(s.text(), `__name__="r:x", i="0"} NaN`) != 1 {
			t.Fatalf("its series do not end:\n%s", s.text())
		}
	})
}

// TestTwice: of two groups with the same rule one runs it, and says so.
func TestTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		one := alerting("a.yml")[1]
		two := one
		two.Namespace, two.Name = "b.yml", "copy"
		two.Rules = append(slices.Clone(two.Rules), rulefmt.Rule{Record: "other", Expr: "waits"})
		other := one
		other.Tenant = "bolt"
		r := s.ruler(t, newSource(one, two, other), "")
		open(t, r)
		defer closed(t, r)
		time.Sleep(10 * s.step)
		state := r.Snapshot()
		if len(state) != 3 || state[0].Rules[0].Health != "ok" || state[1].Rules[1].Health != "ok" ||
			state[2].Rules[0].Health != "ok" {
			t.Fatalf("state %+v", state)
		}
		const want = `disabled: group "records" of a.yml has the same rule`
		if got := state[1].Rules[0]; got.Health != "err" || got.LastError != want {
			t.Fatalf("health %s, error %s", got.Health, got.LastError)
		}
	})
}

// TestIncomplete: a rule whose answer may be incomplete is tried again within its slot, and then writes nothing. With
// the strategy warn it writes what there is.
func TestIncomplete(t *testing.T) {
	for _, strategy := range []definition.Strategy{definition.Abort, definition.Warn} {
		t.Run(strategy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				asked := map[int]int{}
				s.series["x"] = func(slot int) (promql.Vector, []string, error) {
					asked[slot]++
					v := promql.Vector{sample(float64(asked[slot]), "i", "0")}
					switch {
					case slot == 3 && asked[slot] < 4, slot == 5:
						return v, []string{"receiver b did not answer"}, nil
					case slot == 7 && asked[slot] < 2:
						return nil, nil, errs.E(errs.Unavailable, "no querier answers")
					case slot == 8:
						return nil, nil, errors.New("wrong in itself")
					}
					return v, nil, nil
				}
				g := alerting("a.yml")[1]
				g.PartialResponse = strategy
				r := s.ruler(t, newSource(g), "")
				open(t, r)
				defer closed(t, r)
				time.Sleep(9*s.step + s.step/2)
				synctest.Wait()
				got := strings.Split(s.text(), "\n")
				stored := map[int]string{}
				for _, l := range got {
					var ms int64
					fmt.Sscan(l, &ms)
					stored[int(time.UnixMilli(ms).Sub(s.begin)/s.step)] = l[strings.LastIndexByte(l, ' ')+1:]
				}
				want := map[int]string{3: "4", 4: "1", 5: "", 6: "1", 7: "2", 8: ""}
				if strategy == definition.Warn {
					want[3], want[5] = "1", "1"
				}
				for slot, v := range want {
					if stored[slot] != v {
						t.Errorf("slot %d: stored %q, want %q", slot, stored[slot], v)
					}
				}
				if asked[8] != 1 {
					t.Errorf("a query that is wrong was asked %d times", asked[8])
				}
				if strategy == definition.Abort && (asked[5] < 5 || asked[5] > 60) {
					t.Errorf("asked %d times for slot 5", asked[5])
				}
			})
		})
	}
}

// TestBadGroup: a group that cannot be compiled keeps its last good form, and the error is shown.
func TestBadGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		groups := alerting("a.yml")
		source := newSource(groups...)
		r := s.ruler(t, source, "")
		open(t, r)
		defer closed(t, r)
		bad := groups[1]
		bad.Rules = []rulefmt.Rule{{Record: "r:x", Expr: "sum("}}
		source.set(errors.New("c.yml: cannot be read"), groups[0], bad)
		synctest.Wait()
		err := r.Ready()
		if err == nil || !strings.Contains(err.Error(), `a.yml: group "records": rule 1, "r:x"`) ||
			!strings.Contains(err.Error(), "c.yml") {
			t.Fatalf("error %v", err)
		}
		if state := r.Snapshot(); len(state) != 2 || state[1].Rules[0].Query != "x" {
			t.Fatalf("state %+v", state)
		}
		source.set(nil, groups...)
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestSlowGroup: slots that an evaluation runs over are left out, and the next one is evaluated at once.
func TestSlowGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		var at []int
		s.series["x"] = func(slot int) (promql.Vector, []string, error) {
			at = append(at, slot)
			if len(at) == 1 {
				time.Sleep(s.step * 5 / 2)
			}
			return nil, nil, nil
		}
		r := s.ruler(t, newSource(alerting("a.yml")[1]), "")
		open(t, r)
		defer closed(t, r)
		time.Sleep(6 * s.step)
		synctest.Wait()
		if !slices.Equal(at, []int{0, 2, 3, 4, 5}) {
			t.Fatalf("evaluated %v", at)
		}
	})
}

// TestUnreadable: stored series that cannot be read are read again, and no ALERTS are written until then.
func TestUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		active := promql.Vector{sample(float64(s.begin.Add(-time.Hour/4).Unix()), "__name__", "ALERTS_FOR_STATE",
			"alertname", "AtOnce", "i", "1")}
		selector := `{__name__="ALERTS_FOR_STATE",alertname="AtOnce"}`
		reads := 0
		s.series[selector] = func(int) (promql.Vector, []string, error) {
			if reads++; reads < 4 {
				return nil, nil, errs.E(errs.Unavailable, "no querier answers")
			}
			return active, nil, nil
		}
		s.series["timestamp("+selector+")"] = func(int) (promql.Vector, []string, error) {
			seen := slices.Clone(active)
			seen[0].F = float64(s.begin.Unix())
			return seen, nil, nil
		}
		s.series["at_once"] = between(promql.Vector{sample(1, "i", "1")}, 0, 100)
		r := s.ruler(t, newSource(alerting("a.yml")[0]), "")
		open(t, r)
		defer closed(t, r)
		time.Sleep(4*s.step + s.step/2)
		if strings.Contains(s.text(), `"ALERTS", alertname="AtOnce"`) {
			t.Fatalf("ALERTS are written before they could be restored:\n%s", s.text())
		}
		time.Sleep(3 * s.step)
		synctest.Wait()
		if !strings.Contains(s.text(), fmt.Sprintf(`"ALERTS_FOR_STATE", alertname="AtOnce", i="1"} %v`, active[0].F)) {
			t.Fatalf("not restored after %d reads:\n%s", reads, s.text())
		}
	})
}

// TestPushed: what a distributor refuses for good does not count as stored, what may be stored later is pushed again,
// and the end of a series that goes on is no failure.
func TestPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := labels.FromStrings("__name__", "a"), labels.FromStrings("__name__", "b")
		f := func(want string, pushes int, answers ...any) {
			t.Helper()
			n := 0
			store := Pushed(func(_ context.Context, batch *wire.Batch) ([]wire.Failure, error) {
				if batch.Tenant != "acme" || len(batch.Series) != 2 {
					t.Errorf("tenant %s, %d series", batch.Tenant, len(batch.Series))
				}
				answer := answers[min(n, len(answers)-1)]
				n++
				switch x := answer.(type) {
				case error:
					return nil, x
				case wire.Failure:
					return []wire.Failure{x}, nil
				}
				return nil, nil
			})
			app := store("acme").AppenderV2(withDeadline(t.Context(), time.Now().Add(3*time.Second)))
			_, _ = app.Append(0, a, 0, 1000, 1, nil, nil, appendOptions)
			_, _ = app.Append(0, b, 0, 1000, ofBits(staleBits), nil, nil, appendOptions)
			if got := fmt.Sprint(app.Commit()); got != want {
				t.Errorf("commit: %s, want %s", got, want)
			}
			if n != pushes {
				t.Errorf("%s: %d pushes, want %d", want, n, pushes)
			}
		}
		conflict := wire.Failure{Series: 0, Kind: errs.Conflict, Reason: "out of order", Samples: 1}
		ended := conflict
		ended.Series = 1
		f("<nil>", 1, nil)
		f("out of order", 1, conflict)
		f("<nil>", 1, ended)
		f("<nil>", 2, wire.Failure{Series: 0, Kind: errs.Unavailable, Reason: "no quorum"}, nil)
		f("<nil>", 3, errs.E(errs.Unavailable, "closed"), errs.E(errs.Exhausted, "full"), nil)
		f("limited by relabelling", 1, errs.E(errs.Invalid, "limited by relabelling"))
		f("no quorum", 7, wire.Failure{Series: 1, Kind: errs.Unavailable, Reason: "no quorum"})
	})
}

func TestStateFile(t *testing.T) {
	var log bytes.Buffer
	s := states{t.TempDir(), slog.New(slog.NewTextHandler(&log, nil))}
	id := groupID{"acme", "../../etc/passwd\xff", "g\x00"}
	p := &progress{id: id, slot: time.Unix(100, 5).UTC(), rules: []ruleProgress{{
		text: "t", nameAndLabels: "n", alerts: []rules.Alert{{
			State: rules.StateFiring, Labels: labels.FromStrings("a", "b"), Annotations: labels.FromStrings("c", "d"),
			Value: ofBits(0x7ff0000000000000), ActiveAt: time.Unix(1, 0).UTC(), FiredAt: time.Unix(2, 1).UTC(),
		}}, series: []labels.Labels{labels.FromStrings("__name__", "x")},
	}}}
	p.id.namespace = "../../etc/passwd"
	if err := s.write(p); err != nil {
		t.Fatal(err)
	}
	got, err := s.read(time.Unix(0, 0))
	if err != nil || len(got) != 1 || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", p) {
		t.Fatalf("%+v, %v, want %+v", got, err, p)
	}
	if got, _ = s.read(time.Unix(101, 0)); len(got) != 0 {
		t.Fatal("an old state is used")
	}
	for _, bad := range []string{"", "{", `{"version":2}`, `{"version":1,"tenant":""}`,
		`{"version":1,"tenant":"a","rules":[{}]}`} {
		if err := os.WriteFile(filepath.Join(s.dir, "x.json"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		log.Reset()
		if got, err := s.read(time.Unix(0, 0)); err != nil || len(got) != 0 || !strings.Contains(log.String(), "x.json") {
			t.Fatalf("%s: %v, %v, %s", bad, got, err, log.String())
		}
	}
}

func FuzzDecodeProgress(f *testing.F) {
	f.Add([]byte(`{"version":1,"tenant":"a","slot":5,"rules":[{"text":"t","name":"n","alerts":[{"state":"firing",` +
		`"labels":{"a":"b"},"value":"NaN"}],"series":[{"x":"y"}]}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := decodeProgress(content)
		if err != nil {
			return
		}
		again, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeProgress(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func ofBits(bits uint64) float64 { return math.Float64frombits(bits) }

// TestRefusal: nothing of a tenant that is to be deleted is evaluated, stored or sent, at once; another tenant's rules
// go on, and its own do when the deletion is undone.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		opts := DefaultOptions()
		var deleted atomic.Bool
		opts.Refusal = func(id tenant.ID) error {
			if id == "acme" && deleted.Load() {
				return errs.E(errs.Invalid, "tenant %q is to be deleted", id)
			}
			return nil
		}
		groups := alerting("a.yml")
		for _, g := range alerting("a.yml") {
			g.Tenant = "other"
			groups = append(groups, g)
		}
		r, err := New(slog.New(slog.DiscardHandler), nil, Parts{newSource(groups...), s, s.store, s.notify}, opts)
		if err != nil {
			t.Fatal(err)
		}
		open(t, r)
		defer closed(t, r)
		lines := func() (acme, other int) {
			return strings.Count(s.text(), " acme "), strings.Count(s.text(), " other ")
		}
		time.Sleep(10 * s.step)
		synctest.Wait()
		acme, other := lines()
		if acme == 0 || other == 0 {
			t.Fatal(s.text())
		}
		deleted.Store(true)
		time.Sleep(10 * s.step)
		synctest.Wait()
		if now, its := lines(); now != acme || its == other {
			t.Errorf("of the deleted tenant %d lines, then %d; of the other one %d, then %d", acme, now, other, its)
		}
		for _, g := range r.Snapshot() {
			if bad := strings.Contains(g.Rules[0].LastError, "is to be deleted"); bad != (g.Tenant == "acme") {
				t.Errorf("tenant %s: last error %q", g.Tenant, g.Rules[0].LastError)
			}
		}
		deleted.Store(false)
		time.Sleep(10 * s.step)
		synctest.Wait()
		if now, _ := lines(); now == acme {
			t.Error("the deletion was undone, and nothing is evaluated")
		}
	})
}

// TestSourceTenants: rules read the tenants that their own tenant may read, and none from the moment that a limit says
// otherwise.
func TestSourceTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		var asked atomic.Int64
		q := queried(func(q Query) (Answer, error) {
			asked.Add(1)
			if fmt.Sprint(q.Tenants) != "[team-a team-b]" {
				t.Errorf("tenants %v", q.Tenants)
			}
			return s.Query(t.Context(), q)
		})
		may, mayNot := &tenant.Limits{RuleSourceTenants: []string{"team-*"}}, &tenant.Limits{RuleSourceTenants: []string{"team-a"}}
		var limits atomic.Pointer[tenant.Limits]
		limits.Store(may)
		opts := DefaultOptions()
		opts.Limits = func(tenant.ID) *tenant.Limits { return limits.Load() }
		g := alerting("a.yml")[0]
		g.SourceTenants = []tenant.ID{"team-a", "team-b"}
		g.Rules = []rulefmt.Rule{{Record: "r:x", Expr: "x"}}
		r, err := New(slog.New(slog.DiscardHandler), nil, Parts{newSource(g), q, s.store, s.notify}, opts)
		if err != nil {
			t.Fatal(err)
		}
		open(t, r)
		defer closed(t, r)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		before := asked.Load()
		if before == 0 {
			t.Fatal("nothing was asked")
		}
		limits.Store(mayNot)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		why := r.Snapshot()[0].Rules[0].LastError
		if asked.Load() != before || !strings.Contains(why, "may not read tenant team-b") {
			t.Errorf("%d queries, then %d; %q", before, asked.Load(), why)
		}
	})
}

// queried is a Querier.
type queried func(Query) (Answer, error)

func (f queried) Query(_ context.Context, q Query) (Answer, error) { return f(q) }

// TestLongTemplate: an alert whose template comes out too long is the error of its rule.
func TestLongTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.series["x"] = func(int) (promql.Vector, []string, error) { return promql.Vector{sample(1, "a", "b")}, nil, nil }
		g := alerting("a.yml")[0]
		g.Rules = []rulefmt.Rule{{Alert: "A", Expr: "x", Annotations: map[string]string{"t": "{{range 9000}}12345678{{end}}"}}}
		r, err := New(slog.New(slog.DiscardHandler), nil, Parts{newSource(g), s, s.store, s.notify}, DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		open(t, r)
		defer closed(t, r)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if why := r.Snapshot()[0].Rules[0].LastError; !strings.Contains(why, "more than 65536 bytes") || strings.Contains(s.text(), "send") {
			t.Errorf("%q\n%s", why, s.text())
		}
	})
}
