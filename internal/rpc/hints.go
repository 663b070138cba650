package rpc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// The hints of Thanos's StoreAPI are messages of a package of their own, which only a store gateway knows: a caller
// chooses blocks, and learns which were asked and how much was read of them. `thanos store` takes the matchers and
// never answers a Series call with hints; here who asks for statistics gets them.
const hintsURL = "type.googleapis.com/hintspb."

// Fields of the hints. The statistics of each kind of data follow each other.
const (
	hintBlockMatchers = 1
	hintWantsStats    = 2

	hintQueriedBlocks = 1
	hintStats         = 2
	hintBlockID       = 1

	statBlocks     = 1
	statSeries     = 2
	statChunks     = 3
	statOfPostings = 4
	statOfSeries   = 10
	statOfChunks   = 15
	statDownloaded = 20
	statGetAll     = 21
	statMerge      = 22
)

// hintsFromPB reads the hints of a request: matchers on the external labels of a block and its id, and whether the
// caller wants statistics. in may be nil. What it does not know it leaves out, as protobuf does.
func hintsFromPB(made *expr.Matchers, in *anypb.Any) (blocks []*labels.Matcher, stats bool, err error) {
	var all []*thanospb.LabelMatcher
	err = fields(in.GetValue(), func(num protowire.Number, n uint64, b []byte) error {
		switch {
		case num == hintBlockMatchers && b != nil:
			m := new(thanospb.LabelMatcher)
			if err := m.UnmarshalVT(b); err != nil {
				return fmt.Errorf("block matcher: %w", err)
			}
			all = append(all, m)
		case num == hintWantsStats && b == nil:
			stats = n != 0
		}
		return nil
	})
	if err != nil {
		return nil, false, errs.E(errs.Invalid, "hints: %w", err)
	}
	if len(all) > 0 {
		blocks, err = matchersFromPB(made, all)
	}
	return blocks, stats, err
}

// heardQueried is what the store gateways behind one call of Thanos say of what they read.
type heardQueried struct {
	began, first time.Time // first = the first series

	mu    sync.Mutex // guards soFar: a source may tell from any goroutine
	soFar []func() series.Queried
}

// listen returns a context for the sources of the call.
func (h *heardQueried) listen(ctx context.Context) context.Context {
	h.began = time.Now()
	return series.OnQueried(ctx, func(soFar func() series.Queried) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.soFar = append(h.soFar, soFar)
	})
}

// blocks are the hints of a response of type name that has no statistics; nil if no source serves blocks.
func (h *heardQueried) blocks(name string) *anypb.Any { return h.hints(name, nil) }

// statistics are the hints of a response that has that many series and chunks; nil if no source serves blocks, or
// nobody asked for them, which is a nil h.
func (h *heardQueried) statistics(name string, sent, chunks int) *anypb.Any {
	if h == nil {
		return nil
	}
	return h.hints(name, func(q series.Queried) []byte { return h.appendStats(nil, q, sent, chunks) })
}

func (h *heardQueried) hints(name string, stats func(series.Queried) []byte) *anypb.Any {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.soFar) == 0 {
		return nil
	}
	var sum series.Queried
	for _, soFar := range h.soFar {
		q := soFar()
		sum.Blocks = append(sum.Blocks, q.Blocks...)
		sum.Postings, sum.Series = sum.Postings.Plus(q.Postings), sum.Series.Plus(q.Series)
		sum.Chunks = sum.Chunks.Plus(q.Chunks)
	}
	slices.SortFunc(sum.Blocks, ulid.ULID.Compare)
	sum.Blocks = slices.Compact(sum.Blocks)
	var out []byte
	for _, id := range sum.Blocks {
		block := protowire.AppendString(protowire.AppendTag(nil, hintBlockID, protowire.BytesType), id.String())
		out = protowire.AppendBytes(protowire.AppendTag(out, hintQueriedBlocks, protowire.BytesType), block)
	}
	if stats != nil {
		out = protowire.AppendBytes(protowire.AppendTag(out, hintStats, protowire.BytesType), stats(sum))
	}
	return &anypb.Any{TypeUrl: hintsURL + name, Value: out}
}

// appendStats appends Thanos's QueryStats to dst.
func (h *heardQueried) appendStats(dst []byte, q series.Queried, sent, chunks int) []byte {
	number := func(field protowire.Number, v int64) {
		if v != 0 {
			dst = protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), uint64(v))
		}
	}
	// amount has touched, their size, those fetched, their size, and the reads. Postings have those to fetch before these.
	amount := func(first, fetched protowire.Number, a series.ReadAmount) {
		number(first, a.Touched)
		number(first+1, a.TouchedBytes)
		number(fetched+1, a.ReadBytes)
		number(fetched+2, a.Reads)
	}
	duration := func(field protowire.Number, d time.Duration) {
		var b []byte
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), uint64(d/time.Second))
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(d%time.Second))
		dst = protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
	}
	number(statBlocks, int64(len(q.Blocks)))
	number(statSeries, int64(sent))
	number(statChunks, int64(chunks))
	amount(statOfPostings, statOfPostings+3, q.Postings)
	amount(statOfSeries, statOfSeries+2, q.Series)
	amount(statOfChunks, statOfChunks+2, q.Chunks)
	number(statDownloaded, q.Postings.ReadBytes+q.Series.ReadBytes+q.Chunks.ReadBytes)
	now := time.Now()
	first := h.first
	if first.IsZero() {
		first = now
	}
	duration(statGetAll, first.Sub(h.began))
	duration(statMerge, now.Sub(first))
	return dst
}
