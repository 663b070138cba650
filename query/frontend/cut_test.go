package frontend

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/internal/expr"
)

// TestCut: the pieces of random requests have each step once, in order, and none crosses a border.
func TestCut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		step := 1 + rnd.Int64N(5000)
		from := rnd.Int64N(1_000_000)
		to := from + step*rnd.Int64N(300)
		interval := rnd.Int64N(200_000)
		next := from
		for _, p := range cut(from, to, step, interval) {
			if p.from != next || p.to < p.from || (p.to-p.from)%step != 0 {
				t.Fatalf("piece %v of %d to %d by %d at %d: want one from %d", p, from, to, step, interval, next)
			}
			if interval > 0 && p.from/interval != p.to/interval {
				t.Fatalf("piece %v of %d to %d by %d crosses a border of %d", p, from, to, step, interval)
			}
			next = p.to + step
		}
		if next != to+step {
			t.Fatalf("%d to %d by %d at %d: the last step is %d", from, to, step, interval, next-step)
		}
	}
}

func TestWidened(t *testing.T) {
	f := func(interval, step, want int64) {
		t.Helper()
		if got := widened(interval, step); got != want {
			t.Errorf("%d for steps of %d: %d, want %d", interval, step, got, want)
		}
	}
	f(86_400, 15, 86_400)
	f(86_400, 1440, 86_400)
	f(86_400, 1441, 2*86_400)
	f(86_400, 3600, 3*86_400)
	f(0, 15, 0)
}

func TestWithout(t *testing.T) {
	f := func(p, have piece, want string) {
		t.Helper()
		if got := fmt.Sprint(p.without(have, 10)); got != want {
			t.Errorf("%v without %v: %s, want %s", p, have, got, want)
		}
	}
	f(piece{100, 200}, piece{100, 200}, "[]")
	f(piece{100, 200}, piece{50, 250}, "[]")
	f(piece{100, 200}, piece{100, 150}, "[{160 200}]")
	f(piece{100, 200}, piece{150, 300}, "[{100 140}]")
	f(piece{100, 200}, piece{130, 150}, "[{100 120} {160 200}]")
	f(piece{100, 200}, piece{210, 300}, "[{100 200}]")
	f(piece{100, 200}, piece{0, 90}, "[{100 200}]")
}

func TestUntil(t *testing.T) {
	f := func(r expr.Reach, maxt, want int64, ok bool) {
		t.Helper()
		if last, is := until(r, piece{100, 200}, 10, maxt); is != ok || ok && last != want {
			t.Errorf("%+v until %d: %d, %t, want %d", r, maxt, last, is, want)
		}
	}
	ahead := func(n int64) expr.Reach { r := expr.Nothing; r.Back, r.Ahead = 5, n; return r }
	fixed := ahead(0)
	fixed.FixedMin, fixed.FixedMax = 900, 900
	f(ahead(0), 1000, 200, true)
	f(ahead(0), 200, 200, true)
	f(ahead(0), 199, 190, true)
	f(ahead(0), 100, 100, true)
	f(ahead(0), 99, 0, false)
	f(ahead(50), 199, 140, true)
	f(ahead(-50), 149, 190, true)
	f(fixed, 899, 0, false)
	f(fixed, 900, 200, true)
	f(expr.Nothing, 0, 200, true)
}

// TestKeyHasEveryField changes each field of a request alone: its key must change as its tag says.
func TestKeyHasEveryField(t *testing.T) {
	base := request{tenants: nil, text: "x", from: 1_000_000, to: 2_000_000, step: 15_000}
	const interval = 600_000
	f := func(field string, change func(*request), differs bool) {
		t.Helper()
		q := base
		change(&q)
		if (q.key(q.from, interval) != base.key(base.from, interval)) != differs {
			t.Errorf("%s: in the key %t, want %t", field, !differs, differs)
		}
	}
	changed := map[string]bool{}
	for name, change := range fieldChanges {
		tag := tagOf(t, name)
		f(name, change, !strings.HasPrefix(tag, "no: ") && name != "reach")
		changed[name] = true
	}
	for _, name := range fieldNames() {
		if !changed[name] {
			t.Errorf("field %s of request is changed by no test", name)
		}
	}
	f("from, one step on, in the same interval", func(q *request) { q.from += q.step }, false)
	f("from, in the next interval", func(q *request) { q.from += 40 * q.step }, true)
}
