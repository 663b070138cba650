package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/bench/samples"
)

// The whole program, small, against Hearth alone: cases, members, page.
func TestRun(t *testing.T) {
	peers := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(peers, "hearth"), "../../cmd/hearth")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	page := filepath.Join(t.TempDir(), "ingest.md")
	if err := os.WriteFile(page, []byte("# Ingest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	args := []string{"-hearth", filepath.Join(peers, "hearth"), "-peers", peers, "-quick", "-series", "5000", "-many",
		"6000", "-scrapes", "2", "-out", page, "-cases", "RF=1, 1.0, 6|RF=3, 2.0"}
	if err := run(context.Background(), args, io.Discard, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Ingest\n", "### RF=3, 2.0, 5,000 series\n", "### RF=1, 1.0, 6,000 series\n", "100.0 % | 0 | 0 of 15 |", "thanos, prometheus, victoriametrics.", "--receive.replication-factor=3"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the page lacks %q:\n%s", want, b)
		}
	}
	if !strings.Contains(log.String(), "prometheus is skipped") {
		t.Errorf("nothing said of skipped peers: %s", log.String())
	}
}

func TestCases(t *testing.T) {
	f := func(want []string, args ...string) {
		t.Helper()
		o, err := parseOptions(args)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range casesOf(o) {
			got = append(got, c.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: %q, want %q", args, got, want)
		}
	}
	f([]string{"RF=3, 2.0, 100,000 series", "RF=3, 2.0, 100,000 series, 10 % churn"}, "-cases", "RF=3, 2.0")
	f([]string{"RF=1, 1.0, 70 series, 10 % churn"}, "-cases", "churn", "-quick", "-series", "70")
	f([]string{"RF=1, 1.0, 1,000,000 series"}, "-cases", "1,000,000")
	f([]string{"RF=3, 1.0, 100,000 series, 4 senders", "RF=3, 1.0, 100,000 series, 32 senders"}, "-cases", "RF=3, 1.0",
		"-quick", "-concurrency", "4,32")
	for _, wrong := range []string{"0", "x", "4,"} {
		if _, err := parseOptions([]string{"-concurrency", wrong}); err == nil {
			t.Errorf("-concurrency %s was taken", wrong)
		}
	}
	if _, err := parseOptions([]string{"-cases", "("}); err == nil {
		t.Error("a bad expression was taken")
	}
	if _, err := parseOptions([]string{"-rounds", "0"}); err == nil {
		t.Error("no rounds were taken")
	}
}

func TestLoadStaysInOneBlock(t *testing.T) {
	f := func(now, want string) {
		t.Helper()
		at, err := time.Parse(time.DateTime, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := firstOf(5, at).Format(time.DateTime); got != want {
			t.Errorf("at %s: %s, want %s", now, got, want)
		}
	}
	f("2026-11-23 21:30:00", "2026-11-23 21:29:00")
	f("2026-11-23 22:01:00", "2026-11-23 22:00:00")
	f("2026-11-23 22:00:59", "2026-11-23 21:58:59")
}

func TestRecord(t *testing.T) {
	o := samples.Options{Series: 100, Labels: 12, PerRequest: 30, Churn: 0.1}
	a, err := record(o, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.scrapes) != 3 || len(a.scrapes[0]) != 4 || !slices.Equal(a.samples, []int{30, 30, 30, 10}) || a.wire < 5 ||
		a.wire > 300 {
		t.Errorf("%d scrapes of %d requests with %v samples, %.0f bytes each", len(a.scrapes), len(a.scrapes[0]), a.samples,
			a.wire)
	}
}

func TestMedian(t *testing.T) {
	cpu := func(f figures) float64 { return f.CPU }
	f := func(want float64, cpus ...float64) {
		t.Helper()
		r := &result{}
		for _, c := range cpus {
			r.rounds = append(r.rounds, figures{CPU: c})
		}
		if got := r.median(cpu); got != want {
			t.Errorf("%v: %v, want %v", cpus, got, want)
		}
	}
	f(0)
	f(2, 3, 1, 2)
	f(1.5, 2, 1)
	f(4, 0, 4, 0) // 0 = not measured
}
