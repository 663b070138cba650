package show

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestSort: each column is compared as what it has: times, durations, numbers, texts. Ids decide between equal ones.
func TestSort(t *testing.T) {
	row := func(id, from, span, series, labels string) []string {
		r := make([]string, len(Columns))
		r[0], r[1], r[3], r[5], r[10] = id, from, span, series, labels
		return r
	}
	rows := [][]string{
		row("1", "2026-01-01T10:00:00+02:00", "10h0m0s", "1,000", "b"), row("2", "2026-01-01T09:00:00Z", "-2h0m0s", "999", "a=10"),
		row("3", "2026-01-01T08:00:00Z", "2h0m0s", "20", "a=9"), row("4", "2025-01-01T08:00:00Z", "-", "20", ""),
	}
	f := func(want string, by ...string) {
		t.Helper()
		for range 3 { // from any order
			rows = append(rows[1:], rows[0])
			Sort(rows, by)
			var got string
			for _, r := range rows {
				got += r[0]
			}
			if got != want {
				t.Errorf("%q: %s, want %s", by, got, want)
			}
		}
	}
	f("1234")
	f("4132", "FROM")
	f("4231", "RANGE")
	f("3421", "#SERIES")
	f("4321", "#SERIES", "FROM")
	f("4231", "LABELS")
	f("1234", "unknown")
}

func TestGrouped(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1<<64 - 1: "18,446,744,073,709,551,615"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

// TestWriteTable: a table is as wide as its widest cells, and shows what a terminal would act on.
func TestWriteTable(t *testing.T) {
	row := make([]string, len(Columns))
	row[0], row[10] = "größe", "a=\x1b[2J\n\xff"
	var out bytes.Buffer
	if err := WriteTable(&out, [][]string{row}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || !strings.Contains(lines[2], `| größe |`) || !strings.Contains(lines[2], `a=\x1b[2J\n\xff`) {
		t.Errorf("%q", lines)
	}
	if slices.ContainsFunc(lines[:3], func(l string) bool { return len([]rune(l)) != len([]rune(lines[0])) }) {
		t.Errorf("lines of different widths:\n%s", &out)
	}
}
