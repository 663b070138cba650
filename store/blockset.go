package store

import (
	"context"
	"slices"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/store/cache"
)

const (
	// batchSeries is the size at which a batch of series ends, so that large ones take few reads.
	batchSeries = 10_000
	// batchBytes is the size of chunks at which a batch ends.
	batchBytes = 16 << 20
	// chunkListBytes is the memory that one chunk takes beside its data.
	chunkListBytes = int64(unsafe.Sizeof(series.Chunk{}) + unsafe.Sizeof(wanted{}))
)

// blockSet is one block's part of a select. While a batch of series is consumed, the next one is read.
//
// One goroutine at a time reads a batch: launch hands the fields of the first part over to it, and its result, which
// comes through ready, hands them back.
type blockSet struct {
	q        *request
	piece    piece
	index    *blockIndex
	chunks   *chunkReader
	matchers []*labels.Matcher
	hidden   rewrite.Hidden
	plain    bool // series are yielded as they are: limit and shard can be applied here
	resolved bool
	refs     []storage.SeriesRef // series that were not read yet
	late     []*condition        // what these must meet besides
	pending  []series.Series     // series that were read, without their chunks
	wanted   [][]wanted          // the chunks of pending
	size     int                 // of a batch
	builder  labels.ScratchBuilder
	bytes    int64 // memory of the labels and chunk lists of pending that is not counted yet

	ready    chan batch // of the batch being read; nil when there is none
	current  []series.Series
	at       int // 1-based
	err      error
	faults   series.Faults // of single series and chunks; while a batch is read, they belong to the reading goroutine
	warnings series.Warnings
}

// batch is the result of reading: series, and whether there may be more.
type batch struct {
	series []series.Series
	more   bool
	err    error
}

func newBlockSet(q *request, p piece, ms []*labels.Matcher, plain bool) *blockSet {
	s := &blockSet{
		q: q, piece: p, plain: plain, matchers: ms, size: batchSeries, hidden: q.hiddenIn(p.b.meta),
		index:  newBlockIndex(p.b, q.g.objects, q.lease),
		chunks: newChunkReader(p.b, q.g.objects, q.lease, q.Aggregates),
		faults: series.Faults{From: "block " + p.b.meta.ULID.String()},
	}
	if plain && q.Limit > 0 && q.Shard.Count == 0 {
		s.size = min(s.size, q.Limit)
	}
	return s
}

// launch begins to read the next batch.
func (s *blockSet) launch() {
	ready := make(chan batch, 1)
	s.ready = ready
	s.q.wg.Go(func() {
		b := batch{}
		if b.series, b.err = s.read(s.q.ctx); b.err != nil {
			b.err = s.q.g.judge(s.q.ctx, s.piece.b, b.err)
		}
		b.more = b.err == nil && (len(s.refs) > 0 || len(s.pending) > 0)
		ready <- b
	})
}

// first waits for the first batch, and returns its error. The batch stays for Next.
func (s *blockSet) first() error {
	b := <-s.ready
	s.ready <- b
	return b.err
}

func (s *blockSet) Next() bool {
	for s.at >= len(s.current) {
		if s.ready == nil {
			return false
		}
		b := <-s.ready
		s.ready, s.current, s.at = nil, b.series, 0
		if b.err != nil {
			s.fail(b.err)
			return false
		}
		if b.more {
			s.launch()
		}
	}
	s.at++
	return true
}

// fail ends the set. A block that is faulty or gone is a warning, since the data of the others are still good.
func (s *blockSet) fail(err error) {
	switch own := s.q.g.ofBlock(err); {
	case s.q.ctx.Err() != nil:
		s.err = errs.E(errs.Unavailable, "block %s: %w", s.piece.b.meta.ULID, s.q.ctx.Err())
	case own:
		m := missing{id: s.piece.b.meta.ULID, err: err}
		s.warnings = append(s.warnings, m.warning())
	default:
		s.err = err
	}
}

// ofBlock reports whether err is a fault of the one block that was read, and counts it. The block is faulty or gone; or
// a decoder failed (Internal) on bytes whose checksum is right; or the bucket delivers other objects and not this one.
func (g *Gateway) ofBlock(err error) bool {
	kind := errs.KindOf(err)
	g.metrics.blockFaults.WithLabelValues(kind.String()).Inc()
	return kind == errs.Invalid || kind == errs.NotFound || kind == errs.Internal || lostOf(err) != nil
}

func (s *blockSet) At() series.Series { return s.current[s.at-1] }
func (s *blockSet) Err() error        { return s.err }
func (s *blockSet) Close() error      { return nil } // the request ends its reads

// Warnings are complete once Next has returned false. Before, those of the batch that is being read are missing.
func (s *blockSet) Warnings() series.Warnings {
	if s.ready != nil {
		return nil
	}
	return append(slices.Clip(s.warnings), s.faults.Warnings()...)
}

// read returns the next batch, which is empty only at the end. Only the reading goroutine calls it.
func (s *blockSet) read(ctx context.Context) ([]series.Series, error) {
	done, err := s.q.lease.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if !s.resolved {
		s.resolved = true
		if err := s.resolve(ctx); err != nil {
			return nil, err
		}
	}
	for len(s.pending) == 0 && len(s.refs) > 0 {
		n, err := s.index.series(ctx, s.refs[:min(s.size, len(s.refs))], s.add, s.skip)
		if err != nil {
			return nil, err
		}
		if err := s.q.lease.take(ctx, s.bytes); err != nil {
			return nil, err
		}
		s.refs, s.bytes = s.refs[n:], 0
	}
	return s.withChunks(ctx)
}

// resolve finds the series that the matchers select: their references, or if they are kept all that the index has.
func (s *blockSet) resolve(ctx context.Context) error {
	if err := s.index.open(ctx); err != nil {
		return err
	}
	selected, err := s.index.matching(ctx, s.matchers)
	if err != nil {
		return err
	}
	all, known, err := s.index.entriesOf(ctx, selected)
	if err != nil {
		return err
	}
	if s.late = selected.late; !known {
		s.refs = selected.refs
	}
	for _, e := range all {
		if err := s.take(e); err != nil {
			return err
		}
	}
	if err := s.q.lease.take(ctx, s.bytes); err != nil {
		return err
	}
	s.bytes = 0
	return nil
}

// add takes one series of the index into pending, if it has chunks in time and meets late conditions.
func (s *blockSet) add(e *indexEntry) error {
	if !slices.ContainsFunc(e.chunks, s.inTime) {
		return nil
	}
	if ok, err := s.index.meets(s.q.ctx, e, s.late); !ok || err != nil {
		return err
	}
	ls, err := s.index.symbols.labels(s.q.ctx, e, &s.builder)
	if err != nil {
		return err
	}
	return s.take(cache.Entry{Labels: ls, Chunks: e.chunks})
}

// take takes a series into pending, if it has chunks in time that are not hidden, and is in the shard. What e has of
// memory may be used again, except for the labels.
func (s *blockSet) take(e cache.Entry) error {
	var times rewrite.Times
	if s.hidden.Deletions != nil {
		times = s.hidden.Times(e.Labels)
	}
	n := 0
	for _, m := range e.Chunks {
		if s.inTime(m) && !times.Hide(m.MinTime, m.MaxTime) {
			n++
		}
	}
	if n == 0 || s.plain && !s.q.Shard.Has(e.Labels) {
		return nil
	}
	read := n
	if s.q.SkipChunks {
		read = 0
	}
	if err := s.q.lease.selects(1, int64(read)); err != nil {
		return err
	}
	s.bytes += int64(e.Labels.ByteSize())
	if s.q.SkipChunks {
		s.pending, s.wanted = append(s.pending, series.Series{Labels: e.Labels}), append(s.wanted, nil)
		return nil
	}
	s.bytes += int64(n) * chunkListBytes
	out, want := make([]series.Chunk, 0, n), make([]wanted, 0, n)
	for _, m := range e.Chunks {
		if !s.inTime(m) || times.Hide(m.MinTime, m.MaxTime) {
			continue
		}
		out = append(out, series.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime})
		segment, offset := chunks.BlockChunkRef(m.Ref).Unpack()
		want = append(want, wanted{segment, offset, &out[len(out)-1]})
	}
	s.pending, s.wanted = append(s.pending, series.Series{Labels: e.Labels, Chunks: out}), append(s.wanted, want)
	return nil
}

func (s *blockSet) inTime(m chunks.Meta) bool {
	return m.MinTime <= s.q.MaxTime && m.MaxTime >= s.q.MinTime &&
		(s.piece.windows == nil || overlaps(s.piece.windows, m.MinTime, m.MaxTime))
}

// withChunks reads the chunks of the first pending series, up to about batchBytes, and returns these series.
func (s *blockSet) withChunks(ctx context.Context) ([]series.Series, error) {
	n, bytes := 0, int64(0)
	var want []wanted
	for n < len(s.pending) && (n == 0 || bytes < batchBytes) {
		bytes += s.estimate(s.wanted[n])
		want = append(want, s.wanted[n]...)
		n++
	}
	out := s.pending[:n:n]
	s.pending, s.wanted = s.pending[n:], s.wanted[n:]
	if len(want) == 0 {
		return out, nil
	}
	err := s.chunks.fill(ctx, want)
	for _, f := range s.chunks.takeFaults() {
		s.q.g.ofBlock(f)
		s.faults.Add("chunks", f.Error)
	}
	for i := range out {
		out[i].Chunks = slices.DeleteFunc(out[i].Chunks, func(c series.Chunk) bool {
			return c.Aggr == nil && len(c.Raw.Data) == 0
		})
	}
	return slices.DeleteFunc(out, func(s series.Series) bool { return len(s.Chunks) == 0 }), err
}

// skip leaves out an entry of the index that is faulty: the others are good.
func (s *blockSet) skip(err error) {
	s.q.g.ofBlock(err)
	s.faults.Add("series", err.Error)
}

// estimate returns about how many bytes the chunks of a series take: as a rule they lie one after another.
func (s *blockSet) estimate(ws []wanted) int64 {
	guess, sum := s.piece.b.chunkSize.size(), int64(0)
	for i, w := range ws {
		size := guess
		if i+1 < len(ws) && ws[i+1].segment == w.segment && ws[i+1].offset > w.offset {
			size = min(size, int64(ws[i+1].offset-w.offset))
		} else if i > 0 {
			size = min(size, sum/int64(i)+1)
		}
		sum += size
	}
	return sum
}
