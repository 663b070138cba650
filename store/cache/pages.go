package cache

import (
	"context"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// PageSize is the unit that is read and kept, in bytes.
const PageSize = 8 << 10

// File is one file of a block.
type File struct {
	Block  ulid.ULID
	Number int   // 0 is the index, others are files of chunks
	Size   int64 // in bytes; -1 if it is not known
}

// Fetch reads an object from off on into the buffers, in order, and returns how many bytes it read. Fewer than the
// buffers hold means that the object ends there. It may replace buffers by others of the same length.
type Fetch func(ctx context.Context, off int64, into [][]byte) (int64, error)

// flight is a page that is being read. data is set when done is closed; nil = the reader failed.
type flight struct {
	done chan struct{}
	data []byte
}

// Read returns the bytes [off, off+n) of f, fewer when the object ends before. What it returns is shared: nobody may
// change it. Errors are those of fetch, and that of ctx.
//
// A range that is larger than an eighth of the memory passes the cache by, and so does one that leaves the file as its
// Size says: then the size is wrong.
func (c *Cache) Read(ctx context.Context, f File, kind Kind, off, n int64, fetch Fetch) ([]byte, error) {
	if n <= 0 {
		return nil, nil
	}
	if !c.enabled[kind] || n > c.mostRead() || f.Size >= 0 && off+n > f.Size {
		return readAround(ctx, off, n, fetch)
	}
	r := reading{Cache: c, file: f, kind: kind, first: off / PageSize, fetch: fetch}
	r.pages = make([][]byte, (off+n-1)/PageSize-r.first+1)
	missing := 0
	for i := range r.pages {
		if data, ok := c.memory.get(r.key(i)).([]byte); ok {
			r.pages[i] = data
		} else {
			missing++
		}
	}
	found := len(r.pages) - missing
	if missing > 0 {
		shared, err := r.fill(ctx)
		if err != nil {
			return nil, err
		}
		found += shared
	}
	c.metrics.looked(kind, len(r.pages), found)
	return r.cut(off, n), nil
}

// mostRead is the largest range that goes through the cache, in bytes.
func (c *Cache) mostRead() int64 {
	most := c.opts.MaxBytes / 8
	if c.opts.Index != nil || c.opts.Chunks != nil {
		most = max(most, 4<<20)
	}
	return most
}

func readAround(ctx context.Context, off, n int64, fetch Fetch) ([]byte, error) {
	into := [][]byte{make([]byte, n)}
	got, err := fetch(ctx, off, into)
	if err != nil {
		return nil, err
	}
	return into[0][:got], nil
}

// reading is one Read that goes through the cache.
type reading struct {
	*Cache
	file  File
	kind  Kind
	first int64 // the number of the first page
	fetch Fetch
	pages [][]byte // nil = not there yet
}

func (r *reading) key(i int) key {
	return key{r.file.Block, pageKey, uint64(r.file.Number), uint64(r.first + int64(i))}
}

// length is how many bytes page i has.
func (r *reading) length(i int) int64 {
	if r.file.Size < 0 {
		return PageSize
	}
	return min(PageSize, r.file.Size-(r.first+int64(i))*PageSize)
}

// cut returns the bytes [off, off+n) of the pages.
func (r *reading) cut(off, n int64) []byte {
	begin := off - r.first*PageSize
	if len(r.pages) == 1 {
		size := int64(len(r.pages[0]))
		return r.pages[0][min(begin, size):min(begin+n, size):min(begin+n, size)]
	}
	out := make([]byte, 0, n)
	for _, page := range r.pages {
		out = append(out, page[min(begin, int64(len(page))):min(int64(len(page)), begin+n-int64(len(out)))]...)
		if begin = 0; int64(len(page)) < PageSize {
			break // the object ends
		}
	}
	return out
}

// fill reads the pages that are missing: those that nobody else reads from the shared server and then from the bucket;
// for the others it waits. It returns how many did not come from the bucket. A page whose reader fails is read here
// after all: that reader's caller may only have gone away.
func (r *reading) fill(ctx context.Context) (found int, err error) {
	mine, theirs := r.claim()
	found, err = r.load(ctx, mine)
	r.land(mine)
	if err != nil {
		return found, err
	}
	var again []int
	for _, i := range slices.Sorted(maps.Keys(theirs)) {
		f := theirs[i]
		select {
		case <-f.done:
		case <-ctx.Done():
			return found, errs.E(errs.Unavailable, "reading a block: %w", context.Cause(ctx))
		}
		if r.pages[i] = f.data; f.data == nil {
			again = append(again, i)
		} else {
			r.metrics.joined.Inc()
			found++
		}
	}
	more, err := r.load(ctx, again)
	return found + more, err
}

// claim divides the missing pages into those to read here, which others wait for from now on, and those that somebody
// reads already.
func (r *reading) claim() (mine []int, theirs map[int]*flight) {
	r.flightsMu.Lock()
	defer r.flightsMu.Unlock()
	for i, page := range r.pages {
		if page != nil {
			continue
		}
		if f := r.flights[r.key(i)]; f == nil {
			r.flights[r.key(i)] = &flight{done: make(chan struct{})}
			mine = append(mine, i)
		} else {
			if theirs == nil {
				theirs = map[int]*flight{}
			}
			theirs[i] = f
		}
	}
	return mine, theirs
}

// land ends the wait for the pages that were read here. What could not be read, or not whole, others read for
// themselves.
func (r *reading) land(mine []int) {
	r.flightsMu.Lock()
	defer r.flightsMu.Unlock()
	for _, i := range mine {
		f := r.flights[r.key(i)]
		delete(r.flights, r.key(i))
		if data := r.pages[i]; int64(len(data)) == r.length(i) {
			f.data = data
		}
		close(f.done)
	}
}

// load reads pages from the shared server, and what it lacks from the bucket. found are those that are not from the
// bucket.
func (r *reading) load(ctx context.Context, pages []int) (found int, err error) {
	missing := slices.DeleteFunc(slices.Clone(pages), func(i int) bool { // its reader may just have finished
		data, ok := r.memory.get(r.key(i)).([]byte)
		if ok {
			r.pages[i] = data
		}
		return ok
	})
	server, prefix := r.server(r.kind)
	if server != nil {
		missing = r.fromServer(ctx, server, prefix, missing)
	}
	var g errgroup.Group
	for _, run := range join(missing, r.opts.MaxReads) {
		g.Go(func() error { return r.fromBucket(ctx, run) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for _, i := range missing {
		if data := r.pages[i]; int64(len(data)) == r.length(i) {
			r.memory.put(r.key(i), r.kind, data, int64(len(data)))
			if server != nil {
				server.put(r.key(i).onServer(prefix), data)
			}
		}
	}
	return len(pages) - len(missing), nil
}

// fromServer takes what the server has of the pages, and returns those that it has not.
func (r *reading) fromServer(ctx context.Context, s *Server, prefix string, pages []int) (missing []int) {
	if len(pages) == 0 {
		return nil
	}
	keys := make([]string, len(pages))
	for at, i := range pages {
		keys[at] = r.key(i).onServer(prefix)
	}
	values := s.get(ctx, keys)
	for at, i := range pages {
		data := r.unseal(keys[at], values[keys[at]])
		if int64(len(data)) != r.length(i) {
			missing = append(missing, i)
			continue
		}
		r.pages[i] = make([]byte, len(data)) // what holds data is larger, and would stay with it
		copy(r.pages[i], data)
		r.memory.put(r.key(i), r.kind, r.pages[i], int64(len(data)))
	}
	return missing
}

// fromBucket reads the pages of a run that are not there yet. Others between them are read again and left.
func (r *reading) fromBucket(ctx context.Context, run run) error {
	into := make([][]byte, 0, run.end-run.begin)
	for i := run.begin; i < run.end; i++ {
		into = append(into, make([]byte, r.length(i)))
	}
	got, err := r.fetch(ctx, (r.first+int64(run.begin))*PageSize, into)
	if err != nil {
		return err
	}
	for at, b := range into {
		size := min(got, int64(len(b)))
		got -= size
		if i := run.begin + at; r.pages[i] == nil {
			r.pages[i] = b[:size:size]
		}
	}
	return nil
}

// run is the pages [begin, end) of a reading.
type run struct{ begin, end int }

// join makes ranges of pages of which at most reads are left: the smallest gaps are read, too.
func join(missing []int, reads int) []run {
	var runs []run
	for _, i := range missing {
		if n := len(runs); n > 0 && runs[n-1].end == i {
			runs[n-1].end++
		} else {
			runs = append(runs, run{i, i + 1})
		}
	}
	for len(runs) > reads {
		least := 1
		for i := 2; i < len(runs); i++ {
			if runs[i].begin-runs[i-1].end < runs[least].begin-runs[least-1].end {
				least = i
			}
		}
		runs[least-1].end = runs[least].end
		runs = append(runs[:least], runs[least+1:]...)
	}
	return runs
}
