package tenantdir

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
)

// summaryName is the file that a closed tenant leaves, so that a query for another time need not open it. It exists
// only while the tenant is closed.
const summaryName = "summary.json"

// Summary is what is known of a closed tenant. Times are ms, inclusive; MinTime > MaxTime means that it holds no
// sample.
type Summary struct {
	Version int    `json:"version"`
	MinTime int64  `json:"min_time"`
	MaxTime int64  `json:"max_time"`
	Series  uint64 `json:"series"`
	Blocks  int    `json:"blocks"`
	// Head says that samples were left in the head, which only an opening can ship.
	Head bool `json:"head,omitempty"`
}

// Anything is the summary of a tenant of which nothing is known: it may hold samples of any time.
func Anything() Summary { return Summary{Version: 1, MinTime: math.MinInt64, MaxTime: math.MaxInt64} }

// Nothing is the summary of a tenant without samples. Extend adds some.
func Nothing() Summary { return Summary{Version: 1, MinTime: math.MaxInt64, MaxTime: math.MinInt64} }

// Extend makes s cover [mint, maxt], too.
func (s *Summary) Extend(mint, maxt int64) {
	s.MinTime, s.MaxTime = min(s.MinTime, mint), max(s.MaxTime, maxt)
}

// Overlaps reports whether the tenant may hold samples of [mint, maxt].
func (s Summary) Overlaps(mint, maxt int64) bool { return s.MinTime <= maxt && mint <= s.MaxTime }

// ReadSummary reads the summary in tenant directory dir; false when there is none that can be read.
func ReadSummary(dir string) (Summary, bool) {
	b, err := os.ReadFile(filepath.Join(dir, summaryName))
	if err != nil {
		return Summary{}, false
	}
	var s Summary
	if json.Unmarshal(b, &s) != nil || s.Version != 1 {
		return Summary{}, false // the tenant is opened, which finds out what it holds
	}
	return s, true
}

// WriteSummary replaces the summary in tenant directory dir.
func WriteSummary(dir string, s Summary) error { return writeJSON(filepath.Join(dir, summaryName), s) }

// RemoveSummary deletes the summary in tenant directory dir, if there is one.
func RemoveSummary(dir string) error {
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
