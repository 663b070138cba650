package show

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hearth-metrics/hearth/block"
)

// WriteTable writes rows as a table for people, with Columns as its head.
func WriteTable(w io.Writer, rows [][]string) error {
	shown := make([][]string, len(rows))
	width := make([]int, len(Columns))
	for i, head := range Columns {
		width[i] = len(head)
	}
	for i, row := range rows {
		shown[i] = make([]string, len(row))
		for j, cell := range row {
			shown[i][j] = escape(cell)
			width[j] = max(width[j], utf8.RuneCountInString(shown[i][j]))
		}
	}
	out := bufio.NewWriter(w)
	line := func(pad string, cell func(i int) (before int, text string)) {
		for i := range Columns {
			before, text := cell(i)
			after := width[i] - before - utf8.RuneCountInString(text)
			out.WriteString("|" + pad + strings.Repeat(pad, before) + text + strings.Repeat(pad, after) + pad)
		}
		out.WriteString("|\n")
	}
	line(" ", func(i int) (int, string) { return (width[i] - len(Columns[i])) / 2, Columns[i] })
	line("-", func(int) (int, string) { return 0, "" })
	for _, row := range shown {
		line(" ", func(i int) (int, string) { return 0, row[i] })
	}
	return out.Flush()
}

// escape writes a text of a bucket for a terminal: control characters, and bytes that are no UTF-8, as in Go's strings.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// WriteSeparated writes rows as CSV with the separator comma, with Columns as its head.
func WriteSeparated(w io.Writer, rows [][]string, comma rune) error {
	out := csv.NewWriter(w)
	out.Comma = comma
	if err := out.Write(Columns); err != nil {
		return err
	}
	return out.WriteAll(rows)
}

// blockJSON is a block as JSON for programs: numbers as numbers, times in ms.
type blockJSON struct {
	ID         string            `json:"id"`
	MinTime    int64             `json:"minTime"`
	MaxTime    int64             `json:"maxTime"`
	Series     uint64            `json:"series"`
	Samples    uint64            `json:"samples"`
	Chunks     uint64            `json:"chunks"`
	Level      int               `json:"level"`
	Failed     bool              `json:"failed"`
	Labels     map[string]string `json:"labels"`
	Resolution int64             `json:"resolution"`
	Source     string            `json:"source"`
	Bytes      int64             `json:"bytes"`
}

// WriteJSON writes metas as JSON, a line for each. Times and the resolution are in ms; bytes are those that meta.json
// lists, 0 in old blocks.
func WriteJSON(w io.Writer, metas []*block.Meta) error {
	out := json.NewEncoder(w)
	for _, m := range metas {
		err := out.Encode(blockJSON{m.ULID.String(), m.MinTime, m.MaxTime, m.Stats.NumSeries, m.Stats.NumSamples,
			m.Stats.NumChunks, m.Compaction.Level, m.Compaction.Failed, m.Thanos.Labels, m.Thanos.Downsample.Resolution,
			m.Thanos.Source, m.Bytes()})
		if err != nil {
			return err
		}
	}
	return nil
}
