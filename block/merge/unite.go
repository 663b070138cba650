package merge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/xor"
)

// ErrRebuild says that downsampled chunks overlap and differ. They cannot be united: windows of both may count the same
// samples. The block must be downsampled again from blocks of the finer resolution. Its kind is Unsupported.
var ErrRebuild = errs.Wrap(errs.Unsupported,
	errors.New("downsampled chunks overlap: the block must be rebuilt from its inputs"))

// piece is a chunk of an input.
type piece struct {
	Chunk
	cursor   *cursor
	at       int // the place of the chunk in its series
	from, to int // in cursor.data
}

// stretch are equal chunks of several inputs, as a range of union.chunks: the first stands for all.
type stretch struct{ from, to int }

// union makes one list of chunks out of those of all inputs. It keeps its memory for the next series.
type union struct {
	opts   Options
	chunks []piece // of one series; merge sorts them
	kept   []stretch
	out    []Chunk
	enc    encoder
	floats floatUnion
	xor    xor.Writer
	// replicas is the number of HA replicas that the inputs are of.
	replicas int
	prev     stretch // what out ends with, if that was copied; empty = it was not
	result   Result
}

// merge returns the union of u.chunks: sorted by time, no two overlap. It is valid until the next call.
func (u *union) merge() ([]Chunk, error) {
	u.clip()
	if !slices.IsSortedFunc(u.chunks, comparePieces) {
		slices.SortFunc(u.chunks, comparePieces)
	}
	u.unite()
	u.out, u.prev = u.out[:0], stretch{}
	u.enc.reset()
	if u.replicas > 1 && u.replicasDiffer() {
		return u.dedup()
	}
	for i := 0; i < len(u.kept); {
		end := i + 1
		for maxt := u.first(i).MaxTime; end < len(u.kept) && u.first(end).MinTime <= maxt; end++ {
			maxt = max(maxt, u.first(end).MaxTime)
		}
		if p := u.first(i); end == i+1 && u.copyable(p) {
			u.copy(u.kept[i])
		} else if !u.encodeFloats(u.kept[i:end]) {
			if err := u.encode(u.kept[i:end]); err != nil {
				return nil, err
			}
		}
		i = end
	}
	u.result.Chunks += int64(len(u.out))
	return u.out, nil
}

func (u *union) first(kept int) *piece { return &u.chunks[u.kept[kept].from] }

// comparePieces orders chunks by time. Equal ones come next to each other, in the order of inputs.
func comparePieces(a, b piece) int {
	if c := cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.Encoding, b.Encoding), bytes.Compare(a.Data, b.Data),
		cmp.Compare(a.cursor.number, b.cursor.number), cmp.Compare(a.at, b.at))
}

// clip removes chunks that are outside the range as a whole, and those without samples.
func (u *union) clip() {
	u.chunks = slices.DeleteFunc(u.chunks, func(p piece) bool {
		n := samples(&p.Chunk)
		if p.MaxTime < u.opts.MinTime || p.MinTime >= u.opts.MaxTime {
			u.result.Clipped += n
			return true
		}
		return n == 0 && p.Encoding != byte(series.EncAggregates)
	})
}

// unite finds equal chunks.
func (u *union) unite() {
	u.kept = u.kept[:0]
	for i := range u.chunks {
		if n := len(u.kept); n > 0 && equal(u.first(n-1), &u.chunks[i]) {
			u.kept[n-1].to++
			u.result.Equal++
			continue
		}
		u.kept = append(u.kept, stretch{i, i + 1})
	}
}

func equal(a, b *piece) bool {
	return a.MinTime == b.MinTime && a.MaxTime == b.MaxTime && a.Encoding == b.Encoding && bytes.Equal(a.Data, b.Data)
}

// copyable reports whether a chunk that overlaps no other can stay as it is.
func (u *union) copyable(p *piece) bool {
	switch chunkenc.Encoding(p.Encoding) {
	case series.EncAggregates:
		return true
	case chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		return p.MinTime >= u.opts.MinTime && p.MaxTime < u.opts.MaxTime
	}
	return false
}

func (u *union) copy(s stretch) {
	p := &u.chunks[s.from]
	if e := chunkenc.Encoding(p.Encoding); e == chunkenc.EncHistogram || e == chunkenc.EncFloatHistogram {
		u.checkReset(s)
	}
	u.out = append(u.out, p.Chunk)
	u.result.Copied++
	u.prev = s
}

// checkReset makes the counter reset header of a chunk unknown, unless it is about the chunk before it in the result:
// it compares the chunk with the one before it in its block, and a reader believes it.
func (u *union) checkReset(s stretch) {
	data := u.chunks[s.from].Data
	header := chunkenc.CounterResetHeader(data[series.ResetFlags] & chunkenc.CounterResetHeaderMask)
	if header == chunkenc.UnknownCounterReset || header == chunkenc.GaugeType || u.follows(s) ||
		header == chunkenc.CounterReset && u.begins(s) {
		return
	}
	data[series.ResetFlags] &^= chunkenc.CounterResetHeaderMask
}

// follows reports whether the chunk before s in the result is the one before it in an input.
func (u *union) follows(s stretch) bool {
	for _, p := range u.chunks[s.from:s.to] {
		if len(u.out) == 0 && p.at == 0 {
			return true
		}
		for _, before := range u.chunks[u.prev.from:u.prev.to] {
			if before.cursor == p.cursor && before.at == p.at-1 {
				return true
			}
		}
	}
	return false
}

// begins reports whether s is the first chunk of a block, and all that is before it in the result is of blocks that end
// before that one begins. Then the sample that the header is about is most likely there.
func (u *union) begins(s stretch) bool {
	for _, p := range u.chunks[s.from:s.to] {
		if p.at != 0 {
			continue
		}
		behind := u.prev.from < u.prev.to
		for _, before := range u.chunks[:s.from] {
			behind = behind && before.cursor.max <= p.cursor.min
		}
		if behind {
			return true
		}
	}
	return false
}

// encode decodes chunks that overlap, and writes the union of their samples in encodings that every reader knows.
func (u *union) encode(kept []stretch) error {
	u.enc.in = u.enc.in[:0]
	for _, s := range kept {
		p := &u.chunks[s.from]
		if p.Encoding == byte(series.EncAggregates) {
			return ErrRebuild
		}
		u.enc.in = append(u.enc.in, rawChunk(p))
	}
	u.result.Decoded += int64(len(kept))
	u.prev = stretch{}
	var err error
	u.out, err = u.enc.encode(u.out, u.opts.MinTime, u.opts.MaxTime, &u.result.Clipped)
	if err != nil {
		return u.culprit(err, func(i int) ulid.ULID { return u.chunks[kept[i].from].cursor.id })
	}
	return nil
}

// replicasDiffer reports whether the series has chunks of several HA replicas, and chunks that overlap.
func (u *union) replicasDiffer() bool {
	if len(u.chunks) == 0 || !slices.ContainsFunc(u.chunks, func(p piece) bool {
		return p.cursor.replica != u.chunks[0].cursor.replica
	}) {
		return false
	}
	for i, last := 1, 0; i < len(u.kept); i++ { // last is the chunk that ends last
		if u.first(i).MinTime <= u.first(last).MaxTime {
			return true
		}
		if u.first(i).MaxTime > u.first(last).MaxTime {
			last = i
		}
	}
	return false
}

// dedup makes the series out of those of the HA replicas, as a whole: where one takes the place of another depends on
// all that came before.
func (u *union) dedup() ([]Chunk, error) {
	replicas := make([][]series.Chunk, u.replicas)
	u.enc.in = u.enc.in[:0]
	for i := range u.chunks {
		p := &u.chunks[i]
		if p.Encoding == byte(series.EncAggregates) {
			return nil, ErrRebuild
		}
		c := rawChunk(p)
		replicas[p.cursor.replica] = append(replicas[p.cursor.replica], c)
		u.enc.in = append(u.enc.in, c)
	}
	replicas = slices.DeleteFunc(replicas, func(c []series.Chunk) bool { return len(c) == 0 })
	u.result.Decoded += int64(len(u.chunks))
	var err error
	if u.out, err = u.enc.dedup(u.out, replicas, u.opts.MinTime, u.opts.MaxTime); err != nil {
		return nil, u.culprit(err, func(i int) ulid.ULID { return u.chunks[i].cursor.id })
	}
	u.result.Chunks += int64(len(u.out))
	return u.out, nil
}

func rawChunk(p *piece) series.Chunk {
	return series.Chunk{MinTime: p.MinTime, MaxTime: p.MaxTime,
		Raw: series.Encoded{Encoding: chunkenc.Encoding(p.Encoding), Data: p.Data}}
}

// culprit finds which of the chunks that were decoded is damaged. block is the block of each.
func (u *union) culprit(err error, block func(i int) ulid.ULID) error {
	for i, c := range u.enc.in {
		if fault := u.enc.decodes(c); fault != nil {
			return &inputError{block(i), errs.Wrap(errs.Invalid, fault)}
		}
	}
	return errs.Wrap(errs.Invalid, err)
}

// encodeFloats is encode for plain chunks of floats within the range. It is false, and has done nothing, for others.
func (u *union) encodeFloats(kept []stretch) bool {
	for _, s := range kept {
		if p := &u.chunks[s.from]; p.Encoding != byte(chunkenc.EncXOR) || !u.copyable(p) {
			return false
		}
	}
	u.floats.reset()
	for _, s := range kept {
		if !u.floats.add(&u.chunks[s.from].Chunk) {
			return false
		}
	}
	u.floats.unite()
	u.result.Decoded += int64(len(kept))
	u.floats.write(func(run int) {
		u.out = append(u.out, u.chunks[kept[run].from].Chunk)
		u.result.Copied++
	}, func(t []int64, v []float64) { u.out = encodeFloats(u.out, &u.xor, t, v) })
	u.prev = stretch{}
	return true
}

// samples is the number of samples of a chunk, as its header says; of a downsampled chunk it is that of its windows.
func samples(c *Chunk) int64 {
	data := c.Data
	if c.Encoding == byte(series.EncAggregates) {
		aggr, err := series.DecodeAggregates(data, [series.NumAggregates]bool{series.Count: true})
		if err != nil {
			return 0
		}
		data = aggr[series.Count].Data
	}
	if len(data) < 2 {
		return 0
	}
	n := binary.BigEndian.Uint16(data)
	if e := chunkenc.Encoding(c.Encoding); e == chunkenc.EncHistogramST || e == chunkenc.EncFloatHistogramST {
		n &= 1<<14 - 1 // the counter reset header is in the upper bits
	}
	return int64(n)
}
