package store

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
)

// TestListingsDiffer: two gateways have one index, and one of them has seen a compaction since that the other has not
// seen. It sees it while an answer is under way, after it had said that the answer needs the sources. The answer has
// everything all the same, and nothing is said to be missing.
func TestListingsDiffer(t *testing.T) {
	for _, labelsOnly := range []bool{false, true} {
		for _, marked := range []bool{false, true} {
			t.Run(fmt.Sprintf("labels %t, marked %t", labelsOnly, marked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { listingsDiffer(t, labelsOnly, marked) })
			})
		}
	}
}

func listingsDiffer(t *testing.T, labelsOnly, marked bool) {
	c := newCast(t, 0)
	c.copies = 1
	for range 8 {
		c.ship()
	}
	index := block.NewFetcher(c.bkt, block.FetcherOptions{})
	if _, err := index.WriteIndex(t.Context(), c.bkt); err != nil {
		t.Fatal(err)
	}
	c.come()
	c.come()
	time.Sleep(2 * time.Minute)
	names := c.live(true)
	ahead, behind := c.gateways[names[0]], c.gateways[names[1]]

	sources := slices.Collect(maps.Values(c.lives))
	whole := &part{Part: block.Part{Shard: 0, Of: 1}}
	for _, s := range sources {
		whole.series = append(whole.series, s.series...)
	}
	c.upload(whole, sources)
	if marked {
		for _, s := range sources {
			if err := block.MarkDeletion(t.Context(), c.bkt, s.meta.ULID, "compacted", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := ahead.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	ask := func(g *player, blocks series.BlockRequest) []series.Coverage {
		r := ask(team, math.MinInt64, math.MaxInt64)
		r.Blocks = blocks
		values, coverage := c.one(g, r, labelsOnly)
		maps.Copy(got, values)
		return coverage
	}
	heard := slices.Concat(ask(ahead, series.BlockRequest{Primary: true}), ask(behind, series.BlockRequest{Primary: true}))
	if heard[0].View != heard[1].View || heard[0].View.Number == 0 || heard[0].Needed == heard[1].Needed {
		t.Fatalf("the gateways do not have one view and two listings: %+v", heard)
	}
	if err := behind.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	gaps, _ := series.Uncovered("bucket", heard, nil)
	if len(gaps) == 0 {
		t.Fatal("nothing is missing at first")
	}
	for _, gap := range gaps {
		heard = append(heard, ask(ahead, series.BlockRequest{View: gap.View, Only: gap.Missing})...)
		heard = append(heard, ask(behind, series.BlockRequest{View: gap.View, Only: gap.Missing})...)
	}
	if gaps, proven := series.Uncovered("bucket", heard, nil); !proven {
		t.Errorf("missing are %+v", gaps)
	}
	for _, i := range whole.series {
		if !got[fmt.Sprint(i)] {
			t.Errorf("series %d is missing", i)
		}
	}
	for _, name := range names {
		if err := errors.Join(c.gateways[name].Unshare(), c.gateways[name].Close()); err != nil {
			t.Error(err)
		}
	}
}
