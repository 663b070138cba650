package block

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// found is what a listing shows.
type found struct {
	blocks map[ulid.ULID]metaListed
	marks  map[markKey]markListed
	// In Mimir's layout: whose each block is, and who else has a directory of this name. Else they are nil.
	homes, clashes map[ulid.ULID]tenant.ID
}

// tell adds to the reasons of v whose the directories are, as far as the layout says it.
func (all *found) tell(v *View) {
	for id, err := range v.Partial {
		if home := all.homes[id]; home != "" {
			v.Partial[id] = OfTenant{home, err}
		}
	}
	for id, home := range all.clashes {
		v.Partial[id] = OfTenant{home, errs.E(errs.Invalid, "the bucket has another block of this id, of another tenant")}
	}
}

// metaListed says whether a listing shows the meta.json of a directory.
type metaListed uint8

const (
	noMeta  metaListed = iota // the directory has other objects only
	hasMeta                   // it has one
	anyMeta                   // the listing has names of directories only
)

// markListed is a mark that exists. mark is what it says, if that is known already; else object has it.
type markListed struct {
	object string
	mark   *bucketindex.Mark
}

// listAll finds all blocks and marks by listing the whole bucket. A provider that lists recursively is asked once, with
// a request for each thousand objects. Any other is asked once for each block. In a bucket that is a directory only the
// top of each block is read.
func (f *Fetcher) listAll(ctx context.Context) (*found, error) {
	all := &found{blocks: map[ulid.ULID]metaListed{}, marks: map[markKey]markListed{}}
	note := func(name string) error {
		id, ok := ParseID(name)
		if !ok || len(name) == ulid.EncodedSize {
			return ctx.Err()
		}
		rel := name[ulid.EncodedSize+1:]
		if rel == MetaName {
			all.blocks[id] = hasMeta
		} else if _, seen := all.blocks[id]; !seen {
			all.blocks[id] = noMeta
		}
		if kind, ok := markKind(rel); ok {
			all.marks[markKey{id, kind}] = markListed{object: name}
		}
		return ctx.Err()
	}
	if slices.Contains(f.bkt.SupportedIterOptions(), topFiles) {
		return all, f.bkt.Iter(ctx, "", note, withTopFiles())
	}
	if slices.Contains(f.bkt.SupportedIterOptions(), objstore.Recursive) {
		return all, f.bkt.Iter(ctx, "", note, objstore.WithRecursiveIter())
	}
	ids, err := directories(ctx, f.bkt)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards all
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opts.Concurrency)
	for _, id := range ids {
		g.Go(func() error {
			var names []string
			err := f.bkt.Iter(gctx, id.String()+objstore.DirDelim, func(name string) error {
				names = append(names, name)
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			for _, name := range names {
				_ = note(name)
			}
			return err
		})
	}
	return all, g.Wait()
}

// listNames finds the directories and Hearth's own marks by two listings, and takes the marks of other tools from the
// index. A mark of Hearth's own that the index has, and the folder no longer has, was removed since.
func (f *Fetcher) listNames(ctx context.Context) (*found, error) {
	copies, err := listCopies(ctx, f.bkt)
	if err != nil {
		return nil, err
	}
	ids, err := directories(ctx, f.bkt)
	if err != nil {
		return nil, err
	}
	all := &found{blocks: make(map[ulid.ULID]metaListed, len(ids)), marks: map[markKey]markListed{}}
	for _, id := range ids {
		all.blocks[id] = anyMeta
	}
	for i := range f.index.rest.Marks {
		m := &f.index.rest.Marks[i]
		_, there := all.blocks[m.ID]
		if key := (markKey{m.ID, m.Kind}); there && (!m.Own || copies[key]) {
			all.marks[key] = markListed{mark: m}
		}
	}
	for key := range copies {
		_, there := all.blocks[key.id]
		if _, known := all.marks[key]; there && !known {
			all.marks[key] = markListed{object: markCopy(key)}
		}
	}
	return all, nil
}

// directories lists the names at the root of the bucket that are those of blocks.
func directories(ctx context.Context, bkt objstore.BucketReader) (ids []ulid.ULID, err error) {
	err = bkt.Iter(ctx, "", func(name string) error {
		if id, ok := ParseID(name); ok && strings.HasSuffix(name, objstore.DirDelim) {
			ids = append(ids, id)
		}
		return ctx.Err()
	})
	return ids, err
}

// listCopies lists the folder of Hearth's own marks.
func listCopies(ctx context.Context, bkt objstore.BucketReader) (map[markKey]bool, error) {
	copies := map[markKey]bool{}
	err := bkt.Iter(ctx, marksFolder, func(name string) error {
		if key, ok := parseMarkCopy(name); ok {
			copies[key] = true
		}
		return ctx.Err()
	})
	return copies, err
}
