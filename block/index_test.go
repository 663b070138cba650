package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// countingBucket counts reads and pages of listings, as S3 counts them, and hides that it can list recursively when
// flat. fault, if set, may fail a read or a listing.
type countingBucket struct {
	objstore.Bucket
	mu           sync.Mutex
	gets, pages  int
	others       int // requests of all other kinds
	flat         bool
	fault        func(verb, name string) error
	beforeUpload func(name string)
}

const pageSize = 1000

func (b *countingBucket) count(verb, name string, counter *int, n int) error {
	b.mu.Lock()
	*counter += n
	fault := b.fault
	b.mu.Unlock()
	if fault != nil {
		return fault(verb, name)
	}
	return nil
}

// fail makes the requests fail that when chooses.
func (b *countingBucket) fail(when func(verb, name string) bool) {
	b.fault = func(verb, name string) error {
		if when(verb, name) {
			return errFault
		}
		return nil
	}
}

func (b *countingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := b.count("get", name, &b.gets, 1); err != nil {
		return nil, err
	}
	return b.Bucket.Get(ctx, name)
}

func (b *countingBucket) Exists(ctx context.Context, name string) (bool, error) {
	if err := b.count("exists", name, &b.others, 1); err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

func (b *countingBucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if err := b.count("put", name, &b.others, 1); err != nil {
		return err
	}
	if b.beforeUpload != nil {
		b.beforeUpload(name)
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

func (b *countingBucket) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	n := 0
	err := b.Bucket.Iter(ctx, dir, func(name string) error { n++; return f(name) }, o...)
	return errors.Join(err, b.count("list", dir, &b.pages, max(1, (n+pageSize-1)/pageSize)))
}

func (b *countingBucket) SupportedIterOptions() []objstore.IterOptionType {
	if b.flat {
		return nil
	}
	return b.Bucket.SupportedIterOptions()
}

// costs are the requests since the last call: gets, pages of listings, others.
func (b *countingBucket) costs() [3]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := [3]int{b.gets, b.pages, b.others}
	b.gets, b.pages, b.others = 0, 0, 0
	return out
}

// metaOnly is a block that is nothing but a meta.json.
func metaOnly(id ulid.ULID, tenant string) *Meta {
	at := int64(id.Time())
	m := &Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: at - 7_200_000, MaxTime: at, Version: 1}}
	m.Stats = tsdb.BlockStats{NumSamples: 1000 + id.Time()%1000, NumSeries: 200, NumChunks: 400}
	m.Compaction = tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}}
	m.Thanos = Thanos{
		Version: 1, Source: SourceReceive, UploadTime: id.Timestamp().Add(time.Minute).UTC(),
		Labels:       map[string]string{"tenant_id": tenant, "receive_replica": "r1"},
		SegmentFiles: []string{"000001"}, IndexStats: IndexStats{SeriesMaxSize: 100, ChunkMaxSize: 300},
		Files: []File{{RelPath: "chunks/000001", SizeBytes: 1 << 20}, {RelPath: "index", SizeBytes: 1 << 17}, {RelPath: MetaName}},
	}
	return m
}

// world is a bucket with a clock, and gateways and writers of it.
type world struct {
	t   *testing.T
	bkt *countingBucket
	now time.Time
	n   uint64
}

func newWorld(t *testing.T) *world {
	return &world{t: t, bkt: &countingBucket{Bucket: objstore.NewInMemBucket()}, now: time.UnixMilli(1_700_000_000_000)}
}

func (w *world) id() (id ulid.ULID) {
	w.n++
	_ = id.SetTime(uint64(w.now.UnixMilli()))
	id[14], id[15] = byte(w.n>>8), byte(w.n)
	return id
}

// add adds n blocks.
func (w *world) add(n int) (ids []ulid.ULID) {
	for range n {
		id := w.id()
		w.put(Object(id, IndexName), "index")
		w.putMeta(id)
		ids = append(ids, id)
	}
	return ids
}

func (w *world) putMeta(id ulid.ULID) {
	var b bytes.Buffer
	if err := metaOnly(id, "a").Write(&b); err != nil {
		w.t.Fatal(err)
	}
	w.put(Object(id, MetaName), b.String())
}

func (w *world) put(name, content string) {
	w.t.Helper()
	put1(w.t, w.bkt.Bucket, name, content)
}

func (w *world) drop(name string) {
	w.t.Helper()
	if err := w.bkt.Bucket.Delete(w.t.Context(), name); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) fetcher(dir string) *Fetcher {
	return NewFetcher(w.bkt, FetcherOptions{CacheDir: dir, MaxIndexAge: 12 * time.Hour,
		Now: func() time.Time { return w.now }})
}

func (w *world) write() IndexPass {
	w.t.Helper()
	pass, err := w.fetcher("").WriteIndex(w.t.Context(), w.bkt)
	if err != nil {
		w.t.Fatal(err)
	}
	return pass
}

// want fetches, and compares the ids of what is there and the requests.
func (w *world) want(f *Fetcher, number uint64, costs [3]int, ids ...ulid.ULID) View {
	w.t.Helper()
	w.bkt.costs()
	v := fetch(w.t, f)
	got := slices.SortedFunc(maps.Keys(v.Metas), ulid.ULID.Compare)
	if !slices.Equal(got, ids) {
		w.t.Fatalf("blocks %v, want %v (partial %v)", got, ids, v.Partial)
	}
	costs[1]++ // the folder of deletions is listed by each fetch
	if c := w.bkt.costs(); c != costs {
		w.t.Fatalf("requests (gets, pages, others) %v, want %v", c, costs)
	}
	if v.Number != number || (v.Hash == "") != (number == 0) {
		w.t.Fatalf("view %d %q, want %d", v.Number, v.Hash, number)
	}
	return v
}

// indexed is a world of n blocks with an index, and a gateway that has read it.
func indexed(t *testing.T, n int) (w *world, f *Fetcher, number uint64, ids []ulid.ULID) {
	t.Helper()
	w = newWorld(t)
	ids = w.add(n)
	number = w.write().View.Number
	f = w.fetcher("")
	w.want(f, number, [3]int{2, 2, 0}, ids...)
	return w, f, number, ids
}

// TestFetchByIndex follows a bucket whose index is written from time to time.
func TestFetchByIndex(t *testing.T) {
	w := newWorld(t)
	ids := w.add(5)
	dir := t.TempDir()
	f := w.fetcher(dir)
	w.want(f, 0, [3]int{1 + 5, 1, 0}, ids...) // there is no index: the pointer is looked for, all metas are read
	pass := w.write()
	first := pass.View.Number
	if !pass.Changed || pass.Added != 5 || first != uint64(w.now.Unix()) || pass.Size == 0 {
		t.Fatalf("%+v", pass)
	}
	whole := w.fetcher(t.TempDir())
	v := w.want(whole, first, [3]int{2, 2, 0}, ids...) // pointer, content; the root, Hearth's marks
	if got, want := v.Metas[ids[0]], fetch(t, w.fetcher("")).Metas[ids[0]]; !reflect.DeepEqual(got, want) {
		t.Errorf("from the index:\n%+v, from meta.json:\n%+v", got, want)
	}
	w.want(whole, first, [3]int{1, 2, 0}, ids...) // nothing is new
	w.want(f, first, [3]int{2, 2, 0}, ids...)

	// A new block is read by itself until the index has it.
	ids = append(ids, w.add(1)...)
	w.want(whole, first, [3]int{1 + 1, 2, 0}, ids...)
	w.want(whole, first, [3]int{1, 2, 0}, ids...)
	w.now = w.now.Add(time.Minute)
	if pass = w.write(); pass.View.Number != first+1 || pass.Added != 1 || pass.Removed != 0 {
		t.Fatalf("%+v", pass)
	}
	w.want(whole, first+1, [3]int{2, 2, 0}, ids...)

	// Nothing is new: the number stays, and the index is as young as the pass.
	w.now = w.now.Add(11 * time.Hour)
	if pass = w.write(); pass.View.Number != first+1 || pass.Changed {
		t.Fatalf("%+v", pass)
	}
	w.now = w.now.Add(11 * time.Hour)
	w.want(whole, first+1, [3]int{1, 2, 0}, ids...)

	// A gateway that restarts has all in one file.
	w.want(w.fetcher(dir), first+1, [3]int{2, 2, 0}, ids...)
	w.want(f, first+1, [3]int{2, 2, 0}, ids...) // 10 minutes are over: it writes its file
	w.want(w.fetcher(dir), first+1, [3]int{1, 2, 0}, ids...)

	// A block that is gone leaves with the listing, whatever the index says.
	if err := Delete(t.Context(), w.bkt.Bucket, ids[0]); err != nil {
		t.Fatal(err)
	}
	w.want(whole, first+1, [3]int{1, 2, 0}, ids[1:]...)
	w.want(w.fetcher(""), first+1, [3]int{2, 2, 0}, ids[1:]...)

	// An index that is too old, or from the future, saves reads and proves nothing.
	w.now = w.now.Add(2 * time.Hour)
	w.want(w.fetcher(""), 0, [3]int{2, 1, 0}, ids[1:]...)
	w.now = w.now.Add(-48 * time.Hour)
	w.want(w.fetcher(""), 0, [3]int{2, 1, 0}, ids[1:]...)
}

// TestFetchHostileIndex: whatever the objects of the index hold, the blocks are those of the listing.
func TestFetchHostileIndex(t *testing.T) {
	w := newWorld(t)
	ids := w.add(3)
	number := w.write().View.Number
	pointer := string(w.bkt.Bucket.(*objstore.InMemBucket).Objects()[bucketindex.PointerName])
	p, err := bucketindex.ParsePointer([]byte(pointer))
	if err != nil {
		t.Fatal(err)
	}
	content := string(w.bkt.Bucket.(*objstore.InMemBucket).Objects()[p.Object()])
	warm := w.fetcher("")
	fetch(t, warm)
	f := func(name, object, text string) {
		t.Helper()
		w.put(object, text)
		v := fetch(t, w.fetcher(""))
		if errs.KindOf(v.IndexFault) != errs.Invalid || len(v.Metas) != len(ids) || v.Number != 0 {
			t.Errorf("%s: %d blocks, view %d, %v", name, len(v.Metas), v.Number, v.IndexFault)
		}
		w.put(bucketindex.PointerName, pointer)
		w.put(p.Object(), content)
	}
	f("no JSON", bucketindex.PointerName, "{")
	f("a later version", bucketindex.PointerName, strings.Replace(pointer, `"version":1`, `"version":2`, 1))
	f("long", bucketindex.PointerName, pointer+strings.Repeat(" ", bucketindex.MaxPointerSize))
	f("size", bucketindex.PointerName, strings.Replace(pointer, `"size":`, `"size":1`, 1))
	f("another content", p.Object(), "x"+content[1:])
	f("cut short", p.Object(), content[:len(content)-1])
	f("longer", p.Object(), content+"x")
	bad := "HBIX\x01nonsense"
	q := bucketindex.NewPointer([]byte(bad), 99, w.now)
	w.put(q.Object(), bad)
	f("a content that is none", bucketindex.PointerName, string(q.Encode()))
	meta := metaOnly(w.id(), "a").essential()
	meta.Files = []bucketindex.File{{Path: "../x", Size: 1}}
	evil, err := bucketindex.Encode(bucketindex.Index{Blocks: []bucketindex.Block{meta}})
	if err != nil {
		t.Fatal(err)
	}
	q = bucketindex.NewPointer(evil, 99, w.now)
	w.put(q.Object(), string(evil))
	f("a path that leaves the block", bucketindex.PointerName, string(q.Encode()))

	// Who has read an index goes on with it while it is young enough.
	w.put(bucketindex.PointerName, "{")
	if v := fetch(t, warm); v.Number != number || len(v.Metas) != 3 || v.IndexFault == nil {
		t.Errorf("view %d, %d blocks, %v", v.Number, len(v.Metas), v.IndexFault)
	}
	w.now = w.now.Add(13 * time.Hour)
	if v := fetch(t, warm); v.Number != 0 || len(v.Metas) != 3 {
		t.Errorf("view %d, %d blocks, %v", v.Number, len(v.Metas), v.IndexFault)
	}
	// The next pass puts all right. Its number is above those of before.
	if pass := w.write(); pass.View.Number <= number || pass.View.IndexFault == nil {
		t.Errorf("%+v", pass)
	}
	if v := fetch(t, warm); v.Number <= number || v.IndexFault != nil {
		t.Errorf("view %d, %v", v.Number, v.IndexFault)
	}
	// A pointer that is lost is no fault.
	w.drop(bucketindex.PointerName)
	if v := fetch(t, warm); v.Number != 0 || len(v.Metas) != 3 || v.IndexFault != nil {
		t.Errorf("view %d, %d blocks, %v", v.Number, len(v.Metas), v.IndexFault)
	}
}

// TestFetchReplacedContent: a content that is gone since the pointer was read is looked for anew.
func TestFetchReplacedContent(t *testing.T) {
	w := newWorld(t)
	ids := w.add(2)
	w.write()
	var once sync.Once
	var second IndexPass
	w.bkt.fault = func(verb, name string) error {
		if verb == "get" && bucketindex.ContentName(name) {
			once.Do(func() {
				bkt := &countingBucket{Bucket: w.bkt.Bucket}
				ids = append(ids, w.add(1)...)
				w.now = w.now.Add(time.Second)
				var err error
				if second, err = NewFetcher(bkt, FetcherOptions{Now: func() time.Time { return w.now }}).WriteIndex(t.Context(),
					bkt); err != nil {
					t.Error(err)
				}
				w.drop(name)
			})
		}
		return nil
	}
	v := fetch(t, w.fetcher(""))
	if v.Number != second.View.Number || v.IndexFault != nil || len(v.Metas) != 3 {
		t.Errorf("view %d, want %d, %d blocks, %v", v.Number, second.View.Number, len(v.Metas), v.IndexFault)
	}
}

// TestFetchMarks: Hearth's own marks are seen at once, those of other tools with the next index.
func TestFetchMarks(t *testing.T) {
	w, f, number, ids := indexed(t, 4)
	marked := func(v View, want ...ulid.ULID) {
		t.Helper()
		if got := slices.SortedFunc(maps.Keys(v.Deletions), ulid.ULID.Compare); !slices.Equal(got, want) {
			t.Fatalf("marked: %v, want %v", got, want)
		}
	}
	ctx := t.Context()
	if err := MarkDeletion(ctx, w.bkt.Bucket, ids[0], "own", w.now); err != nil {
		t.Fatal(err)
	}
	foreign, err := json.Marshal(DeletionMark{ids[1], 1, "foreign", w.now.Unix()})
	if err != nil {
		t.Fatal(err)
	}
	w.put(Object(ids[1], DeletionMarkName), string(foreign))
	v := w.want(f, number, [3]int{1 + 1, 2, 0}, ids...) // the pointer, the copy of the mark
	marked(v, ids[0])
	marked(w.want(f, number, [3]int{1, 2, 0}, ids...), ids[0])
	w.now = w.now.Add(time.Minute)
	number = w.write().View.Number
	v = w.want(f, number, [3]int{2, 2, 0}, ids...)
	marked(v, ids[0], ids[1])
	if m := v.Deletions[ids[1]]; m.Details != "foreign" || m.DeletionTime != w.now.Add(-time.Minute).Unix() {
		t.Errorf("%+v", m)
	}
	all := fetch(t, NewFetcher(w.bkt, FetcherOptions{})) // the full listing finds the same
	if !reflect.DeepEqual(all.Deletions, v.Deletions) {
		t.Errorf("%+v, want %+v", v.Deletions, all.Deletions)
	}

	// Hearth's own mark is removed: seen at once.
	if err := Unmark(ctx, w.bkt.Bucket, ids[0], DeletionMarkName); err != nil {
		t.Fatal(err)
	}
	marked(w.want(f, number, [3]int{1, 2, 0}, ids...), ids[1])
	// A mark of Hearth's that another tool removes stays until the next pass, which removes the copy.
	if err := MarkNoCompact(ctx, w.bkt.Bucket, ids[2], ReasonManual, "own", w.now); err != nil {
		t.Fatal(err)
	}
	w.drop(Object(ids[2], NoCompactMarkName))
	if v = fetch(t, f); len(v.NoCompact) != 1 {
		t.Errorf("%+v", v.NoCompact)
	}
	w.now = w.now.Add(time.Minute)
	if pass := w.write(); pass.Copies != 1 || len(pass.View.NoCompact) != 0 {
		t.Errorf("%+v", pass)
	}
	if v = fetch(t, f); len(v.NoCompact) != 0 {
		t.Errorf("%+v", v.NoCompact)
	}
	// A crash between the mark and its copy is healed by marking again.
	w.bkt.fail(func(verb, name string) bool { return verb == "put" && strings.HasPrefix(name, marksFolder) })
	if err := MarkDeletion(ctx, w.bkt, ids[3], "own", w.now); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	w.bkt.fault = nil
	marked(fetch(t, f), ids[1])
	if err := MarkDeletion(ctx, w.bkt, ids[3], "again", w.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	v = fetch(t, f)
	marked(v, ids[1], ids[3])
	if m := v.Deletions[ids[3]]; m.Details != "own" || m.DeletionTime != w.now.Unix() {
		t.Errorf("the first mark does not stay: %+v", m)
	}
}

// TestFetchLeftovers: directories without a meta.json are looked at ever more rarely, and found when they have one.
func TestFetchLeftovers(t *testing.T) {
	w, f, _, _ := indexed(t, 1)
	const leftovers = 500
	for range leftovers {
		w.put(Object(w.id(), IndexName), "x")
	}
	reads := func(d time.Duration) (gets int) { // of leftovers, by syncs in the course of d
		w.bkt.costs()
		for range int(d / time.Minute) {
			w.now = w.now.Add(time.Minute)
			fetch(t, f)
			gets-- // the pointer
		}
		return gets + w.bkt.costs()[0]
	}
	if n := reads(10 * time.Minute); n < 5*leftovers {
		t.Errorf("%d reads in the first 10 minutes: an upload takes so long to be seen", n)
	}
	w.write()
	if n := reads(11 * time.Hour); n > 25*leftovers {
		t.Errorf("%d reads in 11 hours", n)
	}
	w.write()
	if n := reads(10 * time.Hour); n > 6*leftovers {
		t.Errorf("%d reads in the 10 hours after that", n)
	}
	// Who starts now knows from the index what it need not look at.
	w.write()
	w.bkt.costs()
	v := fetch(t, w.fetcher(""))
	if c := w.bkt.costs(); c[0] != 2 || len(v.Partial) != leftovers {
		t.Errorf("%v requests, %d leftovers", c, len(v.Partial))
	}
	for _, err := range v.Partial {
		if errs.KindOf(err) != errs.NotFound {
			t.Fatal(err)
		}
	}
	// One of them becomes a block: the next pass finds it, and so does whoever looks long enough.
	late := w.id()
	w.put(Object(late, IndexName), "x")
	fetch(t, f)
	w.putMeta(late)
	w.now = w.now.Add(time.Minute)
	if v = fetch(t, f); v.Metas[late] == nil {
		t.Errorf("a block that came a minute later is not seen: %v", v.Partial[late])
	}
}

// TestFetchLongUpload: whoever sees the marks of replaced blocks sees what replaced them, however long its upload took.
func TestFetchLongUpload(t *testing.T) {
	w, f, _, ids := indexed(t, 2)
	made := w.id()
	w.put(Object(made, IndexName), "x")
	old := ulid.ULID{0: 1} // an upload that was broken off long ago
	w.put(Object(old, IndexName), "x")
	for range 40 {
		w.now = w.now.Add(time.Minute)
		fetch(t, f)
	}
	w.putMeta(made)
	for _, id := range ids {
		if err := MarkDeletion(t.Context(), w.bkt, id, "compacted", w.now); err != nil {
			t.Fatal(err)
		}
	}
	w.now = w.now.Add(time.Second)
	if v := fetch(t, f); len(v.Deletions) != 2 || v.Metas[made] == nil {
		t.Errorf("%d marks are seen, and of the block that was made: %v", len(v.Deletions), v.Partial[made])
	}
	w.bkt.costs()
	if fetch(t, f); w.bkt.costs()[0] != 1 {
		t.Error("marks that are known make it look again")
	}
}

// TestFetchBrokenDeletion: a block whose deletion was broken off leaves the view with the next pass, and one that only
// could not be read does not.
func TestFetchBrokenDeletion(t *testing.T) {
	w, f, number, ids := indexed(t, 2)
	w.drop(Object(ids[0], MetaName))
	w.want(f, number, [3]int{1, 2, 0}, ids...) // the directory is there
	w.now = w.now.Add(time.Minute)
	number = w.write().View.Number
	w.bkt.fail(func(verb, name string) bool { return verb == "get" && name == Object(ids[0], MetaName) })
	w.want(f, number, [3]int{3, 2, 0}, ids...)
	w.bkt.fault = nil
	v := w.want(f, number, [3]int{2, 2, 0}, ids[1:]...)
	if errs.KindOf(v.Partial[ids[0]]) != errs.NotFound {
		t.Errorf("%v", v.Partial)
	}
	// A block that the pass saw before its meta.json stays, too: it is read once.
	w.putMeta(ids[0])
	w.now = w.now.Add(7 * time.Hour)
	w.want(f, number, [3]int{2, 2, 0}, ids...)
}

// TestFetchFailedListing: a listing that fails, at whatever page, changes nothing.
func TestFetchFailedListing(t *testing.T) {
	w, f, number, ids := indexed(t, 2)
	for _, dir := range []string{"", marksFolder} {
		w.bkt.fail(func(verb, name string) bool { return verb == "list" && name == dir })
		if _, err := f.Fetch(t.Context()); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("%q: %v", dir, err)
		}
	}
	// Nothing can be read.
	w.bkt.fail(func(verb, _ string) bool { return verb == "get" })
	w.want(f, number, [3]int{1, 2, 0}, ids...)
	w.bkt.fault = nil
	w.want(f, number, [3]int{1, 2, 0}, ids...)
}

// TestWriteIndexRaces: writers that overlap lose nothing that matters.
func TestWriteIndexRaces(t *testing.T) {
	w := newWorld(t)
	ids := w.add(2)
	number := w.write().View.Number
	ids = append(ids, w.add(1)...)
	// A second writer runs as a whole when the first has listed the bucket and writes its content.
	var inner IndexPass
	w.now = w.now.Add(time.Minute)
	w.bkt.beforeUpload = func(name string) {
		w.bkt.beforeUpload = nil
		ids = append(ids, w.add(1)...)
		w.now = w.now.Add(time.Minute)
		inner = w.write()
	}
	outer := w.write()
	if !outer.Overtaken || outer.View.Number != inner.View.Number || inner.View.Number != number+1 {
		t.Fatalf("outer %+v, inner %+v", outer, inner)
	}
	w.want(w.fetcher(""), number+1, [3]int{2, 2, 0}, ids...)
	// Two that write the pointer at once: the last one stays, and the blocks it does not know are read.
	w.bkt.beforeUpload = func(name string) {
		if name == bucketindex.PointerName {
			w.bkt.beforeUpload = nil
			ids = append(ids, w.add(1)...)
			inner = w.write()
		}
	}
	w.now = w.now.Add(time.Minute)
	ids = append(ids, w.add(1)...)
	outer = w.write()
	if outer.Overtaken || outer.View.Number != inner.View.Number || outer.View.Hash == inner.View.Hash {
		t.Fatalf("outer %+v, inner %+v", outer, inner)
	}
	v := w.want(w.fetcher(""), outer.View.Number, [3]int{2 + 1, 2, 0}, ids...)
	if v.Hash != outer.View.Hash {
		t.Errorf("%s, want %s", v.Hash, outer.View.Hash)
	}
}

// TestWriteIndexSame: while nothing changes no content is made, and whatever changes, the index is the one of a writer
// that makes it anew.
func TestWriteIndexSame(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	remove := func(name string) { _ = w.bkt.Bucket.Delete(t.Context(), name) } // it may not be there
	ids := w.add(5)
	pass := func(f *Fetcher) IndexPass {
		t.Helper()
		w.now = w.now.Add(time.Minute)
		p, err := f.WriteIndex(t.Context(), w.bkt)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	f, dir := w.fetcher(""), t.TempDir()
	kept := 0
	for step := range 300 {
		id := ids[rnd.IntN(len(ids))]
		mark := Object(id, DeletionMarkName)
		switch rnd.IntN(12) {
		case 0:
			ids = append(ids, w.add(1)...)
		case 1:
			remove(Object(id, MetaName)) // what is left of it, if anything, is a leftover
		case 2:
			w.put(Object(id, "chunks/000001"), "x")
		case 3:
			w.putMeta(id)
		case 4:
			if there, err := w.bkt.Exists(t.Context(), mark); err != nil || there { // marks never change
				continue
			}
			w.put(mark, fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":%d}`, id, step))
		case 5:
			remove(mark)
		case 6:
			remove(markCopy(markKey{id, bucketindex.Deletion}))
		case 7:
			if err := MarkDeletion(t.Context(), w.bkt, id, "x", w.now); err != nil {
				t.Fatal(err)
			}
		case 8:
			pass(w.fetcher("")) // another writer
		case 9:
			f = w.fetcher(dir) // a restart
		}
		got := pass(f)
		if !got.Changed {
			kept++
		}
		anew := w.fetcher("")
		if err := anew.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		anew.index.blocks = -1
		if want := pass(anew); want.View.Hash != got.View.Hash || want.Changed {
			t.Fatalf("step %d: the index is %.8s, and %.8s when it is made anew", step, got.View.Hash, want.View.Hash)
		}
	}
	if kept < 30 {
		t.Errorf("only %d passes changed nothing", kept)
	}
	for _, m := range f.known {
		m.MaxTime++ // a content that is made would be another one
	}
	if pass(f).Changed {
		t.Error("a content was made")
	}
}

// TestWriteIndexCleans: contents that no pointer names go after an hour.
func TestWriteIndexCleans(t *testing.T) {
	w := newWorld(t)
	mem := w.bkt.Bucket.(*objstore.InMemBucket)
	contents := func() (n int) {
		for name := range mem.Objects() {
			if bucketindex.ContentName(name) {
				n++
			}
		}
		return n
	}
	w.now = time.Now()
	for i := range 3 {
		w.add(1)
		w.write()
		if contents() != i+1 {
			t.Fatalf("%d contents after %d passes", contents(), i+1)
		}
	}
	w.put("hearth/index/notes.txt", "x")
	w.now = w.now.Add(keepIndex + time.Minute)
	if pass := w.write(); pass.Contents != 2 || contents() != 1 {
		t.Errorf("%+v, %d contents", pass, contents())
	}
	if _, ok := mem.Objects()["hearth/index/notes.txt"]; !ok {
		t.Error("an object of somebody else was removed")
	}
}

// TestWriteIndexFaults: no index is written that lacks a mark, and one is written without a block that cannot be read.
func TestWriteIndexFaults(t *testing.T) {
	w := newWorld(t)
	ids := w.add(2)
	w.put(Object(ids[0], DeletionMarkName), `{"id":"`+ids[0].String()+`","version":1,"deletion_time":5}`)
	w.put(Object(ids[1], NoCompactMarkName), `{`)
	bad := Object(ids[0], DeletionMarkName)
	w.bkt.fail(func(verb, name string) bool { return verb == "get" && name == bad })
	if _, err := w.fetcher("").WriteIndex(t.Context(), w.bkt); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("%v", err)
	}
	if _, ok := w.bkt.Bucket.(*objstore.InMemBucket).Objects()[bucketindex.PointerName]; ok {
		t.Fatal("an index was written")
	}
	bad = Object(ids[1], MetaName)
	if pass := w.write(); len(pass.View.Metas) != 1 || len(pass.View.Deletions) != 1 || len(pass.View.MarkFaults) != 1 {
		t.Errorf("%+v", pass)
	}
	w.bkt.fault = nil
	w.want(w.fetcher(""), uint64(w.now.Unix()), [3]int{2 + 1, 2, 0}, ids...)
}

// TestMetaFile: a local file that is damaged costs reads and nothing else.
func TestMetaFile(t *testing.T) {
	w := newWorld(t)
	ids := w.add(3)
	dir := t.TempDir()
	w.want(w.fetcher(dir), 0, [3]int{1 + 3, 1, 0}, ids...)
	w.want(w.fetcher(dir), 0, [3]int{1, 1, 0}, ids...)
	path := filepath.Join(dir, metaFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{nil, good[:len(good)/2], append(slices.Clone(good[:len(good)-1]), 'x')} {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		w.want(w.fetcher(dir), 0, [3]int{1 + 3, 1, 0}, ids...)
	}
	w.want(w.fetcher(dir), 0, [3]int{1, 1, 0}, ids...)
}

func FuzzParseMark(f *testing.F) {
	id := testID(1)
	f.Add([]byte(fmt.Sprintf(`{"id":"%s","version":1,"details":"d","deletion_time":5}`, id)), "deletion-mark.json")
	f.Add([]byte(`{"id":"","version":1e9}`), "01ARZ3NDEKTSV4RRFFQ69G5FA1-deletion-mark.json")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		for kind := range markNames {
			if m, err := parseMark(b, id, kind); err == nil && (m.ID != id || m.Kind != kind) {
				t.Fatalf("%+v", m)
			}
		}
		if key, ok := parseMarkCopy(marksFolder + name); ok && markCopy(key) != marksFolder+name {
			t.Fatalf("%q is taken for %q", name, markCopy(key))
		}
	})
}
