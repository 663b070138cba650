package show

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// Columns are the heads of a table of blocks.
var Columns = []string{"ULID", "FROM", "UNTIL", "RANGE", "UNTIL-DOWN", "#SERIES", "#SAMPLES", "#CHUNKS", "COMP-LEVEL",
	"COMP-FAILED", "LABELS", "RESOLUTION", "SOURCE"}

// Rows are the metas as rows of a table, in their order.
func Rows(metas []*block.Meta) [][]string {
	rows := make([][]string, len(metas))
	for i, m := range metas {
		var pairs []string
		for _, name := range slices.Sorted(maps.Keys(m.Thanos.Labels)) {
			pairs = append(pairs, name+"="+m.Thanos.Labels[name])
		}
		rows[i] = []string{
			m.ULID.String(), seconds(m.MinTime).Format(time.RFC3339), seconds(m.MaxTime).Format(time.RFC3339),
			millis(m.MaxTime - m.MinTime).String(), untilDown(m),
			grouped(m.Stats.NumSeries), grouped(m.Stats.NumSamples), grouped(m.Stats.NumChunks),
			grouped(uint64(max(m.Compaction.Level, 0))), strconv.FormatBool(m.Compaction.Failed),
			strings.Join(pairs, ","), millis(m.Thanos.Downsample.Resolution).String(), m.Thanos.Source,
		}
	}
	return rows
}

// The resolution of blocks that are downsampled once, and how long blocks of each resolution are when Thanos
// downsamples them.
const (
	fiveMinutes  = 5 * time.Minute
	rawUntilDown = 40 * time.Hour
	fineUntil    = 10 * 24 * time.Hour
)

// untilDown is how much longer a block would have to be to be downsampled.
func untilDown(m *block.Meta) string {
	span := millis(m.MaxTime - m.MinTime)
	switch millis(m.Thanos.Downsample.Resolution) {
	case 0:
		return (rawUntilDown - span).String()
	case fiveMinutes:
		return (fineUntil - span).String()
	}
	return "-"
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// grouped writes a number with a comma between each three digits.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Sort sorts rows by the columns by, the first one first, and by the id where they are equal. Each value is compared
// as what it is: a time, a duration, a number or a text. Unknown columns are passed over.
func Sort(rows [][]string, by []string) {
	var columns []int
	for _, name := range by {
		if i := slices.Index(Columns, name); i >= 0 {
			columns = append(columns, i)
		}
	}
	slices.SortStableFunc(rows, func(a, b []string) int {
		for _, i := range columns {
			if c := compare(a[i], b[i]); c != 0 {
				return c
			}
		}
		return compare(a[0], b[0])
	})
}

// compare compares two texts as times if both are, else as durations, as numbers, and as texts.
func compare(a, b string) int {
	if x, err := time.Parse(time.RFC3339, a); err == nil {
		if y, err := time.Parse(time.RFC3339, b); err == nil {
			return x.Compare(y)
		}
	}
	if x, err := time.ParseDuration(a); err == nil {
		if y, err := time.ParseDuration(b); err == nil {
			return int(min(1, max(-1, x-y)))
		}
	}
	if x, ok := number(a); ok {
		if y, ok := number(b); ok && x != y {
			if x < y {
				return -1
			}
			return 1
		} else if ok {
			return 0
		}
	}
	return strings.Compare(a, b)
}

func number(s string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.ReplaceAll(s, ",", ""), 10, 64)
	return n, err == nil
}
