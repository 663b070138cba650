package receive

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/wire"
)

func TestNextStep(t *testing.T) {
	told := time.Unix(1000, 0)
	ready := drainState{now: told.Add(20 * time.Second), deadline: told.Add(time.Minute), announced: told,
		quiet: 6 * time.Second, patience: 30 * time.Second, shipped: true, sealed: true}
	f := func(name string, want step, change func(*drainState)) {
		t.Helper()
		s := ready
		change(&s)
		if got := next(s); got != want {
			t.Errorf("%s: step %d, want %d", name, got, want)
		}
	}
	f("all done", doLeave, func(*drainState) {})
	f("at first", doAnnounce, func(s *drainState) { *s = drainState{now: s.now, deadline: s.deadline} })
	f("just told", doSettle, func(s *drainState) { s.shipped, s.sealed, s.now = false, false, told.Add(5*time.Second) })
	f("nothing came", doShip, func(s *drainState) { s.shipped, s.sealed, s.now = false, false, told.Add(6*time.Second) })
	f("a write came", doSettle,
		func(s *drainState) { s.shipped, s.sealed, s.lastWrite = false, false, s.now.Add(-time.Second) })
	f("a write came before", doShip,
		func(s *drainState) { s.shipped, s.sealed, s.lastWrite = false, false, told.Add(-time.Second) })
	f("writes go on", doShip, func(s *drainState) {
		s.shipped, s.sealed, s.now, s.lastWrite = false, false, told.Add(30*time.Second), told.Add(29*time.Second)
	})
	f("a write after shipping", doSeal, func(s *drainState) { s.sealed, s.late = false, true })
	f("and sealed", doShip, func(s *drainState) { s.late = true })
	f("not served", doAsk, func(s *drainState) { s.unserved, s.sealed = 1, false })
	f("not served and sealed", doAsk, func(s *drainState) { s.unserved = 1 })
	f("served", doSeal, func(s *drainState) { s.sealed = false })
	over := func(change func(*drainState)) func(*drainState) {
		return func(s *drainState) { s.now = s.deadline; change(s) }
	}
	f("too late to ship", doGiveUp, over(func(s *drainState) { s.shipped = false }))
	f("too late for a late write", doGiveUp, over(func(s *drainState) { s.late = true }))
	f("too late to tell", doGiveUp, over(func(s *drainState) { *s = drainState{now: s.now, deadline: s.deadline} }))
	f("too late to be served, open", doSeal, over(func(s *drainState) { s.unserved, s.sealed = 1, false }))
	f("too late to be served", doLeaveLate, over(func(s *drainState) { s.unserved = 1 }))
	f("served at the last moment", doLeave, over(func(*drainState) {}))
}

func TestUnservedBy(t *testing.T) {
	a, b := ulid.ULID{1}, ulid.ULID{2}
	f := func(want int, responses ...response) {
		t.Helper()
		if got := unservedBy([]ulid.ULID{a, b}, responses); len(got) != want || want == 1 && got[0] != b {
			t.Errorf("%+v: %v, want %d", responses, got, want)
		}
	}
	known, served := series.BlockState{Known: true}, series.BlockState{Known: true, Served: true}
	both := []series.BlockState{served, served}
	half := []series.BlockState{served, {}}
	first, second := []series.BlockState{served, known}, []series.BlockState{known, served}
	f(2)
	f(0, response{both, true})
	f(1, response{half, true})
	f(1, response{both, true}, response{half, true}) // a query may ask the second one only
	f(2, response{both, true}, response{nil, true})
	f(2, response{both, false})
	f(0, response{both, false}, response{both, true})
	f(1, response{half, false}, response{both, true})
	// Gateways that share the bucket.
	f(0, response{first, true}, response{second, true})
	f(1, response{first, true}, response{first, true})
	f(1, response{first, true}, response{second, false}) // the one that serves it leaves
	f(1, response{half, true}, response{second, true})   // the first one would not miss it
}

// rig is a drain with everything around it in hand.
type rig struct {
	seal

	mu          sync.Mutex // guards what follows
	flushErr    error
	flushes     int
	onFlush     func()
	blocks      []ulid.ULID
	events      []string
	ringErr     error
	consequence string
	spare       error
	alive       []Gateway

	d      *Drainer
	left   chan struct{}
	failed chan error
}

func (r *rig) event(e string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *rig) Flush(ctx context.Context) error {
	r.mu.Lock()
	err, on := r.flushErr, r.onFlush
	r.flushes++
	r.onFlush = nil
	r.mu.Unlock()
	if on != nil {
		on()
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocks = append(r.blocks, ulid.ULID{byte(len(r.blocks) + 1)})
	return ctx.Err()
}

func (r *rig) localBlocks() ([]ulid.ULID, int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blocks, 0, nil
}

func (r *rig) traffic() *seal { return &r.seal }
func (r *rig) Spare() error   { return r.spare }

func (r *rig) Consequence() string { return r.consequence }

func (r *rig) SetReadOnly(context.Context) error {
	r.event("read-only")
	return nil
}

func (r *rig) Leave(_ context.Context, drained bool) error {
	r.mu.Lock()
	err := r.ringErr
	r.ringErr = nil
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if drained {
		r.event("left drained")
	} else {
		r.event("left")
	}
	return nil
}

func (r *rig) gateways() []Gateway {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alive
}

func (r *rig) write() bool {
	if !r.enter() {
		return false
	}
	r.leave()
	return true
}

// serves is a gateway that knows every block from some time after now on.
func serves(after time.Duration) Gateway {
	from := time.Now().Add(after)
	return Gateway{Name: "g", States: func(_ context.Context, ids []ulid.ULID) ([]series.BlockState, error) {
		out := make([]series.BlockState, len(ids))
		for i := range out {
			out[i].Known = !time.Now().Before(from)
			out[i].Served = out[i].Known
		}
		return out, nil
	}}
}

func newRig(t *testing.T, gateways ...Gateway) *rig {
	r := &rig{alive: gateways, left: make(chan struct{}), failed: make(chan error, 1)}
	opts := DefaultDrainOptions()
	opts.Left = func() { close(r.left) }
	r.d = newDrainer(slog.New(slog.DiscardHandler), newDrainMetrics(nil), r, r, r.gateways, opts)
	if err := r.d.Begin(); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("a drain of a process that is starting: %v", err)
	}
	if err := r.d.Open(t.Context(), func(err error) { r.failed <- err }); err != nil {
		t.Fatal(err)
	}
	return r
}

// drain drains to the end and returns how long that took, and why it failed.
func (r *rig) drain(t *testing.T) (time.Duration, error) {
	t.Helper()
	start := time.Now()
	for range 2 { // once is enough, twice is harmless
		if err := r.d.Begin(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	select {
	case <-r.left:
	case err = <-r.failed:
	}
	took := time.Since(start)
	if cerr := r.d.Close(); cerr != nil {
		t.Errorf("close after the end: %v", cerr)
	}
	return took, err
}

// want checks what the ring heard, and the phase at the end.
func (r *rig) want(t *testing.T, phase Phase, events ...string) {
	t.Helper()
	if got, want := strings.Join(r.events, ", "), strings.Join(events, ", "); got != want || r.d.at() != phase {
		t.Errorf("%q ends as %q, want %q as %q", got, r.d.at(), want, phase)
	}
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, serves(20*time.Second))
		took, err := r.drain(t)
		if err != nil || took < 20*time.Second || took > 30*time.Second {
			t.Errorf("%s, %v", took, err)
		}
		r.want(t, Left, "read-only", "left drained")
		if r.write() {
			t.Error("a member that left takes writes")
		}
	})
}

func TestDrainWaitsForWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, serves(0))
		refused := make(chan time.Duration)
		start := time.Now()
		go func() { // a sender that has not heard
			for r.write() {
				time.Sleep(time.Second)
			}
			refused <- time.Since(start)
		}()
		if _, err := r.drain(t); err != nil {
			t.Error(err)
		}
		if at := <-refused; at < 30*time.Second || at > 35*time.Second {
			t.Errorf("writes were refused after %s", at)
		}
		r.want(t, Left, "read-only", "left drained")
	})
}

func TestDrainShipsLateWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, serves(0))
		r.onFlush = func() { r.write() }
		if _, err := r.drain(t); err != nil || r.flushes != 2 {
			t.Errorf("%d flushes, %v", r.flushes, err)
		}
		r.want(t, Left, "read-only", "left drained")
	})
}

func TestDrainWithoutGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		took, err := r.drain(t)
		if err != nil || took < 20*time.Minute || took > 21*time.Minute {
			t.Errorf("%s, %v", took, err)
		}
		r.want(t, Unserved, "read-only", "left")
	})
}

func TestDrainOfAMemberWithoutData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.d.r = empty{r}
		if took, err := r.drain(t); err != nil || took > 15*time.Second {
			t.Errorf("%s, %v", took, err)
		}
		r.want(t, Left, "read-only", "left drained")
	})
}

// empty is a receiver whose flushes make no blocks.
type empty struct{ *rig }

func (empty) Flush(context.Context) error { return nil }

func TestDrainWithDarkBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, serves(0))
		r.flushErr = errors.New("the bucket is dark")
		took, err := r.drain(t)
		if err == nil || !strings.Contains(err.Error(), "the bucket is dark") || took < 20*time.Minute {
			t.Errorf("%s, %v", took, err)
		}
		r.want(t, Failed, "read-only")
		if !r.write() {
			t.Error("a member that stays refuses writes")
		}
	})
}

func TestDrainRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.flushErr, r.ringErr = errors.New("the bucket is dark"), errors.New("not now")
		time.AfterFunc(5*time.Minute, func() {
			if s := r.d.Status(); s.Phase != Shipping || s.Error == "" {
				t.Errorf("in the dark: %+v", s)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.flushErr = nil
		})
		time.AfterFunc(10*time.Minute, func() {
			if s := r.d.Status(); s.Phase != Waiting || s.Unserved != 1 || s.Gateways != 0 {
				t.Errorf("without gateways: %+v", s)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.alive = []Gateway{{Name: "dark", States: func(ctx context.Context, _ []ulid.ULID) ([]series.BlockState, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}, serves(0)}
		})
		time.AfterFunc(15*time.Minute, func() {
			if s := r.d.Status(); s.Phase != Waiting || s.Unserved != 1 || s.Gateways != 2 {
				t.Errorf("with a gateway that does not answer: %+v", s)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.alive = r.alive[1:]
		})
		if took, err := r.drain(t); err != nil || took < 15*time.Minute || took > 16*time.Minute {
			t.Errorf("%s, %v", took, err)
		}
		r.want(t, Left, "read-only", "left drained")
	})
}

func TestDrainInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, serves(time.Hour))
		if err := r.d.Begin(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := r.d.Close(); err == nil || !strings.Contains(err.Error(), "interrupted") {
			t.Error(err)
		}
		r.want(t, Waiting, "read-only")
	})
}

// TestDrainWithHangingWrite: what is under way and does not end is not in the bucket.
func TestDrainWithHangingWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, serves(0))
		r.enter()
		if _, err := r.drain(t); err == nil || !strings.Contains(err.Error(), "do not end") {
			t.Error(err)
		}
		r.want(t, Failed, "read-only")
	})
}

func TestHandleDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, serves(0))
		f := func(method, target string, status int, text string) {
			t.Helper()
			w := httptest.NewRecorder()
			r.d.HandleDrain(w, httptest.NewRequest(method, target, nil))
			if w.Code != status || !strings.Contains(w.Body.String(), text) {
				t.Errorf("%s %s: %d %s, want %d with %q", method, target, w.Code, w.Body, status, text)
			}
		}
		f(http.MethodDelete, "/ring/drain", 405, "")
		r.d.opts.Refuse = true
		f(http.MethodPost, "/ring/drain", 403, "disabled")
		f(http.MethodGet, "/ring/drain", 200, `"phase":"serving"`)
		r.d.opts.Refuse = false
		r.spare = errors.New("too few")
		f(http.MethodPost, "/ring/drain", 409, "force=true")
		f(http.MethodGet, "/ring/drain", 200, `"phase":"serving"`)
		r.consequence = "writes fail as soon as one is away"
		f(http.MethodPost, "/ring/drain?force=true", 202, `"warning":"writes fail as soon as one is away"`)
		f(http.MethodPost, "/ring/drain", 202, `"deadline"`)
		synctest.Wait()
		f(http.MethodGet, "/ring/drain", 200, `"phase":"read-only"`)
		<-r.left
		f(http.MethodGet, "/ring/drain", 200, `"phase":"left"`)
		if err := r.d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestGateSeals: what passed before the seal is counted when seal returns, and nothing passes after it.
func TestGateSeals(t *testing.T) {
	var g seal
	var wg sync.WaitGroup
	var passed atomic.Uint64
	for range 4 {
		wg.Go(func() {
			for g.enter() {
				passed.Add(1)
				g.leave()
			}
		})
	}
	for g.passed.Load() < 1000 {
		runtime.Gosched()
	}
	if err := g.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	counted := g.passed.Load()
	wg.Wait()
	if counted != passed.Load() || counted != g.passed.Load() {
		t.Errorf("%d writes passed, %d were counted when it was sealed", passed.Load(), counted)
	}
}

// TestDrainReceiver drains a real receiver: what it held is in the bucket, and it takes no more.
func TestDrainReceiver(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	r, _ := start(t, t.TempDir(), bkt, nil)
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	left := make(chan struct{})
	opts := DefaultDrainOptions()
	opts.Quiet, opts.Poll, opts.Linger = time.Millisecond, time.Millisecond, 0
	ring := newRig(t, serves(0))
	opts.Left = func() { close(left) }
	d, err := NewDrainer(slog.New(slog.DiscardHandler), nil, r, ring, ring.gateways, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Open(t.Context(), func(err error) { t.Error(err); close(left) }), d.Begin()); err != nil {
		t.Fatal(err)
	}
	<-left
	if s := d.Status(); s.Phase != Left || s.Pending != 0 || s.Unserved != 0 || s.Blocks == 0 || !s.Sealed {
		t.Errorf("%+v", s)
	}
	if _, err := r.Write(t.Context(), wire.Shard{}); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a write to a member that left: %v", err)
	}
	if len(bkt.Objects()) == 0 {
		t.Error("nothing is in the bucket")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
