package tsdb

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
)

// summaryName is the file that a closed tenant leaves, so that selecting from others need not open it. It exists only
// while the tenant is closed.
const summaryName = "summary.json"

// summary is what is known of a closed tenant. Times are ms, inclusive; MinTime > MaxTime means it holds no sample.
type summary struct {
	Version int    `json:"version"`
	MinTime int64  `json:"min_time"`
	MaxTime int64  `json:"max_time"`
	Series  uint64 `json:"series"`
	Blocks  int    `json:"blocks"`
	// Head says that samples were left in the head, which only an opening can ship.
	Head bool `json:"head,omitempty"`
}

// everything stands for a tenant that is about to be opened again.
var everything = summary{Version: 1, MinTime: math.MinInt64, MaxTime: math.MaxInt64}

func (s summary) overlaps(mint, maxt int64) bool { return s.MinTime <= maxt && mint <= s.MaxTime }

// summary is what would be known of in if it were closed now.
func (in *instance) summary() summary {
	head := in.db.Head()
	s := summary{Version: 1, MinTime: math.MaxInt64, MaxTime: math.MinInt64, Series: head.NumSeries()}
	for _, b := range in.db.Blocks() {
		meta := b.Meta()
		s.MinTime, s.MaxTime = min(s.MinTime, meta.MinTime), max(s.MaxTime, meta.MaxTime-1)
		s.Series = max(s.Series, meta.Stats.NumSeries)
		s.Blocks++
	}
	if !in.clean() {
		s.MinTime, s.MaxTime = min(s.MinTime, head.MinTime(), head.MinOOOTime()), max(s.MaxTime, head.MaxTime(), head.MaxOOOTime())
		s.Head = true
	}
	return s
}

func readSummary(dir string) (summary, bool) {
	b, err := os.ReadFile(filepath.Join(dir, summaryName))
	if err != nil {
		return summary{}, false
	}
	var s summary
	if json.Unmarshal(b, &s) != nil || s.Version != 1 {
		return summary{}, false // opening the tenant finds out
	}
	return s, true
}

func writeSummary(dir string, s summary) error { return writeJSON(filepath.Join(dir, summaryName), s) }

func removeSummary(dir string) error {
	if err := os.Remove(filepath.Join(dir, summaryName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeJSON replaces the file at path atomically and durably.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o666)
}
