package expr

import (
	"math"
	"testing"
	"time"
)

func TestReach(t *testing.T) {
	const none = math.MinInt64
	minute := time.Minute.Milliseconds()
	p := New(0)
	f := func(text string, back, ahead, fixedMin, fixedMax int64) {
		t.Helper()
		e, err := p.ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := ReachOf(e)
		if want := (Reach{back, ahead, fixedMin, fixedMax}); !ok || got != want {
			t.Errorf("%s: %+v, %t, want %+v", text, got, ok, want)
		}
	}
	f("time()", none, none, math.MaxInt64, none)
	f("x", 0, 0, math.MaxInt64, none)
	f("rate(x[5m])", 5*minute, 0, math.MaxInt64, none)
	f("rate(x[5m] offset 1m)", 6*minute, -minute, math.MaxInt64, none)
	f("x offset -1h + y offset 2h", 120*minute, 60*minute, math.MaxInt64, none)
	f("x @ 100", none, none, 100_000, 100_000)
	f("rate(x[1m] @ 100 offset 1m)", none, none, -20_000, 40_000)
	f("x + rate(y[1m] @ 100)", 0, 0, 40_000, 100_000)
	f("max_over_time(rate(x[5m])[1h:1m])", 65*minute, 0, math.MaxInt64, none)
	f("max_over_time(rate(x[5m] offset 1m)[1h:1m] offset 2m)", 68*minute, -3*minute, math.MaxInt64, none)
	f("max_over_time(x[1m:] @ 1000 offset 1m)", none, none, 880_000, 940_000)
	f("max_over_time((x offset 1m)[1m:] @ 1000)", none, none, 880_000, 940_000)
	f("max_over_time((x @ 50)[1m:] @ 1000)", none, none, 50_000, 50_000)
	f(`label_replace(sum by (a) (x) / on (a) y offset 1m, "b", "$1", "a", "(.*)")`, minute, 0, math.MaxInt64, none)
}

func TestReachOfTheWhole(t *testing.T) {
	p := New(0)
	for _, text := range []string{"x @ start()", "rate(x[1m] @ end())", "max_over_time(x[5m:1m] @ start())"} {
		e, err := p.ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := ReachOf(e); ok {
			t.Errorf("%s: %+v", text, r)
		}
	}
}
