package main

import (
	"strings"
	"testing"
	"time"
)

func TestAffordable(t *testing.T) {
	f := func(wanted, files, each, want int) {
		t.Helper()
		if got := affordable(wanted, files, each); got != want {
			t.Errorf("%d tenants of %d files, %d files: %d, want %d", wanted, each, files, got, want)
		}
	}
	f(10_000, 0, 6, 10_000)
	f(10_000, 20_000, 6, 3000)
	f(10_000, 20_000, 8, 2250)
	f(10_000, 1<<20, 6, 10_000)
	f(0, 20_000, 6, 0)
}

func TestValueOf(t *testing.T) {
	metrics := []byte("# TYPE a gauge\na{state=\"open\"} 12\na{state=\"opening\"} 3\nab 4\nb 1.5e+09\n")
	f := func(series string, want float64) {
		t.Helper()
		if got, err := valueOf(metrics, series); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", series, got, err, want)
		}
	}
	f(`a{state="open"}`, 12)
	f("b", 1.5e9)
	if v, err := valueOf(metrics, "a"); err == nil {
		t.Errorf("a has no value, and is %v", v)
	}
}

func TestOptions(t *testing.T) {
	for _, args := range []string{"-tenants -1", "-series 0", "-writers 0", "surplus", "-patience 0s"} {
		if _, err := parseOptions(strings.Fields(args)); err == nil {
			t.Errorf("%s is taken", args)
		}
	}
	o, err := parseOptions([]string{"-tenants", "7"})
	if err != nil || o.tenants != 7 || o.arguments != " `-tenants=7`" {
		t.Errorf("%+v %v", o, err)
	}
}

func TestReport(t *testing.T) {
	empty := row{"started, empty", time.Second, state{resident: 60 << 20, files: 14}}
	full := row{"first", 2 * time.Second, state{open: 3000, resident: 2220 << 20, files: 18014}}
	r := report{opts: options{tenants: 10_000, active: 1, idle: 2, series: 20}, files: 20_000, tenants: 3000,
		all: []row{empty, full}}
	var text strings.Builder
	r.write(&text)
	for _, want := range []string{
		"### 3000 tenants, all active", "| first | 2.0 s | 3000 / 0 | 2220 |", "| 737.3 | 18014 | 6.0 |",
		"3000 of 10000 tenants, as a process may open 20000 files here. In proportion, 10000 would take 7.1 GiB, and 66666 files with a tenth to spare.",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "not written to") {
		t.Error("a run that was not made is reported")
	}
}
