package tsdb

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

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
				b.Add(labels.FromStrings("__name__", fmt.Sprint("round", round), "i", fmt.Sprint(i))).Samples = []wire.Sample{{T: start + sender, V: 1}}
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
		for name, points := range collect(t, openDB(t, o).Select(t.Context(), request(team, c.at, c.at, labels.MustNewMatcher(labels.MatchEqual, "__name__", fmt.Sprint("round", round))))) {
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
