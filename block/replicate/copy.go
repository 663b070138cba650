package replicate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// copier copies one block.
type copier struct {
	*Replicator
	meta *block.Meta
	// taken is the request because of which the target deletes the block's tenant, nil if there is none.
	taken *deletion.Entry
	// marks are the names of the marks in the source, there of those in the target.
	marks, there []string
	// slots bounds how many objects are read and sent at once. turn is closed when all blocks before this one are done.
	slots chan struct{}
	turn  <-chan struct{}
	// seen says that an earlier pass has found the block whole, and the target still has it.
	seen bool

	mu  sync.Mutex // guards out.Objects and out.Bytes
	out Outcome
}

// run brings the block to the target:
//
//  1. compare each object with what the target has
//  2. remove the target's meta.json, if chunks or the index of the block must be written again
//  3. send what is missing or differs, chunks first, and check the size that arrived
//  4. write the marks that the target lacks: a block that is marked must not be seen without its mark
//  5. wait until all older blocks are done, and see that the source still has the same meta.json
//  6. write meta.json
//
// A mark for deletion that only the target has, beside no meta.json, is a deletion that is under way there: the block
// is left alone.
func (c *copier) run(ctx context.Context) Outcome {
	c.out.Block, c.out.Result = c.meta.ULID, Whole
	if err := c.copy(ctx); err != nil {
		c.out.err, c.out.Why = err, err.Error()
		switch errs.KindOf(err) {
		case errs.NotFound:
			c.out.Result = Gone
		case errs.Conflict:
			c.out.Result = Refused
		default:
			c.out.Result = Failed
		}
	}
	return c.out
}

func (c *copier) copy(ctx context.Context) error {
	if c.taken != nil {
		return errs.E(errs.Conflict, "tenant %q is deleted in the target (request %s)", c.taken.Tenant, c.taken.ID)
	}
	if c.seen {
		return c.copyMarks(ctx)
	}
	id := c.meta.ULID
	raw, err := c.read(ctx, c.source, block.MetaName)
	if err != nil {
		return err // NotFound: the source lost the block
	}
	meta, err := block.ReadMeta(bytes.NewReader(raw), id) // views lack some of it
	if err != nil {
		return err
	}
	c.meta = meta
	have, err := block.ObjectsOf(ctx, c.target, id)
	if err != nil {
		return err
	}
	exists := slices.Contains(have, block.MetaName)
	committed := false
	if exists {
		theirs, err := c.read(ctx, c.target, block.MetaName)
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
		committed = bytes.Equal(raw, theirs)
	} else if slices.Contains(c.there, block.DeletionMarkName) && !slices.Contains(c.marks, block.DeletionMarkName) {
		return errs.E(errs.Conflict, "the target deletes it")
	}
	send, err := c.toSend(ctx, have, committed)
	if err != nil {
		return err
	}
	if exists && slices.ContainsFunc(send, func(f file) bool { return inChunks(f.rel) || f.rel == block.IndexName }) {
		if err := c.target.Delete(ctx, block.Object(id, block.MetaName)); err != nil && !c.target.IsObjNotFoundErr(err) {
			return unavailable("remove", block.Object(id, block.MetaName), err)
		}
		committed = false
	}
	if err := c.sendAll(ctx, send); err != nil {
		return err
	}
	if err := c.copyMarks(ctx); err != nil {
		return err
	}
	switch {
	case committed && len(send) == 0:
		return nil
	case exists:
		c.out.Result = Repaired
	default:
		c.out.Result = Copied
	}
	if committed {
		return nil
	}
	return c.commit(ctx, raw)
}

// commit writes meta.json when it is the block's turn.
func (c *copier) commit(ctx context.Context, raw []byte) error {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err())
	}
	again, err := c.read(ctx, c.source, block.MetaName)
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, again) {
		return errs.E(errs.Unavailable, "meta.json in the source was written again meanwhile")
	}
	name := block.Object(c.meta.ULID, block.MetaName)
	if err := c.target.Upload(ctx, name, bytes.NewReader(raw)); err != nil {
		return unavailable("upload", name, err)
	}
	c.sent(0)
	return nil
}

// copyMarks writes the marks that the target lacks, as a whole or in part.
func (c *copier) copyMarks(ctx context.Context) error {
	for _, name := range c.marks {
		if c.seen && slices.Contains(c.there, name) {
			continue
		}
		raw, err := c.read(ctx, c.source, name)
		if errs.KindOf(err) == errs.NotFound {
			continue // it was removed meanwhile
		}
		wrote := false
		if err == nil {
			wrote, err = block.CopyMark(ctx, c.target, c.meta.ULID, name, raw)
		}
		if err != nil {
			return err
		}
		if wrote {
			c.sent(0)
		}
	}
	return nil
}

// file is a file of a block, with what is known of it.
type file struct {
	rel  string
	size int64
	sum  string // SHA-256 in hex, "" = not known
}

// toSend are the files that the target lacks, or has otherwise. committed says that its meta.json vouches for what has
// the right size.
func (c *copier) toSend(ctx context.Context, have []string, committed bool) ([]file, error) {
	id := c.meta.ULID
	names, err := block.ObjectsOf(ctx, c.source, id)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(rel string) bool { return rel == block.MetaName || block.IsMark(rel) })
	for _, f := range c.meta.Thanos.Files {
		if f.SizeBytes > 0 && !slices.Contains(names, f.RelPath) {
			return nil, c.lost(ctx, f.RelPath)
		}
	}
	order(names)
	needed := make([]file, len(names))
	g, gctx := errgroup.WithContext(ctx)
	for i, rel := range names {
		g.Go(func() error {
			release, err := c.slot(gctx)
			if err != nil {
				return err
			}
			defer release()
			f, err := c.describe(gctx, rel)
			if err != nil {
				return err
			}
			if slices.Contains(have, rel) {
				same, err := c.same(gctx, f, committed)
				if err != nil || same {
					return err
				}
			}
			needed[i] = f
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(needed, func(f file) bool { return f.rel == "" }), nil
}

// lost is the error of a file that meta.json lists and the source lacks: NotFound if the source deletes the block.
func (c *copier) lost(ctx context.Context, rel string) error {
	if _, err := c.read(ctx, c.source, block.MetaName); err != nil {
		return err
	}
	return errs.E(errs.Invalid, "the source lacks %s, which meta.json lists", block.Object(c.meta.ULID, rel))
}

// describe finds out the size of a file of the source.
func (c *copier) describe(ctx context.Context, rel string) (file, error) {
	f := file{rel: rel}
	for _, listed := range c.meta.Thanos.Files {
		if listed.RelPath == rel && listed.SizeBytes > 0 {
			f.size = listed.SizeBytes
			if listed.Hash != nil && strings.EqualFold(listed.Hash.Func, "SHA256") {
				f.sum = strings.ToLower(listed.Hash.Value)
			}
			return f, nil
		}
	}
	attrs, err := c.source.Attributes(ctx, block.Object(c.meta.ULID, rel))
	if err != nil {
		return f, c.fault(ctx, rel, err)
	}
	f.size = attrs.Size
	return f, nil
}

// fault is the error of reading a file of the source: if it is not there, the source may have lost the block.
func (c *copier) fault(ctx context.Context, rel string, err error) error {
	if c.source.IsObjNotFoundErr(err) {
		return c.lost(ctx, rel)
	}
	return unavailable("read", block.Object(c.meta.ULID, rel), err)
}

// same reports whether the target has the file. What a crash left may have the right size and other bytes, so without a
// meta.json that vouches for it both are read.
func (c *copier) same(ctx context.Context, f file, committed bool) (bool, error) {
	name := block.Object(c.meta.ULID, f.rel)
	attrs, err := c.target.Attributes(ctx, name)
	switch {
	case c.target.IsObjNotFoundErr(err):
		return false, nil
	case err != nil:
		return false, unavailable("look at", name, err)
	case attrs.Size != f.size:
		return false, nil
	case committed:
		return true, nil
	}
	want := f.sum
	if want == "" {
		if want, err = block.SumOf(c.source.Get(ctx, name)); err != nil {
			return false, c.fault(ctx, f.rel, err)
		}
	}
	got, err := block.SumOf(c.target.Get(ctx, name))
	if err != nil {
		return false, unavailable("read", name, err)
	}
	return got == want, nil
}

// sendAll copies files.
func (c *copier) sendAll(ctx context.Context, files []file) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, f := range files {
		release, err := c.slot(gctx) // in their order
		if err != nil {
			break // of another file, or of ctx
		}
		g.Go(func() error {
			defer release()
			return c.send(gctx, f)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return errs.Wrap(errs.Unavailable, ctx.Err())
}

// send copies one file.
func (c *copier) send(ctx context.Context, f file) error {
	name := block.Object(c.meta.ULID, f.rel)
	r, err := c.source.Get(ctx, name)
	if err != nil {
		return c.fault(ctx, f.rel, err)
	}
	defer r.Close()
	body := &counted{Reader: io.LimitReader(r, f.size), want: f.size, sum: sha256.New()}
	err = c.target.Upload(ctx, name, body)
	short := body.ended && body.n < f.size // then clients report an error of their own
	if more, _ := io.CopyN(io.Discard, r, 1); short || err == nil && more > 0 {
		return errs.E(errs.Invalid, "%s in the source has not the %d bytes that meta.json or the store says", name, f.size)
	}
	if err != nil {
		return unavailable("upload", name, err)
	}
	if sum := hex.EncodeToString(body.sum.Sum(nil)); f.sum != "" && f.sum != sum {
		return errs.E(errs.Invalid, "%s in the source has the checksum %s, meta.json says %s", name, sum, f.sum)
	}
	attrs, err := c.target.Attributes(ctx, name)
	if err != nil {
		return unavailable("look at", name, err)
	}
	if attrs.Size != f.size {
		return errs.E(errs.Unavailable, "%s has %d bytes in the target after %d were sent", name, attrs.Size, f.size)
	}
	c.sent(f.size)
	return nil
}

// sent counts an object.
func (c *copier) sent(bytes int64) {
	c.metrics.objects.Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Objects++
	c.out.Bytes += bytes
}

// slot waits until one more object may be under way.
func (c *copier) slot(ctx context.Context) (release func(), err error) {
	select {
	case c.slots <- struct{}{}:
		return func() { <-c.slots }, nil
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Unavailable, ctx.Err())
	}
}

// read returns a small object of the block: meta.json or a mark. Errors: NotFound, Invalid, Unavailable.
func (c *copier) read(ctx context.Context, bkt objstore.Bucket, rel string) ([]byte, error) {
	name := block.Object(c.meta.ULID, rel)
	r, err := bkt.Get(ctx, name)
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			return nil, errs.E(errs.NotFound, "%s: is not there", name)
		}
		return nil, unavailable("read", name, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, block.MaxMetaSize+1))
	switch {
	case err != nil:
		return nil, unavailable("read", name, err)
	case len(raw) > block.MaxMetaSize:
		return nil, errs.E(errs.Invalid, "%s: is larger than %d bytes", name, block.MaxMetaSize)
	}
	return raw, nil
}

// counted is a reader that says how much it will give, and counts and sums what it gave.
type counted struct {
	io.Reader
	want, n int64
	sum     hash.Hash
	ended   bool
}

// ObjectSize lets clients choose how they upload.
func (c *counted) ObjectSize() (int64, error) { return c.want, nil }

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	c.sum.Write(p[:n])
	c.ended = c.ended || err == io.EOF
	return n, err
}

func inChunks(rel string) bool { return strings.HasPrefix(rel, block.ChunksName+"/") }

// unavailable is the error of a bucket, unless it has a kind already.
func unavailable(doing, name string, err error) error {
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	return errs.E(errs.Unavailable, "%s %s: %w", doing, name, err)
}
