package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/store/cache"
)

// tally is what one select touched and what of it came from the bucket, for the metrics. It is safe for concurrent use.
type tally struct {
	began   time.Time
	first   time.Time       // when the first series came
	yielded int             // series
	touched [tallied]amount // items: lists of postings, entries of series, chunks
	fetched [tallied]amount // range reads of the bucket
}

// amount is a number of things and their bytes.
type amount struct{ items, bytes atomic.Int64 }

func (a *amount) add(items int, bytes int64) {
	a.items.Add(int64(items))
	a.bytes.Add(bytes)
}

// tallied is how many kinds of data Thanos tells apart.
const tallied = 3

// dataTypes are the names of those kinds, as Thanos's metrics have them.
var dataTypes = [tallied]string{"postings", "series", "chunks"}

// dataType is the place of what is read of a file in dataTypes.
func dataType(k cache.Kind) int {
	switch k {
	case cache.Series:
		return 1
	case cache.Chunks:
		return 2
	}
	return 0
}

type tallyKey struct{}

// withTally gives a request's reads a tally, which they find through their context.
func withTally(ctx context.Context) (context.Context, *tally) {
	t := &tally{began: time.Now()}
	return context.WithValue(ctx, tallyKey{}, t), t
}

// noTally takes what no select reads: label calls, and what a sync reads.
var noTally tally

func tallyOf(ctx context.Context) *tally {
	if t, ok := ctx.Value(tallyKey{}).(*tally); ok {
		return t
	}
	return &noTally
}

// queried is t as callers learn it, for a select of some blocks.
func (t *tally) queried(of []ulid.ULID) series.Queried {
	amount := func(i int) series.ReadAmount {
		return series.ReadAmount{Touched: t.touched[i].items.Load(), TouchedBytes: t.touched[i].bytes.Load(),
			Reads: t.fetched[i].items.Load(), ReadBytes: t.fetched[i].bytes.Load()}
	}
	return series.Queried{Blocks: of, Postings: amount(0), Series: amount(1), Chunks: amount(2)}
}

// series counts a series that the select yields. Only the goroutine that reads the select calls it.
func (t *tally) series(m *thanosMetrics, s series.Series) {
	if t.yielded++; t.yielded == 1 {
		t.first = time.Now()
	}
	if len(s.Chunks) == 0 {
		return
	}
	sum := 0
	for _, c := range s.Chunks {
		sum += len(c.Raw.Data)
		if c.Aggr != nil {
			for _, e := range c.Aggr {
				sum += len(e.Data)
			}
		}
	}
	m.chunkSize.Observe(float64(sum))
}
