package block

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// View is what a bucket holds at one moment. Nobody changes it once Fetch has returned it.
type View struct {
	// Number and Hash name the index object that the view was made with (docs/format/bucket-index.md). They are 0 and ""
	// if the bucket has no index, or one that is too old; then the whole bucket was listed.
	Number uint64
	Hash   string
	// Metas are the blocks that exist: with a valid meta.json. They are shared between views: do not change them.
	Metas map[ulid.ULID]*Meta
	// The marks, of blocks with and without a meta.json.
	Deletions    map[ulid.ULID]DeletionMark
	NoCompact    map[ulid.ULID]NoCompactMark
	NoDownsample map[ulid.ULID]NoDownsampleMark
	// Partial are the directories that are no blocks, with the reason. NotFound: there is no meta.json, since an upload or
	// a deletion is under way or was broken off. Invalid: meta.json is faulty. Unavailable: it could not be read.
	Partial map[ulid.ULID]error
	// MarkFaults are the blocks with a mark that could not be read, by the object's name.
	MarkFaults map[string]error
}

// FetcherOptions adjust a Fetcher.
type FetcherOptions struct {
	// Concurrency is how many objects are read at once; 0 means 32.
	Concurrency int
	// CacheDir keeps meta.json files over a restart, as <CacheDir>/<ULID>/meta.json; "" means none.
	CacheDir string
}

// Fetcher reads which blocks a bucket has. meta.json and marks never change once written, so each is read once: a fetch
// that finds nothing new costs only the listing.
type Fetcher struct {
	bkt  objstore.BucketReader
	opts FetcherOptions

	metas        map[ulid.ULID]*Meta
	deletions    map[ulid.ULID]DeletionMark
	noCompact    map[ulid.ULID]NoCompactMark
	noDownsample map[ulid.ULID]NoDownsampleMark
}

// NewFetcher makes a Fetcher of bkt. It is not safe for concurrent use.
func NewFetcher(bkt objstore.BucketReader, opts FetcherOptions) *Fetcher {
	if opts.Concurrency <= 0 {
		opts.Concurrency = 32
	}
	return &Fetcher{bkt: bkt, opts: opts}
}

// present says which of the small objects of one block the listing showed.
type present struct {
	meta, deletion, noCompact, noDownsample bool
}

// Fetch returns what the bucket holds now. Only a failed listing is an error (kind Unavailable); faults of single
// blocks are in the View.
func (f *Fetcher) Fetch(ctx context.Context) (View, error) {
	found, err := f.listing(ctx)
	if err != nil {
		return View{}, unavailable("list the bucket's blocks: %w", err)
	}
	v := View{
		Metas: make(map[ulid.ULID]*Meta, len(found)), Deletions: map[ulid.ULID]DeletionMark{},
		NoCompact: map[ulid.ULID]NoCompactMark{}, NoDownsample: map[ulid.ULID]NoDownsampleMark{},
		Partial: map[ulid.ULID]error{}, MarkFaults: map[string]error{},
	}
	var mu sync.Mutex // guards v
	var g errgroup.Group
	g.SetLimit(f.opts.Concurrency)
	for id, has := range found {
		f.reuse(&v, id, has, &mu)
		g.Go(func() error { f.read(ctx, &v, id, has, &mu); return nil })
	}
	g.Wait()
	if err := ctx.Err(); err != nil {
		return View{}, unavailable("read the bucket's blocks: %w", err)
	}
	f.metas, f.deletions, f.noCompact, f.noDownsample = v.Metas, v.Deletions, v.NoCompact, v.NoDownsample
	f.dropCached(v.Metas)
	return View{
		Metas: maps.Clone(v.Metas), Deletions: maps.Clone(v.Deletions), NoCompact: maps.Clone(v.NoCompact),
		NoDownsample: maps.Clone(v.NoDownsample), Partial: v.Partial, MarkFaults: v.MarkFaults,
	}, nil
}

// reuse copies what the last fetch knew of a block and the listing still shows.
func (f *Fetcher) reuse(v *View, id ulid.ULID, has present, mu *sync.Mutex) {
	mu.Lock()
	defer mu.Unlock()
	if m, ok := f.metas[id]; ok && has.meta {
		v.Metas[id] = m
	}
	if m, ok := f.deletions[id]; ok && has.deletion {
		v.Deletions[id] = m
	}
	if m, ok := f.noCompact[id]; ok && has.noCompact {
		v.NoCompact[id] = m
	}
	if m, ok := f.noDownsample[id]; ok && has.noDownsample {
		v.NoDownsample[id] = m
	}
}

// read fetches what the listing shows of a block and the last fetch did not know.
func (f *Fetcher) read(ctx context.Context, v *View, id ulid.ULID, has present, mu *sync.Mutex) {
	if _, known := f.metas[id]; !known || !has.meta {
		meta, err := f.meta(ctx, id, has.meta)
		mu.Lock()
		if err != nil {
			v.Partial[id] = err
		} else {
			v.Metas[id] = meta
		}
		mu.Unlock()
	}
	if _, known := f.deletions[id]; has.deletion && !known {
		m, err := ReadDeletionMark(ctx, f.bkt, id)
		addMark(v, mu, Object(id, DeletionMarkName), err, func() { v.Deletions[id] = m })
	}
	if _, known := f.noCompact[id]; has.noCompact && !known {
		m, err := ReadNoCompactMark(ctx, f.bkt, id)
		addMark(v, mu, Object(id, NoCompactMarkName), err, func() { v.NoCompact[id] = m })
	}
	if _, known := f.noDownsample[id]; has.noDownsample && !known {
		m, err := ReadNoDownsampleMark(ctx, f.bkt, id)
		addMark(v, mu, Object(id, NoDownsampleMarkName), err, func() { v.NoDownsample[id] = m })
	}
}

// addMark notes a mark that was read, or why it could not be read.
func addMark(v *View, mu *sync.Mutex, object string, err error, add func()) {
	mu.Lock()
	defer mu.Unlock()
	switch errs.KindOf(err) {
	case errs.OK:
		add()
	case errs.NotFound: // removed since the listing
	default:
		v.MarkFaults[object] = err
	}
}

func (f *Fetcher) meta(ctx context.Context, id ulid.ULID, listed bool) (*Meta, error) {
	if !listed {
		return nil, errs.E(errs.NotFound, "block %s has no meta.json", id)
	}
	if f.opts.CacheDir == "" {
		return FetchMeta(ctx, f.bkt, id)
	}
	path := filepath.Join(f.opts.CacheDir, id.String(), MetaName)
	if b, err := os.ReadFile(path); err == nil {
		if m, err := ReadMeta(bytes.NewReader(b), id); err == nil {
			return m, nil
		}
	}
	m, err := FetchMeta(ctx, f.bkt, id)
	if err == nil {
		_ = cacheMeta(path, m) // a cache that cannot be written costs reads, not correctness
	}
	return m, err
}

func cacheMeta(path string, m *Meta) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	// Not synced: a file that a crash cuts short is read as invalid and fetched again, and a gateway has many of them.
	tmp := path + atomicfile.Suffix
	if err := os.WriteFile(tmp, b, 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// dropCached removes the cached files of blocks that are gone.
func (f *Fetcher) dropCached(keep map[ulid.ULID]*Meta) {
	if f.opts.CacheDir == "" {
		return
	}
	entries, err := os.ReadDir(f.opts.CacheDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if id, ok := ParseID(e.Name()); ok && keep[id] == nil {
			dir := filepath.Join(f.opts.CacheDir, e.Name())
			_ = os.Remove(filepath.Join(dir, MetaName))
			_ = os.Remove(filepath.Join(dir, MetaName+atomicfile.Suffix))
			_ = os.Remove(dir) // fails unless it is empty: other files in it are not the fetcher's
		}
	}
}

// listing finds the blocks and their small objects. A provider that lists recursively is asked once, with a request for
// each thousand objects. Any other is asked once for each block.
func (f *Fetcher) listing(ctx context.Context) (map[ulid.ULID]present, error) {
	found := map[ulid.ULID]present{}
	note := func(name string) error {
		if id, ok := ParseID(name); ok && len(name) > ulid.EncodedSize {
			has := found[id]
			switch name[ulid.EncodedSize+1:] {
			case MetaName:
				has.meta = true
			case DeletionMarkName:
				has.deletion = true
			case NoCompactMarkName:
				has.noCompact = true
			case NoDownsampleMarkName:
				has.noDownsample = true
			}
			found[id] = has
		}
		return ctx.Err()
	}
	if slices.Contains(f.bkt.SupportedIterOptions(), objstore.Recursive) {
		return found, f.bkt.Iter(ctx, "", note, objstore.WithRecursiveIter())
	}
	var dirs []string
	if err := f.bkt.Iter(ctx, "", func(name string) error {
		if _, ok := ParseID(name); ok && strings.HasSuffix(name, objstore.DirDelim) {
			dirs = append(dirs, name)
		}
		return ctx.Err()
	}); err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards found
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opts.Concurrency)
	for _, dir := range dirs {
		g.Go(func() error {
			var names []string
			err := f.bkt.Iter(gctx, dir, func(name string) error { names = append(names, name); return nil })
			mu.Lock()
			defer mu.Unlock()
			for _, name := range names {
				_ = note(name)
			}
			return err
		})
	}
	return found, g.Wait()
}
