package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// maxAhead is how far the clock of a writer of the index may be ahead. An index from further in the future would never
// get too old.
const maxAhead = 10 * time.Minute

// HasIndex reports whether the bucket has an index of Hearth's. Its error is of kind Unavailable.
func HasIndex(ctx context.Context, bkt objstore.BucketReader) (bool, error) {
	there, err := bkt.Exists(ctx, bucketindex.PointerName)
	if err != nil {
		return false, unavailable("look for %s: %w", bucketindex.PointerName, err)
	}
	return there, nil
}

// indexCounts reports whether the index stands for the marks of other tools at the time now.
func (f *Fetcher) indexCounts(now time.Time) bool {
	if f.index == nil {
		return false
	}
	age := now.Sub(f.index.pointer.Updated())
	return age <= f.opts.MaxIndexAge && f.opts.MaxIndexAge > 0 && age >= -maxAhead
}

// refresh brings f.index up to date with the bucket. After an error f has the index of before, which gets older.
func (f *Fetcher) refresh(ctx context.Context) error {
	f.load()
	p, err := readPointer(ctx, f.bkt)
	switch {
	case errs.KindOf(err) == errs.NotFound:
		f.index = nil
		return nil
	case err != nil:
		return err
	case f.index != nil && f.index.pointer.Hash == p.Hash:
		f.index.pointer = p
		return nil
	}
	p, content, err := readContent(ctx, f.bkt, p)
	if err != nil {
		return err
	}
	first := len(f.known) == 0
	rest, blocks, err := f.decode(content)
	if err != nil {
		return err
	}
	f.take(p, rest, blocks)
	f.unsaved++
	if first { // then the file need not be made anew of what has just been decoded
		f.write(p, content)
	}
	return nil
}

// decode adds the blocks of an index to f.known, and returns the rest of it and how many there are. A faulty content
// changes nothing.
func (f *Fetcher) decode(content []byte) (rest bucketindex.Rest, blocks int, err error) {
	metas := map[ulid.ULID]*Meta{}
	var fault error
	rest, err = bucketindex.Decode(content, func(b *bucketindex.Block) {
		blocks++
		if f.known[b.ULID] != nil {
			return
		}
		m, err := metaOf(b, f.intern)
		if err != nil {
			fault = err
			return
		}
		if f.opts.Mimir { // what the local file says is believed only of the tenant whose directory it is
			m.home = tenant.ID(m.Thanos.Labels[f.opts.TenantLabel])
		}
		metas[b.ULID] = m
	})
	if err = errors.Join(err, fault); err != nil {
		return bucketindex.Rest{}, 0, err
	}
	if len(f.known) == 0 {
		f.known = metas
	} else {
		maps.Copy(f.known, metas)
	}
	return rest, blocks, nil
}

// take makes the index that p names the present one. blocks is how many it has, or -1.
func (f *Fetcher) take(p bucketindex.Pointer, rest bucketindex.Rest, blocks int) {
	f.index = &loadedIndex{p, rest, blocks}
	clear(f.doubted)
	for _, l := range rest.Leftovers {
		if f.known[l.ID] != nil {
			f.doubted[l.ID] = true
		} else if m := f.missing[l.ID]; m == nil {
			f.missing[l.ID] = &missing{time.UnixMilli(l.Since), p.Updated(), errNoMeta}
		} else {
			m.note(time.UnixMilli(l.Since), p.Updated())
		}
	}
}

// readPointer returns the pointer of the bucket's index. Errors: NotFound without one; Invalid, then the pointer has
// its number if that can be read; Unavailable.
func readPointer(ctx context.Context, bkt objstore.BucketReader) (bucketindex.Pointer, error) {
	b, err := readSmall(ctx, bkt, bucketindex.PointerName, bucketindex.MaxPointerSize+1)
	if err != nil {
		return bucketindex.Pointer{}, err
	}
	return bucketindex.ParsePointer(b)
}

// readContent returns the content that p names, and p. If it is gone, it was replaced long ago: then the pointer is
// read again, and what that names now counts. Errors: Invalid, Unavailable; NotFound if there is none any more.
func readContent(ctx context.Context, bkt objstore.BucketReader, p bucketindex.Pointer) (bucketindex.Pointer, []byte,
	error) {
	content, err := readSmall(ctx, bkt, p.Object(), p.Size+1)
	if errs.KindOf(err) == errs.NotFound {
		if p, err = readPointer(ctx, bkt); err == nil {
			content, err = readSmall(ctx, bkt, p.Object(), p.Size+1)
		}
	}
	if err == nil {
		err = p.Check(content)
	}
	if err != nil {
		return p, nil, fmt.Errorf("index of the bucket: %w", err)
	}
	return p, content, nil
}

// readSmall returns at most limit bytes of an object. Errors: NotFound, Unavailable.
func readSmall(ctx context.Context, bkt objstore.BucketReader, name string, limit int64) (b []byte, err error) {
	r, err := get(ctx, bkt, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if b, err = io.ReadAll(io.LimitReader(r, limit)); err != nil {
		return nil, unavailable("%s: %w", name, err)
	}
	return b, nil
}
