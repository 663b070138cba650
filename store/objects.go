package store

import (
	"context"
	"io"

	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/store/cache"
)

// objects reads parts of objects for requests.
type objects struct {
	bkt     objstore.BucketReader
	cache   *cache.Cache
	metrics *metrics
	hedges  *hedger
}

// file is a file of a block, as it is read.
type file struct {
	cache.File
	object string
	kind   cache.Kind // of what is read of it
}

// what is how metrics of reads call the bytes of the file.
func (f file) what() string {
	if f.kind == cache.Chunks {
		return ofChunks
	}
	return ofIndex
}

// The kinds of bytes that are read, as metrics name them.
const (
	ofIndex  = "index"
	ofChunks = "chunks"
)

// read returns parts of a file, which are in order of their starts, through the cache: nobody may change them. There is
// less of them where the file ends before. Errors: NotFound when the file is gone, Unavailable when the bucket does not
// answer.
func (o *objects) read(ctx context.Context, f file, parts ...index.Range) (*cache.View, error) {
	if err := ctx.Err(); err != nil { // the cache may have all, and nobody waits for it
		return nil, o.fault(ctx, f.object, err)
	}
	fetch := func(ctx context.Context, off int64, into [][]byte) (int64, error) {
		return o.hedges.read(ctx, f.what(), into, func(ctx context.Context, into [][]byte) (int64, error) {
			return o.fetch(ctx, f, off, into)
		})
	}
	return o.cache.Read(ctx, f.File, f.kind, parts, fetch)
}

// whole returns the bytes of a part that was read. It is an error of kind Invalid when the file ends before.
func (f file) whole(v *cache.View, part index.Range) ([]byte, error) {
	b, n := v.At(part.Start, part.End-part.Start), part.End-part.Start
	if int64(len(b)) < n {
		return nil, errs.E(errs.Invalid, "%s: %d bytes at %d, want %d", f.object, len(b), part.Start, n)
	}
	return b, nil
}

// fetch reads a file from off on into the buffers, in order, and returns how many bytes it read: fewer than they hold
// when the file ends. A read that failed, or that ended early, is made again: most faults of a bucket pass. A file of
// unknown size ends where two reads do.
func (o *objects) fetch(ctx context.Context, f file, off int64, into [][]byte) (int64, error) {
	want := length(into)
	last := int64(-1)
	for tries := 1; ; tries++ {
		got, err := o.fetchOnce(ctx, f, off, want, into)
		early := err == nil && got < want && off+got != f.Size && !(f.Size < 0 && got == last)
		if tries == mostReads || ctx.Err() != nil || !early && !passing(err) {
			return got, err
		}
		last = got
		o.metrics.retries.Inc()
	}
}

// length is how many bytes buffers hold.
func length(into [][]byte) (n int64) {
	for _, b := range into {
		n += int64(len(b))
	}
	return n
}

// mostReads is how often one part of a file is read, if the bucket fails.
const mostReads = 3

// fetchOnce reads the want bytes that the buffers hold.
func (o *objects) fetchOnce(ctx context.Context, f file, off, want int64, into [][]byte) (got int64, err error) {
	r, err := o.bkt.GetRange(ctx, f.object, off, want)
	switch {
	case err != nil && block.PastEnd(err):
		return 0, nil
	case err != nil:
		return 0, o.fault(ctx, f.object, err)
	}
	defer r.Close()
	for _, b := range into {
		var n int
		n, err = io.ReadFull(r, b)
		if got += int64(n); err != nil {
			break
		}
	}
	o.metrics.rangeReads.WithLabelValues(f.what()).Inc()
	o.metrics.bytesRead.WithLabelValues(f.what()).Add(float64(got))
	tallyOf(ctx).fetched[dataType(f.kind)].add(1, got)
	if err != nil && (ctx.Err() != nil || err != io.EOF && err != io.ErrUnexpectedEOF) {
		return got, o.fault(ctx, f.object, err)
	}
	return got, nil
}

func (o *objects) fault(ctx context.Context, object string, err error) error {
	kind := errs.Unavailable
	err = becauseOf(ctx, err)
	if o.bkt.IsObjNotFoundErr(err) {
		kind = errs.NotFound
	}
	return errs.E(kind, "%s: %w", object, err)
}
