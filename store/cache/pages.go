package cache

import (
	"context"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// PageSize is the unit that is read and kept, in bytes.
const PageSize = 8 << 10

// WholeIndex is the size up to which an index is read as a whole, in bytes, when a page of it is missing: its postings,
// series and table of contents would be requests of their own.
const WholeIndex = 128 << 10

// mostReads is how many range reads one Read makes at once.
const mostReads = 16

// File is one file of a block.
type File struct {
	Block  ulid.ULID
	Number int   // 0 is the index, others are files of chunks
	Size   int64 // in bytes; -1 if it is not known
}

// Fetch reads an object from off on into the buffers, in order, and returns how many bytes it read. Fewer than the
// buffers hold means that the object ends there. It may replace buffers by others of the same length. Several buffers
// may be the same memory: what they get is not wanted.
type Fetch func(ctx context.Context, off int64, into [][]byte) (int64, error)

// flight is a page that is being read. data is set when done is closed; nil = the reader failed.
type flight struct {
	done chan struct{}
	data []byte
}

// Read returns parts of f, which are in order of their starts; less where the object ends before. Parts that lie near
// each other are one range read. Errors are those of fetch, and that of ctx.
//
// Parts that take more than a quarter of the memory pass the cache by, and so do those that leave the file as its Size
// says: then the size is wrong.
func (c *Cache) Read(ctx context.Context, f File, kind Kind, parts []index.Range, fetch Fetch) (*View, error) {
	r := reading{Cache: c, file: f, kind: kind, fetch: fetch}
	r.want(numbersOf(parts))
	if len(r.numbers) == 0 {
		return &View{}, nil
	}
	end := int64(0)
	for _, p := range parts {
		end = max(end, p.End)
	}
	if !c.enabled[kind] || int64(len(r.numbers)) > c.mostRead()/PageSize || f.Size >= 0 && end > f.Size {
		return r.around(ctx)
	}
	wanted, missing := len(r.numbers), r.recall()
	found := wanted - missing
	if missing > 0 {
		if f.Number == 0 && f.Size >= 0 && f.Size <= WholeIndex {
			r.want(numbersOf([]index.Range{{End: f.Size}}))
			r.recall()
		}
		shared, err := r.fill(ctx)
		if err != nil {
			return nil, err
		}
		found = min(found+shared, wanted)
	}
	c.metrics.looked(kind, wanted, found)
	return r.view(), nil
}

// mostRead is how many bytes go through the cache at once.
func (c *Cache) mostRead() int64 {
	most := c.opts.MaxBytes / 4
	if c.opts.Index != nil || c.opts.Chunks != nil {
		most = max(most, 4<<20)
	}
	return most
}

// reading is one Read.
type reading struct {
	*Cache
	file    File
	kind    Kind
	fetch   Fetch
	numbers []int64  // of the pages, in order
	pages   [][]byte // nil = not there yet
}

// want sets the pages to read.
func (r *reading) want(numbers []int64) { r.numbers, r.pages = numbers, make([][]byte, len(numbers)) }

func (r *reading) key(i int) key {
	return key{r.file.Block, pageKey, uint64(r.file.Number), uint64(r.numbers[i])}
}

// length is how many bytes page i has.
func (r *reading) length(i int) int64 { return r.lengthOf(r.numbers[i]) }

func (r *reading) lengthOf(number int64) int64 {
	if r.file.Size < 0 {
		return PageSize
	}
	return min(PageSize, r.file.Size-number*PageSize)
}

// recall takes the pages that are in memory, and returns how many are not. A page of another length was kept while the
// file's size was believed to be another one.
func (r *reading) recall() (missing int) {
	for i := range r.pages {
		if data, ok := r.memory.get(r.key(i)).([]byte); ok && int64(len(data)) == r.length(i) {
			r.pages[i] = data
		} else {
			missing++
		}
	}
	return missing
}

// around reads all pages without the cache. The size of the file is not believed.
func (r *reading) around(ctx context.Context) (*View, error) {
	r.file.Size = -1
	all := make([]int, len(r.pages))
	for i := range all {
		all[i] = i
	}
	if err := r.fromBucket(ctx, all); err != nil {
		return nil, err
	}
	return r.view(), nil
}

// view is what was read. A page that is not whole is the last one.
func (r *reading) view() *View {
	v := &View{pieces: make([]piece, 0, len(r.pages))}
	for i, data := range r.pages {
		if len(data) > 0 {
			v.pieces = append(v.pieces, piece{r.numbers[i] * PageSize, data})
		}
	}
	return v
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
		if ok = ok && int64(len(data)) == r.length(i); ok {
			r.pages[i] = data
		}
		return ok
	})
	server, prefix := r.server(r.kind)
	if server != nil {
		missing = r.fromServer(ctx, server, prefix, missing)
	}
	if err := r.fromBucket(ctx, missing); err != nil {
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

// fromBucket reads pages, which are in order.
func (r *reading) fromBucket(ctx context.Context, pages []int) error {
	numbers := make([]int64, len(pages))
	for at, i := range pages {
		numbers[at] = r.numbers[i]
	}
	var g errgroup.Group
	g.SetLimit(mostReads)
	for _, one := range join(numbers) {
		n, _ := slices.BinarySearch(numbers, one.end)
		own := pages[:n]
		numbers, pages = numbers[n:], pages[n:]
		g.Go(func() error { return r.readRun(ctx, one, own) })
	}
	return g.Wait()
}

// readRun reads some pages by one range read. What lies between them goes nowhere.
func (r *reading) readRun(ctx context.Context, one run, pages []int) error {
	into := make([][]byte, 0, one.end-one.first)
	var nowhere []byte
	next := pages
	for number := one.first; number < one.end; number++ {
		if r.numbers[next[0]] == number {
			into, next = append(into, make([]byte, r.lengthOf(number))), next[1:]
			continue
		}
		if nowhere == nil {
			nowhere = make([]byte, PageSize)
		}
		into = append(into, nowhere[:r.lengthOf(number)])
	}
	got, err := r.fetch(ctx, one.first*PageSize, into)
	if err != nil {
		return err
	}
	for _, i := range pages {
		b := into[r.numbers[i]-one.first]
		size := min(max(got-(r.numbers[i]-one.first)*PageSize, 0), int64(len(b)))
		r.pages[i] = b[:size:size]
	}
	return nil
}
