package server

import (
	"os"
	"strconv"
	"testing"
)

func TestParse(t *testing.T) {
	u, err := parseStat("42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 25 75 20 0 9 0 100")
	if err != nil || u.Command != "a (b) c" || u.CPU != 3 {
		t.Errorf("%+v %v", u, err)
	}
	peak, err := parseSize([]byte("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n"), "VmHWM:")
	if err != nil || peak != 2<<20 {
		t.Errorf("%d %v", peak, err)
	}
	if _, err := parseSize([]byte("Name:\tzombie\n"), "VmHWM:"); err == nil {
		t.Error("no error for a process that has ended")
	}
}

func TestReadUsage(t *testing.T) {
	u, err := ReadUsage(strconv.Itoa(os.Getpid()))
	if err != nil || u.Peak < u.Resident || u.Resident == 0 || u.Command == "" {
		t.Errorf("%+v %v", u, err)
	}
}

func TestSumOf(t *testing.T) {
	metrics := "# TYPE a counter\na{x=\"1 2\"} 3\na{x=\"2\"} 1e2\nab 7\na_total 9\nb 5\n"
	f := func(name string, want float64) {
		t.Helper()
		if got, err := SumOf([]byte(metrics), name); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", name, got, err, want)
		}
	}
	f("a", 103)
	f("b", 5)
	f("c", 0)
}

func TestReplaceGenerated(t *testing.T) {
	first := replaceGenerated("# Title\n\nWords.\n", "one")
	second := replaceGenerated(first+"\nMore words.\n", "two\n")
	want := "# Title\n\nWords.\n\n" + beginGenerated + "\ntwo\n\n" + endGenerated + "\nMore words.\n"
	if second != want {
		t.Errorf("got %q, want %q", second, want)
	}
	if got := replaceGenerated("", "one"); got != beginGenerated+"\none\n\n"+endGenerated {
		t.Errorf("got %q", got)
	}
}
