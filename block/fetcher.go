package block

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// FetcherOptions adjust a Fetcher.
type FetcherOptions struct {
	// Concurrency is how many objects are read at once; 0 means 32.
	Concurrency int
	// CacheDir keeps the metas over a restart, in one file; "" means none.
	CacheDir string
	// MaxIndexAge is up to which age the bucket's index stands for the marks of other tools; 0 = never, each fetch lists
	// the whole bucket. It must be shorter than the age at which a mark has an effect on whoever uses the view.
	MaxIndexAge time.Duration
	// Mimir says that the bucket is in the layout of Mimir and Cortex. Each block gets the name of its tenant as its only
	// external label, TenantLabel.
	Mimir       bool
	TenantLabel string
	// Progress, if set, is called by Fetch after each object that it read, one call at a time.
	Progress func(done, of int)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Fetcher reads which blocks a bucket has. meta.json and marks never change once written, so each is read once: a fetch
// that finds nothing new costs only the listing.
//
// With an index that is young enough only the names of directories and the marks that Hearth wrote are listed. Metas
// and the marks of other tools come from the index. A directory that neither the index nor this process knows is read.
// Else the whole bucket is listed, and the index only saves reads.
type Fetcher struct {
	bkt  objstore.BucketReader
	opts FetcherOptions
	asks *deletion.Reader

	started bool                         // the local file was looked at
	known   map[ulid.ULID]*Meta          // of directories that the last listing showed, and those of the index before it
	marks   map[markKey]bucketindex.Mark // of the last view
	missing map[ulid.ULID]*missing       // directories without a valid meta.json
	doubted map[ulid.ULID]bool           // known blocks that a writer of the index saw without a meta.json
	index   *loadedIndex                 // nil if there is none
	intern  *interner
	saved   time.Time // when the local file was written
	unsaved int       // metas that were read since, and changes of the index
}

// loadedIndex is the bucket's index without its blocks, which are in Fetcher.known.
type loadedIndex struct {
	pointer bucketindex.Pointer
	rest    bucketindex.Rest
	blocks  int // how many it has; -1 = not known
}

// NewFetcher makes a Fetcher of bkt. It is not safe for concurrent use.
func NewFetcher(bkt objstore.BucketReader, opts FetcherOptions) *Fetcher {
	if opts.Concurrency <= 0 {
		opts.Concurrency = 32
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Fetcher{bkt: bkt, opts: opts, asks: deletion.NewReader(bkt), known: map[ulid.ULID]*Meta{},
		marks: map[markKey]bucketindex.Mark{}, missing: map[ulid.ULID]*missing{},
		doubted: map[ulid.ULID]bool{}, intern: newInterner()}
}

// Fetch returns what the bucket holds now. Only a failed listing is an error (kind Unavailable); faults of single
// blocks are in the View. Blocks leave the view only after a complete listing.
func (f *Fetcher) Fetch(ctx context.Context) (View, error) {
	if f.opts.Mimir {
		return f.fetchTenants(ctx)
	}
	fault := f.refresh(ctx)
	if err := ctx.Err(); err != nil {
		return View{}, unavailable("read the bucket's index: %w", err)
	}
	byIndex := f.indexCounts(f.opts.Now())
	list := f.listAll
	if byIndex {
		list = f.listNames
	}
	found, err := list(ctx)
	if err != nil {
		return View{}, unavailable("list the bucket's blocks: %w", err)
	}
	v, err := f.view(ctx, found)
	if err != nil {
		return View{}, err
	}
	// After the blocks: whoever sees a block that was shipped late sees the request for it.
	if v.Requests, err = f.asks.Read(ctx); err != nil {
		return View{}, err
	}
	if byIndex {
		v.Number, v.Hash = f.index.pointer.Number, f.index.pointer.Hash
	}
	v.IndexFault = fault
	f.save()
	return v, nil
}

// view reads what of found is not known yet, and makes the view of it.
func (f *Fetcher) view(ctx context.Context, found *found) (View, error) {
	now := f.opts.Now()
	v := newView(len(found.blocks))
	marks := map[markKey]bucketindex.Mark{}
	var todo []func(context.Context, *sync.Mutex) // what is to be read; the mutex guards f, v and marks
	deleted := f.newDeletions(found)
	for id, has := range found.blocks {
		home := found.homes[id]
		meta := f.knownOf(id, home)
		switch {
		case has == noMeta:
			v.Partial[id] = errNoMeta
			f.lost(id, errNoMeta, now)
		case meta != nil && (has == hasMeta || !f.doubted[id]):
			v.Metas[id] = meta
		case meta == nil && has == anyMeta && !deleted && !f.missing[id].due(id, now):
			v.Partial[id] = f.missing[id].err
		default:
			todo = append(todo, func(ctx context.Context, mu *sync.Mutex) { f.readMeta(ctx, &v, place{id, home}, mu) })
		}
	}
	for key, at := range found.marks {
		if at.mark != nil {
			marks[key] = *at.mark
		} else if m, ok := f.marks[key]; ok {
			marks[key] = m
		} else {
			todo = append(todo, func(ctx context.Context, mu *sync.Mutex) {
				m, err := readMark(ctx, f.bkt, at.object, key.id, key.kind)
				mu.Lock()
				defer mu.Unlock()
				switch errs.KindOf(err) {
				case errs.OK:
					marks[key] = m
				case errs.NotFound: // removed since the listing
				default:
					v.MarkFaults[at.object] = err
				}
			})
		}
	}
	f.run(ctx, todo)
	if err := ctx.Err(); err != nil {
		return View{}, unavailable("read the bucket's blocks: %w", err)
	}
	found.tell(&v)
	v.setMarks(marks)
	f.marks = marks
	f.prune(found)
	return v, nil
}

// newDeletions reports whether somebody marked blocks for deletion since the last view and the last index. What
// replaced them had its meta.json before, but the upload may have taken so long that its directory is not due. Without
// a look at it, views would have neither the one nor the others, and answers would lack samples without a word.
func (f *Fetcher) newDeletions(found *found) bool {
	for key, at := range found.marks {
		if _, had := f.marks[key]; key.kind == bucketindex.Deletion && at.mark == nil && !had {
			return true
		}
	}
	return false
}

// run does todo, several at a time.
func (f *Fetcher) run(ctx context.Context, todo []func(context.Context, *sync.Mutex)) {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(f.opts.Concurrency)
	done := 0
	for _, do := range todo {
		g.Go(func() error {
			do(ctx, &mu)
			mu.Lock()
			defer mu.Unlock()
			if done++; f.opts.Progress != nil {
				f.opts.Progress(done, len(todo))
			}
			return nil
		})
	}
	g.Wait()
}

// readMeta reads the meta.json of the block at a place into v, or why it cannot be read.
func (f *Fetcher) readMeta(ctx context.Context, v *View, at place, mu *sync.Mutex) {
	id := at.id
	m, err := at.meta(ctx, f.bkt)
	mu.Lock()
	defer mu.Unlock()
	if err == nil {
		b := m.essential()
		if f.opts.Mimir {
			m, err = f.adopted(&b, at.home)
		} else {
			m, err = metaOf(&b, f.intern)
		}
	}
	switch errs.KindOf(err) {
	case errs.OK:
		v.Metas[id], f.known[id] = m, m
		delete(f.missing, id)
		delete(f.doubted, id)
		f.unsaved++
	case errs.NotFound:
		err = errNoMeta
		fallthrough
	case errs.Invalid:
		v.Partial[id] = err
		f.lost(id, err, f.opts.Now())
		delete(f.known, id)
		delete(f.doubted, id)
	default:
		if m := f.knownOf(id, at.home); m != nil { // it was there before, and nothing says that it is gone
			v.Metas[id] = m
		} else {
			v.Partial[id] = err
			f.missing[id].retry()
		}
	}
}

// prune forgets what found does not have.
func (f *Fetcher) prune(found *found) {
	gone := func(id ulid.ULID) bool { has, ok := found.blocks[id]; return !ok || has == noMeta }
	maps.DeleteFunc(f.known, func(id ulid.ULID, _ *Meta) bool { return gone(id) })
	maps.DeleteFunc(f.doubted, func(id ulid.ULID, _ bool) bool { return f.known[id] == nil })
	maps.DeleteFunc(f.missing, func(id ulid.ULID, _ *missing) bool {
		_, ok := found.blocks[id]
		return !ok || f.known[id] != nil
	})
	if len(f.intern.sets)+len(f.intern.texts) > 2*len(f.known)+1000 { // most of it is of blocks that are gone
		f.intern = newInterner()
	}
}

// missing is a directory without a valid meta.json.
type missing struct {
	since  time.Time // when it was first seen so
	looked time.Time // when it was last looked at
	err    error
}

// maxLook is how long a directory without a meta.json is left alone at most. Who writes the index looks at all of them
// in each pass, so a block that was finished late is found by that earlier.
const maxLook = 6 * time.Hour

// lost notes that the directory id has no valid meta.json at the time at.
func (f *Fetcher) lost(id ulid.ULID, err error, at time.Time) {
	m := f.missing[id]
	if m == nil {
		m = &missing{since: at}
		f.missing[id] = m
	}
	m.looked, m.err = at, err
}

// note takes in that somebody else saw the directory without a meta.json, from since on and last at looked.
func (m *missing) note(since, looked time.Time) {
	if since.Before(m.since) {
		m.since = since
	}
	if looked.After(m.looked) {
		m.looked = looked
	}
}

// retry makes the directory due, since the bucket did not answer.
func (m *missing) retry() {
	if m != nil {
		m.looked = m.since
	}
}

// due reports whether the directory id is to be looked at. The longer it has been without a meta.json, the longer it is
// left alone: an upload takes minutes, and what was broken off stays so. Directories that were seen first by the same
// listing are spread over time by their ids.
func (m *missing) due(id ulid.ULID, now time.Time) bool {
	if m == nil {
		return true
	}
	wait := min(m.looked.Sub(m.since)/4, maxLook)
	wait -= wait / 2 * time.Duration(id[len(id)-1]) / 256
	return !now.Before(m.looked.Add(wait))
}
