package query

import (
	"context"
	"math"
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// knowing is a receiver that knows when samples arrived.
type knowing struct {
	*mortal
	says series.Arrivals
}

func (k *knowing) Arrivals(ctx context.Context, _ tenant.ID, _ int64) (series.Arrivals, error) {
	series.TellIdentity(ctx, *k.disk.Load())
	return k.says, k.Fail()
}

// TestArrivals: what is known together depends on how many receivers say something, those that left included.
func TestArrivals(t *testing.T) {
	var all []*knowing
	var endpoints []Endpoint
	var history []ring.Incarnation
	for i, name := range []string{"a", "b", "c"} {
		k := &knowing{mortal: newMortal(name, 1), says: series.Arrivals{Since: at(float64(2 + i)).UnixMilli()}}
		all, endpoints = append(all, k), append(endpoints, Endpoint{Name: name, Source: k})
		history = append(history, incarnation(name, "", 1, 0, false))
	}
	all[0].says.Delays = []series.Delay{{Hour: 5, Lowest: 1}}
	rf := 3
	opts := DefaultOptions()
	opts.Membership = func(tenant.ID) Membership { return Membership{ReplicationFactor: rf, History: history} }
	q := open(t, opts, endpoints...)
	f := func(name string, since float64, want int64) {
		t.Helper()
		got, err := q.Arrivals(t.Context(), tenant.Default, at(since).UnixMilli())
		if err != nil || got.Since != want {
			t.Errorf("%s: known since %d, %v; want %d", name, got.Since, err, want)
		}
		if len(got.Delays) != 1 {
			t.Errorf("%s: delays %v", name, got.Delays)
		}
	}
	f("all", 6, at(3).UnixMilli())
	all[2].dead.Store(true)
	f("one is dead", 6, at(3).UnixMilli())
	all[1].dead.Store(true)
	f("two are dead", 6, math.MaxInt64)
	all[1].dead.Store(false)
	all[2].dead.Store(false)
	history = append(history, incarnation("gone", "", 1, 7, true))
	f("one left after the answer", 6, at(4).UnixMilli())
	f("one left before the answer", 8, at(3).UnixMilli())
	history = history[:3]
	all[2].comeBackEmpty(5)
	all[2].says.Since = at(5).UnixMilli()
	history[2].Until, history = at(5), append(history, incarnation("c", "", 5, 0, false))
	f("one lost its disk", 4.5, at(5).UnixMilli())
	rf = 0
	f("no ring is known", 6, at(5).UnixMilli())

	foreign := open(t, opts, append(endpoints, Endpoint{Name: "x", Source: &moody{Memory: newMortal("", 1).Memory}})...)
	if _, err := foreign.Arrivals(t.Context(), tenant.Default, 0); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("with a foreign store: %v", err)
	}
}
