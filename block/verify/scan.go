package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Scan reads all of the block m: each checksum, the order of series and chunks, and whether chunks are within the time
// of the block and overlap each other. deep decodes every chunk, too, and compares the samples with what the chunk and
// meta.json say. scratch is a directory for the index, which is fetched once, and for what merge.Run needs. Errors are
// of kind Unavailable: the block could not be read.
func Scan(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, scratch string,
	deep bool) (all []Finding, err error) {
	c := &checker{deep: deep}
	found := func(format string, args ...any) {
		all = append(all, Finding{Block: m.ULID, Issue: IndexKnownIssues, Text: fmt.Sprintf(format, args...)})
	}
	local, err := os.CreateTemp(scratch, "index-")
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	defer func() { err = errors.Join(err, local.Close(), os.Remove(local.Name())) }()
	err = indexOf(ctx, bkt, m, local)
	if err == nil {
		err = segmentsOf(ctx, bkt, m)
	}
	switch errs.KindOf(err) {
	case errs.OK:
	case errs.Invalid, errs.NotFound:
		found("%v", err)
		return all, nil
	default:
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	in := merge.FromBucket(bkt, m).WithIndex(local.Name())
	result, err := merge.Run(ctx, []merge.Input{in}, c, merge.Options{Scratch: scratch})
	switch kind := errs.KindOf(err); {
	case err == nil:
	case errors.Is(err, errFaulty), kind == errs.Invalid, kind == errs.NotFound:
		found("%v", err)
		return all, nil
	default:
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	if result.Clipped > 0 {
		found("%d samples are outside of the time of the block", result.Clipped)
	}
	if result.Equal > 0 {
		found("%d chunks are there twice", result.Equal)
	}
	if result.Clipped > 0 || result.Equal > 0 || result.Decoded > 0 {
		// What was put right on the way is not what the block says.
		if result.Decoded > 0 && result.Clipped == 0 {
			found("%d chunks overlap with others of their series, or have an encoding that not every reader knows",
				result.Decoded)
		}
		return all, nil
	}
	if s := m.Stats; s.NumSeries > 0 && (c.series != s.NumSeries || c.chunks != s.NumChunks) {
		found("it has %d series and %d chunks, meta.json says %d and %d", c.series, c.chunks, s.NumSeries, s.NumChunks)
	}
	if s := m.Stats; deep && !c.downsampled && s.NumSamples > 0 && c.samples != s.NumSamples {
		found("it has %d samples, meta.json says %d", c.samples, s.NumSamples)
	}
	return all, nil
}

// indexOf checks the index of a block byte by byte, and writes what it reads to local. Errors: Invalid, NotFound,
// Unavailable.
func indexOf(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, local io.Writer) (err error) {
	object := block.Object(m.ULID, block.IndexName)
	fail := func(err error) error {
		if bkt.IsObjNotFoundErr(err) {
			return errs.E(errs.NotFound, "%s: there is no such object", object)
		}
		if errs.KindOf(err) != errs.Invalid {
			err = errs.Wrap(errs.Unavailable, err)
		}
		return fmt.Errorf("%s: %w", object, err)
	}
	attrs, err := bkt.Attributes(ctx, object)
	if err != nil {
		return fail(err)
	}
	if attrs.Size < indexHeader+indexTOC {
		return errs.E(errs.Invalid, "%s has %d bytes", object, attrs.Size)
	}
	end, err := bkt.GetRange(ctx, object, attrs.Size-indexTOC, indexTOC)
	if err != nil {
		return fail(err)
	}
	toc, err := io.ReadAll(io.LimitReader(end, indexTOC))
	if err = errors.Join(err, end.Close()); err != nil {
		return fail(err)
	}
	r, err := bkt.Get(ctx, object)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	both := io.TeeReader(r, local)
	err = checkIndex(both, toc, attrs.Size)
	if err == nil {
		_, err = io.Copy(io.Discard, both) // the table of contents
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// segmentHeader is how each segment file begins: magic, version, and padding that no checksum covers.
var segmentHeader = []byte{0x85, 0xBD, 0x40, 0xDD, 1, 0, 0, 0}

// segmentsOf checks how the segment files of a block begin. Errors: Invalid, Unavailable.
func segmentsOf(ctx context.Context, bkt objstore.BucketReader, m *block.Meta) error {
	names, err := block.ObjectsOf(ctx, bkt, m.ULID)
	if err != nil {
		return err
	}
	for _, rel := range names {
		if !strings.HasPrefix(rel, block.ChunksName+"/") {
			continue
		}
		object := block.Object(m.ULID, rel)
		r, err := bkt.GetRange(ctx, object, 0, int64(len(segmentHeader)))
		if err != nil {
			return errs.E(errs.Unavailable, "%s: %w", object, err)
		}
		head, err := io.ReadAll(io.LimitReader(r, int64(len(segmentHeader))))
		if err = errors.Join(err, r.Close()); err != nil {
			return errs.E(errs.Unavailable, "%s: %w", object, err)
		}
		if !bytes.Equal(head, segmentHeader) {
			return errs.E(errs.Invalid, "%s begins with %x", object, head)
		}
	}
	return nil
}

// errFaulty is a fault that the checker itself found.
var errFaulty = errors.New("chunk")

// checker counts what a block has, and decodes it.
type checker struct {
	deep                    bool
	symbols                 merge.Symbols
	series, chunks, samples uint64
	downsampled             bool
	it                      chunkenc.Iterator
}

// Begin implements merge.Sink.
func (c *checker) Begin(symbols merge.Symbols) error { c.symbols = symbols; return nil }

// Add implements merge.Sink.
func (c *checker) Add(s *merge.Series) error {
	c.series++
	for i := range s.Chunks {
		c.chunks++
		aggregates := s.Chunks[i].Encoding == byte(series.EncAggregates)
		c.downsampled = c.downsampled || aggregates
		if !c.deep {
			continue
		}
		var err error
		if aggregates {
			_, err = series.DecodeAggregates(s.Chunks[i].Data, series.EveryAggregate)
		} else {
			err = c.decode(&s.Chunks[i])
		}
		if err != nil {
			return fmt.Errorf("%w %d of series %s: %w", errFaulty, i, c.labels(s), err)
		}
	}
	return nil
}

// End implements merge.Sink.
func (c *checker) End() error { return nil }

func (c *checker) labels(s *merge.Series) (text string) {
	for i := 0; i+1 < len(s.Symbols); i += 2 {
		text += fmt.Sprintf("%s=%q ", c.symbols.At(s.Symbols[i]), c.symbols.At(s.Symbols[i+1]))
	}
	return text
}

// decode reads all samples of a chunk.
func (c *checker) decode(k *merge.Chunk) (err error) {
	defer func() {
		if p := recover(); p != nil { // the checksum is right, and what it protects is not
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	e := series.Encoded{Encoding: chunkenc.Encoding(k.Encoding), Data: k.Data}
	if err := e.Check(); err != nil {
		return err
	}
	chunk, err := chunkenc.FromData(e.Encoding, e.Data)
	if err != nil {
		return err
	}
	c.it = chunk.Iterator(c.it)
	n, last := 0, int64(0)
	for c.it.Next() != chunkenc.ValNone {
		t := c.it.AtT()
		switch {
		case n == 0 && t != k.MinTime:
			return fmt.Errorf("its first sample is at %d, the index says %d", t, k.MinTime)
		case n > 0 && t <= last:
			return fmt.Errorf("a sample at %d comes after one at %d", t, last)
		}
		last = t
		n++
	}
	switch {
	case c.it.Err() != nil:
		return c.it.Err()
	case n != chunk.NumSamples():
		return fmt.Errorf("it has %d samples, and says %d", n, chunk.NumSamples())
	case n > 0 && last != k.MaxTime:
		return fmt.Errorf("its last sample is at %d, the index says %d", last, k.MaxTime)
	}
	c.samples += uint64(n)
	return nil
}
