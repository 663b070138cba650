package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// The names in a bucket in Mimir's layout, which is Cortex's, too (docs/design/036-mimir-buckets.md).
const (
	mimirIndexName    = "bucket-index.json.gz" // of a tenant
	mimirMarks        = "markers/"             // of a tenant: a copy of each mark
	mimirDeleted      = "tenant-deletion-mark.json"
	mimirInternals    = "__mimir_cluster" // a name at the root that is no tenant's
	cortexMarks       = "__markers__"     // another one: the marks of tenants, by their names
	mimirIndexesAtOne = 8                 // how many indexes are read at once
	fewReads          = 4                 // up to this many objects are read one by one; for more the index is
)

// OfTenant is the reason of a directory that is no block, where the layout of the bucket says whose it is.
type OfTenant struct {
	Tenant tenant.ID
	error
}

// Unwrap returns the reason alone.
func (e OfTenant) Unwrap() error { return e.error }

// tenantListed is what a listing shows of one tenant.
type tenantListed struct {
	blocks []ulid.ULID
	marked []ulid.ULID // those with a deletion mark, and perhaps without a directory
}

// fetchTenants is Fetch of a bucket in Mimir's layout.
func (f *Fetcher) fetchTenants(ctx context.Context) (View, error) {
	f.load()
	tenants, err := listTenants(ctx, f.bkt, f.opts.Concurrency)
	if err != nil {
		return View{}, unavailable("list the bucket's tenants: %w", err)
	}
	found := f.gather(tenants)
	fault := f.readMimirIndexes(ctx, tenants, found)
	if err := ctx.Err(); err != nil {
		return View{}, unavailable("read the bucket's indexes: %w", err)
	}
	v, err := f.view(ctx, found)
	if err != nil {
		return View{}, err
	}
	v.IndexFault = fault
	f.save()
	return v, nil
}

// listTenants lists the blocks and marks of each tenant: marks first. Mimir marks a block when what replaces it is
// there, so whoever sees the mark sees that, too. Tenants that are marked for deletion are left out.
func listTenants(ctx context.Context, bkt objstore.BucketReader, concurrency int) (map[tenant.ID]tenantListed, error) {
	var names []tenant.ID
	cortex := false
	err := bkt.Iter(ctx, "", func(name string) error {
		dir, isDir := strings.CutSuffix(name, objstore.DirDelim)
		switch id, err := tenant.Parse(dir); {
		case dir == cortexMarks:
			cortex = true
		case isDir && err == nil && dir != mimirInternals: // what cannot be a tenant's name, nobody can ask for
			names = append(names, id)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	out := make(map[tenant.ID]tenantListed, len(names))
	var mu sync.Mutex // guards out
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for _, id := range names {
		g.Go(func() error {
			listed, deleted, err := listTenant(gctx, bkt, id)
			if err == nil && !deleted && cortex && len(listed.blocks) > 0 {
				deleted, err = bkt.Exists(gctx, cortexMarks+objstore.DirDelim+string(id)+objstore.DirDelim+mimirDeleted)
			}
			if err != nil {
				return fmt.Errorf("tenant %s: %w", id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !deleted {
				out[id] = listed
			}
			return nil
		})
	}
	return out, g.Wait()
}

// listTenant lists one tenant. deleted says that the tenant is marked for deletion.
func listTenant(ctx context.Context, bkt objstore.BucketReader, id tenant.ID) (t tenantListed, deleted bool,
	err error) {
	home := string(id) + objstore.DirDelim
	err = bkt.Iter(ctx, home+mimirMarks, func(name string) error {
		name = strings.TrimPrefix(name, home+mimirMarks)
		if name == mimirDeleted {
			deleted = true
		}
		if first, ok := strings.CutSuffix(name, "-"+DeletionMarkName); ok {
			if id, ok := ParseID(first); ok {
				t.marked = append(t.marked, id)
			}
		}
		return ctx.Err()
	})
	if err != nil || deleted {
		return tenantListed{}, deleted, err
	}
	err = bkt.Iter(ctx, home, func(name string) error {
		dir, isDir := strings.CutSuffix(strings.TrimPrefix(name, home), objstore.DirDelim)
		if id, ok := ParseID(dir); ok && isDir {
			t.blocks = append(t.blocks, id)
		}
		return ctx.Err()
	})
	return t, false, err
}

// gather makes of the tenants' listings one for the bucket. An id that two tenants have stays with the one whose block
// is known already; else the first one by name gets it. The other one's block is not served, since views, caches and
// local files know blocks by their ids.
func (f *Fetcher) gather(tenants map[tenant.ID]tenantListed) *found {
	all := &found{
		blocks: map[ulid.ULID]metaListed{}, marks: map[markKey]markListed{},
		homes: map[ulid.ULID]tenant.ID{}, clashes: map[ulid.ULID]tenant.ID{},
	}
	for _, id := range slices.Sorted(maps.Keys(tenants)) {
		for _, b := range tenants[id].blocks {
			first, twice := all.homes[b]
			switch known := f.known[b]; {
			case !twice:
				all.homes[b], all.blocks[b] = id, anyMeta
			case known != nil && known.home == id:
				all.homes[b], all.clashes[b] = id, first
			default:
				all.clashes[b] = id
			}
		}
	}
	for id, t := range tenants {
		for _, b := range t.marked {
			if all.homes[b] == id {
				object := string(id) + objstore.DirDelim + mimirMarks + b.String() + "-" + DeletionMarkName
				all.marks[markKey{b, bucketindex.Deletion}] = markListed{object: object}
			}
		}
	}
	return all
}

// readMimirIndexes takes from the tenants' indexes what is new in found, where this takes fewer reads than to read it
// one by one. The error is why one of them cannot be read: then its blocks are read one by one.
func (f *Fetcher) readMimirIndexes(ctx context.Context, tenants map[tenant.ID]tenantListed, found *found) error {
	now := f.opts.Now()
	var mu sync.Mutex // guards what follows, f and found; and only one index at a time is in memory inflated
	var faults []error
	var g errgroup.Group
	g.SetLimit(min(f.opts.Concurrency, mimirIndexesAtOne))
	for _, id := range slices.Sorted(maps.Keys(tenants)) {
		mu.Lock()
		news := f.newsOf(id, tenants[id], found, now)
		mu.Unlock()
		if len(news) <= fewReads {
			continue
		}
		g.Go(func() error {
			object := string(id) + objstore.DirDelim + mimirIndexName
			r, err := get(ctx, f.bkt, object)
			if errs.KindOf(err) == errs.NotFound { // the tenant is new
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				var ix mimirIndex
				if ix, err = readMimirIndex(r, func(b ulid.ULID) bool { return news[b] }); err == nil {
					err = f.takeMimir(id, ix, found)
				}
				if err = errors.Join(err, r.Close()); err != nil {
					err = unavailable("%s: %w", object, err)
				}
			}
			if err != nil {
				faults = append(faults, err)
			}
			return nil
		})
	}
	_ = g.Wait()
	if len(faults) == 0 {
		return nil
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if more := len(faults) - 1; more > 0 {
		return fmt.Errorf("%w; and those of %d other tenants", faults[0], more)
	}
	return faults[0]
}

// newsOf are the blocks of a tenant that are not known, and those with a mark that is not. Its caller holds what guards
// f and found.
func (f *Fetcher) newsOf(id tenant.ID, listed tenantListed, found *found, now time.Time) map[ulid.ULID]bool {
	news := map[ulid.ULID]bool{}
	for _, b := range listed.blocks {
		if found.homes[b] == id && f.knownOf(b, id) == nil && f.missing[b].due(b, now) {
			news[b] = true
		}
	}
	for _, b := range listed.marked {
		if _, had := f.marks[markKey{b, bucketindex.Deletion}]; !had && found.homes[b] == id {
			news[b] = true
		}
	}
	return news
}

// takeMimir makes known what the index of a tenant says. Its caller holds what guards f and found.
func (f *Fetcher) takeMimir(id tenant.ID, ix mimirIndex, found *found) error {
	var faults error
	for i := range ix.blocks {
		m, err := f.adopted(&ix.blocks[i], id)
		if err != nil {
			faults = err
			continue
		}
		f.known[m.ULID] = m
		delete(f.missing, m.ULID)
		f.unsaved++
	}
	for b, at := range ix.deleted {
		key := markKey{b, bucketindex.Deletion}
		if _, listed := found.marks[key]; listed {
			found.marks[key] = markListed{mark: &bucketindex.Mark{ID: b, Kind: bucketindex.Deletion, At: at}}
		}
	}
	return faults
}

// adopted is the meta of a block of a tenant in Mimir's layout. The directory says whose the block is, so the external
// labels count for nothing: Mimir and Cortex put there only what they need themselves, and show none of it. Sources
// count for nothing either. Of the shards of a split block each has the sources of all of it, so that they would hide
// each other; Mimir's compactor marks what it has replaced, and the index does not have them.
func (f *Fetcher) adopted(b *bucketindex.Block, id tenant.ID) (*Meta, error) {
	b.Labels = map[string]string{f.opts.TenantLabel: string(id)}
	b.Compaction.Sources, b.Origin = nil, nil
	m, err := metaOf(b, f.intern)
	if err == nil {
		m.home = id
	}
	return m, err
}

// knownOf returns the known meta of a block in the directory of a tenant; "" is the root.
func (f *Fetcher) knownOf(b ulid.ULID, home tenant.ID) *Meta {
	if m := f.known[b]; m != nil && m.home == home {
		return m
	}
	return nil
}

// errStop ends a listing that has shown enough.
var errStop = errors.New("seen enough")

// InMimirsLayout reports whether a bucket that has no blocks at its root has those of Mimir's tenants, or is the part
// of one tenant, opened with its name as the prefix. It looks at a hundred names at most, and at the first names in
// each.
func InMimirsLayout(ctx context.Context, bkt objstore.BucketReader) (bool, error) {
	const most = 100
	var dirs []string
	fault := func(err error) error {
		if err == nil || errors.Is(err, errStop) {
			return nil
		}
		return unavailable("is the bucket in Mimir's layout: %w", err)
	}
	look := func(dir string, f func(name string) error) error {
		n := 0
		return fault(bkt.Iter(ctx, dir, func(name string) error {
			if n++; n > most {
				return errStop
			}
			return f(strings.TrimPrefix(name, dir))
		}))
	}
	yes, err := bkt.Exists(ctx, mimirIndexName)
	if yes || err != nil {
		return yes, fault(err)
	}
	err = look("", func(name string) error {
		dir, isDir := strings.CutSuffix(name, objstore.DirDelim)
		if _, ok := ParseID(dir); ok {
			dirs = nil
			return errStop
		}
		if _, err := tenant.Parse(dir); isDir && err == nil && dir != ownFolder {
			dirs = append(dirs, name)
		}
		return nil
	})
	for _, dir := range dirs {
		if err != nil || yes {
			break
		}
		err = look(dir, func(name string) error {
			if _, ok := ParseID(name); ok && strings.HasSuffix(name, objstore.DirDelim) || name == mimirIndexName {
				yes = true
				return errStop
			}
			return nil
		})
	}
	return yes && err == nil, err
}

// MayAdd is an error of kind Conflict if the bucket is in Mimir's layout: nothing of Hearth's is ever written there.
func MayAdd(ctx context.Context, bkt objstore.BucketReader) error {
	yes, err := InMimirsLayout(ctx, bkt)
	if err == nil && yes {
		err = errs.E(errs.Conflict, "the bucket has blocks in the layout of Mimir and Cortex, into which Hearth never "+
			"writes: name another bucket, or a prefix of its own. hearth store --objstore.layout=mimir reads this one")
	}
	return err
}
