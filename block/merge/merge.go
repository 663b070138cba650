package merge

import (
	"bytes"
	"container/heap"
	"context"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxSeriesData bounds the chunks of one series of one input, in bytes: a series is in memory as a whole. Two weeks of
// histograms of two kilobytes, one every 15 seconds, have 160 MiB.
const maxSeriesData = 512 << 20

// checkEvery is how many series are merged between two looks at whether the context has ended.
const checkEvery = 256

// Run merges inputs into sink. It does not depend on their order. The scratch files of the inputs are gone before
// Sink.End is called. Errors:
//
//   - Invalid: an input is damaged. The text names its block and the object; BlockOf says which block it is.
//   - ErrRebuild: downsampled chunks of several inputs overlap.
//   - NotFound: an object of an input is not there, so the block was deleted or is incomplete.
//   - TooLarge: a series, or the output's index, is beyond what can be handled.
//   - Unavailable: the bucket does not answer, or ctx ended.
//   - those of the sink, and Internal for faults of the local disk.
func Run(ctx context.Context, inputs []Input, sink Sink, opts Options) (Result, error) {
	if err := opts.Validate(); err != nil {
		return Result{}, err
	}
	opts = opts.withDefaults(inputs)
	m := &merger{ctx: ctx, opts: opts, inputs: slices.Clone(inputs)}
	slices.SortFunc(m.inputs, func(a, b Input) int { return bytes.Compare(a.Meta.ULID[:], b.Meta.ULID[:]) })
	defer m.close()
	if err := m.open(); err != nil {
		return Result{}, err
	}
	if err := sink.Begin(m.table); err != nil {
		return Result{}, err
	}
	if err := m.series(sink); err != nil {
		return Result{}, err
	}
	m.closeInputs()
	return m.union.result, sink.End()
}

// BlockOf is the block that an error of Run is about; false if it is about none or several.
func BlockOf(err error) (ulid.ULID, bool) {
	for err != nil {
		if f, ok := err.(*inputError); ok {
			return f.id, true
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			break
		}
		err = u.Unwrap()
	}
	return ulid.ULID{}, false
}

// inputError names the block that an error is about.
type inputError struct {
	id  ulid.ULID
	err error
}

func (e *inputError) Error() string { return fmt.Sprintf("block %s: %v", e.id, e.err) }
func (e *inputError) Unwrap() error { return e.err }

// merger is one Run.
type merger struct {
	ctx     context.Context
	opts    Options
	inputs  []Input
	scans   []*indexScan
	table   *table
	cursors []*cursor
	heap    cursorHeap
	group   []*cursor // those that have the series that is merged
	union   union
	out     Series
}

// cursor is an input at one of its series.
type cursor struct {
	id       ulid.ULID
	number   int // of the input
	replica  int // inputs of one HA replica have the same number
	min, max int64
	scan     *indexScan
	refs     *refs
	chunks   *segments
	raw      []uint32 // symbols of the series, as the input numbers them
	before   []uint32 // raw of the series before
	labels   []uint32 // symbols of the series, as the merged table numbers them
	last     []uint32 // labels of the series before
	rest     []byte   // of the entry of the series
	metas    []chunkRef
	data     []byte // of the chunks of the series
	started  bool
}

// open opens all inputs, merges their symbols and goes to their first series.
func (m *merger) open() error {
	n := int64(max(len(m.inputs), 1))
	buffer := int(min(max(m.opts.Memory/2/n/2, 16<<10), 1<<20))
	for i, in := range m.inputs {
		f, err := in.files.index(m.ctx, m.opts.Scratch)
		if err != nil {
			return m.fault(i, err)
		}
		scan, err := openIndex(f, min(buffer, 256<<10))
		if err != nil {
			return m.fault(i, fmt.Errorf("%s: %w", block.IndexName, err))
		}
		m.scans = append(m.scans, scan)
	}
	var maps []*refs
	var err error
	m.table, maps, err = mergeSymbols(m.scans, m.opts.Scratch, m.opts.Memory/2, func(i int, err error) error {
		return m.fault(i, fmt.Errorf("%s: %w", block.IndexName, err))
	})
	if err != nil {
		return err
	}
	replicas := replicasOf(m.inputs, m.opts.ReplicaLabels)
	for i, in := range m.inputs {
		from, to := rangeOf(in.Meta)
		c := &cursor{id: in.Meta.ULID, number: i, replica: replicas[i], min: from, max: to, scan: m.scans[i], refs: maps[i],
			chunks: newSegments(m.ctx, in.files, buffer)}
		m.cursors = append(m.cursors, c)
		c.scan.startSeries()
		if err := m.advance(c); err != nil {
			return err
		}
	}
	m.union.opts, m.union.replicas = m.opts, slices.Max(append(replicas, 0))+1
	heap.Init(&m.heap)
	return nil
}

// replicasOf numbers the HA replicas that inputs are of, in order of the values of labels.
func replicasOf(inputs []Input, labels []string) []int {
	names := make([]string, len(inputs))
	for i, in := range inputs {
		for _, l := range labels {
			names[i] += in.Meta.Thanos.Labels[l] + "\xff"
		}
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(names)))
	out := make([]int, len(inputs))
	for i, n := range names {
		out[i], _ = slices.BinarySearch(distinct, n)
	}
	return out
}

// fault gives an error of an input its name.
func (m *merger) fault(input int, err error) error {
	return errs.Wrap(errs.KindOf(err), &inputError{m.inputs[input].Meta.ULID, err})
}

// advance moves c to its next series, and puts it into the heap if there is one.
func (m *merger) advance(c *cursor) error {
	more, err := c.next()
	if err != nil {
		return m.fault(c.number, fmt.Errorf("%s: %w", block.IndexName, err))
	}
	if more {
		m.heap = append(m.heap, c)
	}
	return nil
}

// next reads the labels of the next series.
func (c *cursor) next() (bool, error) {
	entry, err := c.scan.nextSeries()
	if err != nil || entry == nil {
		return false, err
	}
	c.raw, c.before = c.before[:0], c.raw
	c.labels, c.last = c.last[:0], c.labels
	if c.raw, c.rest, err = decodeLabels(c.raw, entry, c.scan.symbols); err != nil {
		return false, err
	}
	if len(c.raw) == 0 {
		return false, errs.E(errs.Invalid, "the series at %d has no labels", c.scan.w.off)
	}
	for i, s := range c.raw {
		n := uint32(0)
		if i < len(c.before) && s == c.before[i] { // the next series differs in few labels
			n = c.last[i]
		} else {
			n = c.refs.of(s)
		}
		if i%2 == 0 && i > 0 && n <= c.labels[i-2] {
			return false, errs.E(errs.Invalid, "label names of a series are not in order, or twice")
		}
		c.labels = append(c.labels, n)
	}
	if c.refs != nil && c.refs.list.err != nil {
		return false, c.refs.list.err
	}
	if c.started && slices.Compare(c.last, c.labels) >= 0 {
		return false, errs.E(errs.Invalid, "the series at %d is not after the one before it", c.scan.w.off)
	}
	c.started = true
	return true, nil
}

// load reads the chunks of the series, in the order in which the entry names them.
func (c *cursor) load() error {
	var err error
	if c.metas, err = decodeChunks(c.metas[:0], c.rest); err != nil {
		return fmt.Errorf("%s: %w", block.IndexName, err)
	}
	return nil
}

type cursorHeap []*cursor

func (h cursorHeap) Len() int { return len(h) }
func (h cursorHeap) Less(i, j int) bool {
	if c := slices.Compare(h[i].labels, h[j].labels); c != 0 {
		return c < 0
	}
	return h[i].number < h[j].number
}
func (h cursorHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *cursorHeap) Push(x any)   { *h = append(*h, x.(*cursor)) }
func (h *cursorHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// series merges all series into sink.
func (m *merger) series(sink Sink) error {
	for count := 0; len(m.heap) > 0; count++ {
		if count%checkEvery == 0 && m.ctx.Err() != nil {
			return m.ctx.Err()
		}
		m.group = m.group[:0]
		for len(m.heap) > 0 && (len(m.group) == 0 || slices.Equal(m.heap[0].labels, m.group[0].labels)) {
			m.group = append(m.group, heap.Pop(&m.heap).(*cursor))
		}
		if err := m.one(sink); err != nil {
			return err
		}
		for _, c := range m.group {
			more, err := c.next()
			if err != nil {
				return m.fault(c.number, fmt.Errorf("%s: %w", block.IndexName, err))
			}
			if more {
				heap.Push(&m.heap, c)
			}
		}
	}
	return nil
}

// one merges the series of m.group.
func (m *merger) one(sink Sink) error {
	m.union.chunks = m.union.chunks[:0]
	for _, c := range m.group {
		if err := m.load(c); err != nil {
			return m.fault(c.number, err)
		}
	}
	chunks, err := m.union.merge()
	if err != nil {
		return m.blame(err)
	}
	if len(chunks) == 0 {
		return nil
	}
	m.out = Series{Symbols: m.group[0].labels, Chunks: chunks}
	if err := sink.Add(&m.out); err != nil {
		return err
	}
	m.union.result.Series++
	return m.table.list.err
}

// load reads the chunks of c's series into the union.
func (m *merger) load(c *cursor) error {
	if err := c.load(); err != nil {
		return err
	}
	c.data = c.data[:0]
	first := len(m.union.chunks)
	for i, meta := range c.metas {
		from := len(c.data)
		data, enc, err := c.chunks.read(c.data, meta.ref)
		if err != nil {
			return err
		}
		if c.data = data; len(data) > maxSeriesData {
			return errs.E(errs.TooLarge, "a series of more than %d bytes", maxSeriesData)
		}
		m.union.chunks = append(m.union.chunks, piece{
			Chunk: Chunk{MinTime: meta.mint, MaxTime: meta.maxt, Encoding: enc}, cursor: c, at: i, from: from, to: len(data),
		})
	}
	for i := first; i < len(m.union.chunks); i++ { // c.data does not move any more
		p := &m.union.chunks[i]
		p.Data = c.data[p.from:p.to:p.to]
	}
	return nil
}

// blame names the inputs of a series whose union failed.
func (m *merger) blame(err error) error {
	if len(m.group) == 1 {
		return m.fault(m.group[0].number, err)
	}
	ids := make([]string, 0, len(m.group))
	for _, c := range m.group {
		ids = append(ids, c.id.String())
	}
	return fmt.Errorf("blocks %v: %w", ids, err)
}

func (m *merger) closeInputs() {
	for _, s := range m.scans {
		s.close()
	}
	for _, c := range m.cursors {
		c.chunks.close()
	}
	m.scans = nil
}

func (m *merger) close() {
	m.closeInputs()
	for _, c := range m.cursors {
		if c.refs != nil {
			c.refs.list.close()
		}
	}
	if m.table != nil {
		m.table.list.close()
	}
}
