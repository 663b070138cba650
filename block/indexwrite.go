package block

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// keepIndex is how long a content stays that the pointer no longer names. A reader that has just read the pointer needs
// seconds to read the content; a writer whose clock is behind that of the bucket must not delete what is new.
const keepIndex = time.Hour

// IndexPass is what one pass of a writer of the index found and did.
type IndexPass struct {
	// View is what the bucket holds. Its Number and Hash are those of the index that the bucket has after the pass.
	View View
	// Size is that of the content, in bytes.
	Size int64
	// Changed says that the content is another one than before, Overtaken that another writer has written what a later
	// listing found, so that this pass wrote nothing.
	Changed, Overtaken bool
	// Added and Removed count the blocks that the index before did not have, and those that it has no longer.
	Added, Removed int
	// Contents and Copies count the objects that were removed since nobody needs them: old contents, and Hearth's copies
	// of marks that were removed by other tools.
	Contents, Copies int
}

// WriteIndex lists the whole bucket and writes its index. bkt is the bucket of f. Any number of processes may do so at
// any time:
//
//  1. read the index that exists: its metas need not be read again
//  2. list Hearth's copies of marks, then the whole bucket, and read what is new
//  3. write the content, under the name that its hash is
//  4. read the pointer again. One that is of a later listing stays
//  5. write the pointer, with the next number
//  6. remove contents and copies of marks that nobody needs any more
//
// Two writers that are between 4 and 5 at once may give one number to two contents, and the last one stays. The other
// one's blocks are then read one by one by whoever does not know them. If the content is that of before, only the time
// in the pointer changes.
//
// A mark that cannot be read ends the pass with an error, since readers take the index for proof that there are no
// other marks. A block whose meta.json cannot be read is left out. Errors: Unavailable; Invalid, if the index is too
// large; Conflict, if the bucket is in Mimir's layout.
func (f *Fetcher) WriteIndex(ctx context.Context, bkt objstore.Bucket) (IndexPass, error) {
	began := f.opts.Now()
	fault := f.refresh(ctx)
	if f.index == nil { // else it is Hearth's already
		if err := MayAdd(ctx, bkt); err != nil {
			return IndexPass{}, err
		}
	}
	copies, err := listCopies(ctx, bkt)
	if err != nil {
		return IndexPass{}, unavailable("list %s: %w", marksFolder, err)
	}
	before := maps.Clone(f.known)
	found, err := f.listAll(ctx)
	if err != nil {
		return IndexPass{}, unavailable("list the bucket's blocks: %w", err)
	}
	pass := IndexPass{}
	if pass.View, err = f.view(ctx, found); err != nil {
		return IndexPass{}, err
	}
	if pass.View.Requests, err = f.asks.Read(ctx); err != nil {
		return IndexPass{}, err
	}
	for object, err := range pass.View.MarkFaults {
		if errs.KindOf(err) != errs.Invalid {
			return IndexPass{}, unavailable("index of the bucket: %s: %w", object, err)
		}
	}
	for id := range pass.View.Metas {
		if before[id] == nil {
			pass.Added++
		}
	}
	pass.Removed = len(before) + pass.Added - len(pass.View.Metas)
	ix := f.indexOf(pass.View, copies)
	if err := f.publish(ctx, bkt, ix, began, &pass); err != nil {
		return IndexPass{}, err
	}
	pass.View.IndexFault = fault
	f.save()
	if !pass.Overtaken {
		err = f.clean(ctx, bkt, copies, began, &pass)
	}
	return pass, err
}

// indexOf is the index of what v, the last view, has.
func (f *Fetcher) indexOf(v View, copies map[markKey]bool) bucketindex.Index {
	ix := bucketindex.Index{Blocks: make([]bucketindex.Block, 0, len(v.Metas))}
	for _, m := range v.Metas {
		ix.Blocks = append(ix.Blocks, m.essential())
	}
	for key, m := range f.marks {
		m.Own = copies[key]
		ix.Marks = append(ix.Marks, m)
	}
	for id, m := range f.missing {
		if errs.KindOf(m.err) == errs.NotFound { // others are faults, of which each reader is to learn by itself
			ix.Leftovers = append(ix.Leftovers, bucketindex.Leftover{ID: id, Since: m.since.UnixMilli()})
		}
	}
	ix.Sort()
	return ix
}

// publish is steps 3 to 5. f knows the index that the bucket has afterwards, unless the pass was overtaken.
func (f *Fetcher) publish(ctx context.Context, bkt objstore.Bucket, ix bucketindex.Index, began time.Time,
	pass *IndexPass) error {
	content, err := bucketindex.Encode(ix)
	if err != nil {
		return err
	}
	next := bucketindex.NewPointer(content, 0, began)
	pass.Changed = f.index == nil || f.index.pointer.Hash != next.Hash
	there := false
	if !pass.Changed {
		there, _ = bkt.Exists(ctx, next.Object())
	}
	// A content that is there by chance may be an old one, which another writer is about to remove.
	if !there {
		if err := bkt.Upload(ctx, next.Object(), bytes.NewReader(content)); err != nil {
			return unavailable("write %s: %w", next.Object(), err)
		}
	}
	now, err := readPointer(ctx, bkt)
	switch errs.KindOf(err) {
	case errs.OK, errs.NotFound, errs.Invalid:
	default:
		return err
	}
	switch {
	case now.Hash == next.Hash:
		next.Number = now.Number
	case now.Number > 0:
		next.Number = now.Number + 1
	default: // the first one, or the pointer was lost: so that numbers do not turn back, they begin with the time
		next.Number = uint64(max(began.Unix(), 1))
	}
	if now.Hash != next.Hash && now.UpdatedAt > next.UpdatedAt && now.UpdatedAt <= f.opts.Now().Add(maxAhead).UnixMilli() {
		pass.Overtaken = true
		pass.View.Number, pass.View.Hash, pass.Size = now.Number, now.Hash, now.Size
		return nil
	}
	if err := bkt.Upload(ctx, bucketindex.PointerName, bytes.NewReader(next.Encode())); err != nil {
		return unavailable("write %s: %w", bucketindex.PointerName, err)
	}
	pass.View.Number, pass.View.Hash, pass.Size = next.Number, next.Hash, next.Size
	if pass.Changed {
		f.unsaved++
	}
	f.index = &loadedIndex{next, ix.Rest}
	return nil
}

// clean is step 6. What cannot be looked at is left to the next pass.
func (f *Fetcher) clean(ctx context.Context, bkt objstore.Bucket, copies map[markKey]bool, began time.Time,
	pass *IndexPass) error {
	var faults []error
	drop := func(object string, count *int) {
		if err := remove(ctx, bkt, object); err != nil {
			faults = append(faults, err)
			return
		}
		*count++
	}
	for key := range copies {
		_, marked := f.marks[key]
		if _, faulty := pass.View.MarkFaults[Object(key.id, markNames[key.kind])]; !marked && !faulty {
			drop(markCopy(key), &pass.Copies)
		}
	}
	var old []string
	err := bkt.Iter(ctx, bucketindex.Folder, func(name string) error {
		if bucketindex.ContentName(name) && name != f.index.pointer.Object() {
			old = append(old, name)
		}
		return ctx.Err()
	})
	if err != nil {
		faults = append(faults, unavailable("list %s: %w", bucketindex.Folder, err))
	}
	for _, name := range old {
		attrs, err := bkt.Attributes(ctx, name)
		if err == nil && !attrs.LastModified.IsZero() && began.Sub(attrs.LastModified) > keepIndex {
			drop(name, &pass.Contents)
		}
	}
	return errors.Join(faults...)
}
