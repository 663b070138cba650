package tsdb

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestCrashAmongBirths has two senders bring the same new series at once, and copies the log as soon as one of them is
// acknowledged: what it sent must be in the copy, although the other one may have made the series.
func TestCrashAmongBirths(t *testing.T) {
	const rounds, series = 30, 100
	o := testOptions(t)
	d := openDB(t, o)
	start := time.Now().Add(-time.Minute).UnixMilli()
	type crash struct {
		dir string
		at  int64
	}
	var mu sync.Mutex
	var crashes []crash
	for round := range rounds {
		dir := t.TempDir()
		acked := false
		var wg sync.WaitGroup
		for sender := range int64(2) {
			b := wire.NewBatch(team)
			for i := range series {
				b.Add(labels.FromStrings("__name__", fmt.Sprint("round", round), "i", fmt.Sprint(i))).Samples = []wire.Sample{
					{T: start + sender, V: 1}}
			}
			wg.Go(func() {
				if failures, err := d.Append(t.Context(), wire.All(b)); err != nil || len(failures) > 0 {
					t.Error(failures, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if acked {
					return
				}
				acked = true
				if err := os.CopyFS(filepath.Join(dir, string(team)), os.DirFS(d.TenantDir(team))); err != nil {
					t.Error(err)
				}
				crashes = append(crashes, crash{dir, start + sender})
			})
		}
		wg.Wait()
	}
	for round, c := range crashes {
		o.Dir = c.dir
		lost := 0
		for name, points := range collect(t, openDB(t, o).Select(t.Context(), request(team, c.at, c.at,
			labels.MustNewMatcher(labels.MatchEqual, "__name__", fmt.Sprint("round", round))))) {
			if len(points) == 0 {
				t.Log(name)
			}
			lost--
		}
		if lost += series; lost > 0 {
			t.Fatalf("round %d: %d of %d acknowledged samples are gone after a crash", round, lost, series)
		}
	}
}

// TestSeriesDroppedWhileAppended has the head drop a series between the moment when an append has found it by its
// reference and the moment when it locks it. The TSDB then makes the series anew, in whatever transaction that is. It
// must be named in the WAL before samples of it are acknowledged, and its new reference must be the one
// that is kept.
func TestSeriesDroppedWhileAppended(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	now := time.Now().Add(-time.Minute).UnixMilli()
	ls := labels.FromStrings("a", "b")
	put(t, d, team, ls, float64(now), 1)
	in := d.lookup(team).in
	head := in.db.Head()

	// The TSDB has a hook at this moment for its own tests.
	field := reflect.ValueOf(head).Elem().FieldByName("testAfterSeriesLookup")
	hook := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	var once sync.Once
	dropped, alone := false, true
	hook.Set(reflect.MakeFunc(field.Type(), func([]reflect.Value) []reflect.Value {
		once.Do(func() {
			before := head.NumSeries()
			if err := head.Truncate(now + 1); err != nil {
				t.Error(err)
			}
			dropped = head.NumSeries() < before
			if alone = !in.fence.tryTake(); !alone {
				in.fence.give()
			}
		})
		return nil
	}))
	put(t, d, team, ls, float64(now+1000), 2)
	hook.SetZero()
	if !dropped {
		t.Fatal("the series was not dropped")
	}
	if !alone {
		t.Fatal("another transaction could find the series before the WAL names it")
	}
	verifyRefs(t, in)
	crashed := o
	crashed.Dir = filepath.Join(t.TempDir(), "crashed")
	if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, openDB(t, crashed), team)[ls.String()]; len(got) != 1 || got[0].v != "2" {
		t.Fatalf("after a crash %v are left", got)
	}
}
