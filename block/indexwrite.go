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
	same := true
	for id, m := range pass.View.Metas {
		if before[id] == nil {
			pass.Added++
		}
		same = same && before[id] == m
	}
	pass.Removed = len(before) + pass.Added - len(pass.View.Metas)
	next := nextIndex{bkt: bkt, view: pass.View, rest: f.restOf(copies), began: began}
	// before has all blocks of the index, so where the numbers are equal the blocks are.
	next.same = same && pass.Removed == 0 && f.index != nil && f.index.blocks == len(pass.View.Metas) &&
		f.index.rest.Equal(next.rest)
	if err := f.publish(ctx, &next, &pass); err != nil {
		return IndexPass{}, err
	}
	pass.View.IndexFault = fault
	f.save()
	if !pass.Overtaken {
		err = f.clean(ctx, bkt, copies, began, &pass)
	}
	return pass, err
}

// restOf is the rest of the index of the last view.
func (f *Fetcher) restOf(copies map[markKey]bool) (rest bucketindex.Rest) {
	for key, m := range f.marks {
		m.Own = copies[key]
		rest.Marks = append(rest.Marks, m)
	}
	for id, m := range f.missing {
		if errs.KindOf(m.err) == errs.NotFound { // others are faults, of which each reader is to learn by itself
			rest.Leftovers = append(rest.Leftovers, bucketindex.Leftover{ID: id, Since: m.since.UnixMilli()})
		}
	}
	rest.Sort()
	return rest
}

// nextIndex is the index of a view, the last one of its Fetcher.
type nextIndex struct {
	bkt   objstore.Bucket
	view  View
	rest  bucketindex.Rest
	same  bool // the index that the bucket has says the same
	began time.Time
}

// content is the index as bytes.
func (n *nextIndex) content() ([]byte, error) {
	ix := bucketindex.Index{Blocks: make([]bucketindex.Block, 0, len(n.view.Metas)), Rest: n.rest}
	for _, m := range n.view.Metas {
		ix.Blocks = append(ix.Blocks, m.essential())
	}
	ix.Sort()
	return bucketindex.Encode(ix)
}

// write is step 3. The content of an index that says the same is made only if it is gone: that takes half a second of
// CPU for 100,000 blocks.
func (n *nextIndex) write(ctx context.Context, before *loadedIndex) (bucketindex.Pointer, error) {
	there := func(p bucketindex.Pointer) bool {
		ok, err := n.bkt.Exists(ctx, p.Object())
		return ok && err == nil
	}
	if n.same {
		if p := before.pointer; there(p) {
			p.UpdatedAt = n.began.UnixMilli()
			return p, nil
		}
	}
	content, err := n.content()
	if err != nil {
		return bucketindex.Pointer{}, err
	}
	p := bucketindex.NewPointer(content, 0, n.began)
	// A content that is there by chance may be an old one, which another writer is about to remove.
	if before != nil && before.pointer.Hash == p.Hash && there(p) {
		return p, nil
	}
	if err := n.bkt.Upload(ctx, p.Object(), bytes.NewReader(content)); err != nil {
		return p, unavailable("write %s: %w", p.Object(), err)
	}
	return p, nil
}

// publish is steps 3 to 5. f knows the index that the bucket has afterwards, unless the pass was overtaken.
func (f *Fetcher) publish(ctx context.Context, n *nextIndex, pass *IndexPass) error {
	next, err := n.write(ctx, f.index)
	if err != nil {
		return err
	}
	pass.Changed = f.index == nil || f.index.pointer.Hash != next.Hash
	now, err := readPointer(ctx, n.bkt)
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
		next.Number = uint64(max(n.began.Unix(), 1))
	}
	if now.Hash != next.Hash && now.UpdatedAt > next.UpdatedAt && now.UpdatedAt <= f.opts.Now().Add(maxAhead).UnixMilli() {
		pass.Overtaken = true
		pass.View.Number, pass.View.Hash, pass.Size = now.Number, now.Hash, now.Size
		return nil
	}
	if err := n.bkt.Upload(ctx, bucketindex.PointerName, bytes.NewReader(next.Encode())); err != nil {
		return unavailable("write %s: %w", bucketindex.PointerName, err)
	}
	pass.View.Number, pass.View.Hash, pass.Size = next.Number, next.Hash, next.Size
	if pass.Changed {
		f.unsaved++
	}
	f.index = &loadedIndex{next, n.rest, len(n.view.Metas)}
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
