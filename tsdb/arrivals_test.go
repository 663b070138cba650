package tsdb

import (
	"slices"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestArrivals: delayed samples are known by the hour in which they arrived, also those that the TSDB takes in order,
// and also after the tenant was closed; after a restart it is known that nothing is known.
func TestArrivals(t *testing.T) {
	o := testOptions(t)
	now := time.UnixMilli(1_700_000_000_000).Truncate(time.Hour)
	o.Now = func() time.Time { return now }
	start := now.UnixMilli()
	d := openDB(t, o)
	f := func(step string, id tenant.ID, since int64, want ...series.Delay) series.Arrivals {
		t.Helper()
		got, err := d.Arrivals(t.Context(), id, since)
		if err != nil || !slices.Equal(got.Delays, want) {
			t.Errorf("%s: %+v, %v; want %v", step, got.Delays, err, want)
		}
		if got.Window != o.Window || got.Complete != now.Add(-o.Window).UnixMilli()-1 || got.Since != start {
			t.Errorf("%s: window %s, complete up to %d, known since %d", step, got.Window, got.Complete, got.Since)
		}
		return got
	}
	put := func(ago time.Duration) int64 {
		t.Helper()
		batches := benchBatches(1)
		stamp(batches[0], now.Add(-ago).UnixMilli())
		mustAppend(t, d, batches[0])
		return now.Add(-ago).UnixMilli()
	}
	id := benchBatches(1)[0].Tenant
	f("a tenant that is not there", id, 0)
	oldest := put(2 * time.Hour) // of a new series, so it is in order
	first := series.Delay{Hour: now.UnixMilli(), Lowest: oldest, Latest: now.Add(time.Second).UnixMilli()}
	f("in order", id, 0, first)
	put(0)
	put(series.DelayedAfter)
	put(time.Hour)
	f("out of order", id, 0, first)
	now = now.Add(90 * time.Minute)
	put(0)
	f("not delayed", id, 0, first)
	second := series.Delay{Hour: now.Truncate(time.Hour).UnixMilli(), Lowest: put(time.Hour),
		Latest: now.Add(time.Second).UnixMilli()}
	f("the next hour", id, 0, first, second)
	f("asked for it alone", id, now.UnixMilli(), second)
	f("asked for later ones", id, now.Add(time.Hour).UnixMilli())
	// What the window refuses did not arrive.
	batches := benchBatches(1)
	stamp(batches[0], now.Add(-o.Window).UnixMilli()-1)
	if failures, err := d.Append(t.Context(), wire.All(batches[0])); err != nil || len(failures) != 1 {
		t.Errorf("%v, %v", failures, err)
	}
	f("a refused one", id, 0, first, second)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	start = now.UnixMilli()
	d = openDB(t, o)
	f("after a restart", id, 0)
}
