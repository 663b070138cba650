package block

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mimirID(n int) ulid.ULID {
	return ulid.MustNew(uint64(1_700_000_000_000+n), bytes.NewReader(make([]byte, 10)))
}

// mimirWorld writes a bucket as Mimir does.
type mimirWorld struct {
	t   testing.TB
	bkt *countingBucket
	now time.Time
}

func newMimirWorld(t testing.TB) *mimirWorld {
	return &mimirWorld{t, &countingBucket{Bucket: objstore.NewInMemBucket()}, time.UnixMilli(1_700_000_100_000)}
}

func (w *mimirWorld) put(name, content string) { put1(w.t, w.bkt.Bucket, name, content) }

// block writes the meta.json of block n of a tenant, as Mimir's compactor does for a shard.
func (w *mimirWorld) block(tenant string, n int) {
	w.t.Helper()
	m := Meta{BlockMeta: tsdb.BlockMeta{ULID: mimirID(n), MinTime: int64(n), MaxTime: int64(n) + 1000, Version: 1}}
	m.Compaction.Sources = []ulid.ULID{mimirID(1), mimirID(2), mimirID(n)}
	m.Thanos.Labels = map[string]string{"__org_id__": tenant, "__compactor_shard_id__": "1_of_2", "tenant_id": "other"}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		w.t.Fatal(err)
	}
	w.put(tenant+"/"+Object(m.ULID, MetaName), b.String())
}

// index writes the index of a tenant with blocks from n to before end, of which some are marked.
func (w *mimirWorld) index(tenant string, n, end int, marked ...int) {
	w.t.Helper()
	ix := map[string]any{"version": 2, "updated_at": 1, "more": []any{map[string]any{"x": 1}}}
	var blocks, marks []any
	for ; n < end; n++ {
		blocks = append(blocks, map[string]any{"block_id": mimirID(n), "min_time": n, "max_time": n + 1000,
			"segments_format": "1b6d", "segments_num": 2, "uploaded_at": 1_700_000_000, "compactor_shard_id": "1_of_2",
			"source": "compactor", "compaction_level": 3, "labels": map[string]string{"tenant_id": "other"}})
	}
	for _, n := range marked {
		marks = append(marks, map[string]any{"block_id": mimirID(n), "deletion_time": 1_600_000_000 + n})
	}
	ix["blocks"], ix["block_deletion_marks"] = blocks, marks
	text, err := json.Marshal(ix)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(tenant+"/bucket-index.json.gz", string(gzipped(w.t, string(text))))
}

func (w *mimirWorld) mark(tenant string, n int) {
	w.put(fmt.Sprintf("%s/markers/%s-deletion-mark.json", tenant, mimirID(n)),
		fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":%d}`, mimirID(n), 1_600_000_000+n))
}

func (w *mimirWorld) fetcher(dir string) *Fetcher {
	return NewFetcher(w.bkt, FetcherOptions{CacheDir: dir, Mimir: true, TenantLabel: "tenant_id", Concurrency: 3,
		Now: func() time.Time { return w.now }})
}

// show is a view as text.
func (w *mimirWorld) show(v View) string {
	var out []string
	for id, m := range v.Metas {
		text := fmt.Sprintf("%d %v %s", m.MinTime, m.ExternalLabels(), m.Object("index"))
		if m.ULID != id || m.MaxTime != m.MinTime+1000 || len(m.Compaction.Sources) > 0 {
			w.t.Errorf("%s: %+v", id, m)
		}
		if d, ok := v.Deletions[id]; ok {
			text += fmt.Sprintf(" marked at %d", d.DeletionTime)
		}
		out = append(out, text)
	}
	for id, err := range v.Partial {
		var of OfTenant
		errors.As(err, &of)
		out = append(out, fmt.Sprintf("%d of %s: %s", id.Time()-1_700_000_000_000, of.Tenant, errs.KindOf(err)))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func (w *mimirWorld) want(n int, tenant, more string) string {
	return fmt.Sprintf(`%d {tenant_id="%s"} %s/%s/index%s`, n, tenant, tenant, mimirID(n), more)
}

// TestMimirView: each block is its directory's tenant's, whatever its labels say, and what the view says is the same
// whether it comes from the index, from meta.json, or from the local file.
func TestMimirView(t *testing.T) {
	w := newMimirWorld(t)
	var want []string
	for n := 100; n < 108; n++ {
		w.block("a", n)
	}
	w.index("a", 100, 108, 100, 101, 102, 103, 104)
	for n := 100; n < 105; n++ {
		w.mark("a", n)
		want = append(want, w.want(n, "a", fmt.Sprintf(" marked at %d", 1_600_000_000+n)))
	}
	want = append(want, w.want(105, "a", ""), w.want(106, "a", ""), w.want(107, "a", ""))
	w.block("b", 200)
	want = append(want, w.want(200, "b", ""))
	w.mark("b", 201) // of a block that is gone
	w.put("b/"+Object(mimirID(202), "index"), "x")
	want = append(want, "202 of b: not found")
	w.put("b/"+Object(mimirID(203), MetaName), "{")
	want = append(want, "203 of b: invalid")
	w.put("b/debug/metas/"+mimirID(204).String()+".json", "{}")
	// What is no tenant, or is one that is deleted.
	w.block("__mimir_cluster", 300)
	w.block("d|e", 301)
	w.block("gone", 302)
	w.put("gone/markers/tenant-deletion-mark.json", "{}")
	w.block("gone2", 303)
	w.put("__markers__/gone2/tenant-deletion-mark.json", "{}")
	w.block("__markers__", 304)
	w.put(Object(mimirID(305), MetaName), "{}")
	w.put("a.json", "{}")
	slices.Sort(want)
	text := strings.Join(want, "\n")

	dir := t.TempDir()
	f := w.fetcher(dir)
	check := func(what string, f *Fetcher, gets int) View {
		t.Helper()
		w.bkt.costs()
		v := fetch(t, f)
		if got := w.show(v); got != text {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, text)
		}
		if c := w.bkt.costs(); c[0] != gets && gets >= 0 {
			t.Errorf("%s: %d objects were read, want %d", what, c[0], gets)
		}
		return v
	}
	v := check("first", f, 1+3) // the index of a; the meta.json of three directories of b
	if v.IndexFault != nil {
		t.Error(v.IndexFault)
	}
	if m := v.Metas[mimirID(100)]; m.Thanos.Source != SourceCompactor || m.Compaction.Level != 3 ||
		m.Thanos.UploadTime.Unix() != 1_700_000_000 {
		t.Errorf("%+v", m)
	}
	check("at the same moment", f, 2) // the directories without a block are new
	w.now = w.now.Add(time.Hour)
	check("later", f, 2)
	check("at once again", f, 0)
	if f.unsaved != 0 {
		f.unsaved = saveMetas
		f.save()
	}
	check("after a restart", w.fetcher(dir), 2+1) // the marks are more than fewReads: the index

	w.put("a/bucket-index.json.gz", "x")
	if v := check("with a faulty index", w.fetcher(""), 1+8+5+3); v.IndexFault == nil ||
		errs.KindOf(v.IndexFault) != errs.Invalid || strings.Count(v.IndexFault.Error(), "a/bucket-index.json.gz") != 1 {
		t.Error(v.IndexFault)
	}
	w.bkt.fail(func(verb, name string) bool { return verb == "get" && strings.HasSuffix(name, ".gz") })
	if v := check("with an index that is not delivered", w.fetcher(""), -1); errs.KindOf(v.IndexFault) != errs.Unavailable {
		t.Error(v.IndexFault)
	}
	w.bkt.fault = nil
	if err := w.bkt.Bucket.Delete(t.Context(), "a/bucket-index.json.gz"); err != nil {
		t.Fatal(err)
	}
	if v := check("without an index", w.fetcher(""), 1+8+5+3); v.IndexFault != nil {
		t.Error(v.IndexFault)
	}
	w.bkt.fail(func(verb, name string) bool { return verb == "list" && name == "b/" })
	if v, err := f.Fetch(t.Context()); errs.KindOf(err) != errs.Unavailable || v.Metas != nil {
		t.Errorf("%d blocks, %v", len(v.Metas), err)
	}
}

// TestMimirIndexes: the indexes of many tenants are read at once. Only -race sees all that this test is for.
func TestMimirIndexes(t *testing.T) {
	w := newMimirWorld(t)
	const tenants, each = 40, 20
	for i := range tenants {
		w.index(fmt.Sprintf("t%d", i), i*each, (i+1)*each)
		for n := range each {
			w.block(fmt.Sprintf("t%d", i), i*each+n)
		}
	}
	if v := fetch(t, w.fetcher("")); len(v.Metas) != tenants*each || v.IndexFault != nil {
		t.Errorf("%d blocks, %v", len(v.Metas), v.IndexFault)
	}
}

// TestMimirClash: a tenant that has a directory of the name of another tenant's block gets neither that block's data
// nor its place.
func TestMimirClash(t *testing.T) {
	w := newMimirWorld(t)
	w.block("b", 1)
	f := w.fetcher("")
	f1 := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		if got := w.show(fetch(t, f)); got != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
	f1(w.want(1, "b", ""))
	w.block("a", 1)
	w.mark("a", 1)
	f1(w.want(1, "b", ""), "1 of a: invalid")
	f = w.fetcher("") // which does not know who was first
	f1(w.want(1, "a", fmt.Sprintf(" marked at %d", 1_600_000_001)), "1 of b: invalid")
}

// TestReadMimirIndex: what is wrong with an index is an error before it takes memory.
func TestReadMimirIndex(t *testing.T) {
	id := mimirID(1)
	f := func(content []byte, kind errs.Kind, blocks int) {
		t.Helper()
		ix, err := readMimirIndex(bytes.NewReader(content), func(ulid.ULID) bool { return true })
		if errs.KindOf(err) != kind || len(ix.blocks) != blocks {
			t.Errorf("%.100q: %d blocks, %v", content, len(ix.blocks), err)
		}
	}
	text := func(s string, kind errs.Kind, blocks int) {
		t.Helper()
		f(gzipped(t, s), kind, blocks)
	}
	one := fmt.Sprintf(`{"block_id":%q}`, id)
	text(`{"version":1,"blocks":[`+one+`],"block_deletion_marks":null}`, errs.OK, 1)
	text(`{"blocks":[`+one+`,`+one+`],"version":2,"new":[[{"a":[1]}]]}`, errs.OK, 2)
	text(`{"version":1}`, errs.OK, 0)
	text(`{"version":3}`, errs.Invalid, 0)
	text(`{}`, errs.Invalid, 0)
	text(`null`, errs.Invalid, 0)
	text(``, errs.Invalid, 0)
	text(`[]`, errs.Invalid, 0)
	text(`{"version":1,"blocks":{}}`, errs.Invalid, 0)
	text(`{"version":1,"blocks":[{"block_id":"x"}]}`, errs.Invalid, 0)
	text(`{"version":1,"blocks":[1]}`, errs.Invalid, 0)
	text(`{"version":1,"blocks":[`+one, errs.Invalid, 0)
	text(`{"version":1,"x":`+strings.Repeat("[", 20_000), errs.Invalid, 0)
	f([]byte("{}"), errs.Invalid, 0)
	whole := gzipped(t, `{"version":1,"blocks":[`+one+`]}`)
	f(whole[:len(whole)-3], errs.Invalid, 0)
	whole[len(whole)-6] ^= 1
	f(whole, errs.Invalid, 0)

	// A bomb: a hundred bytes that become a gigabyte.
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(z, `{"version":1,"blocks":[`)
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	for range maxMimirInflated>>20 + 1 {
		_, _ = z.Write(spaces)
	}
	_, _ = io.WriteString(z, `]}`)
	z.Close()
	f(bomb.Bytes(), errs.Invalid, 0)

	large := bytes.NewReader(gzipped(t, `{"version":1,"blocks":[`+one+`]}`))
	_, err := readMimirIndex(io.MultiReader(large, errReader{}), func(ulid.ULID) bool { return true })
	if !errors.Is(err, errFault) {
		t.Errorf("an error of the bucket became %v", err)
	}
	got := (&mimirBlock{UploadedAt: 1 << 62, Level: -1, SeriesMaxSize: -5}).block()
	if got.Uploaded != 0 || got.Compaction.Level != 0 || got.SeriesMaxSize != 0 {
		t.Errorf("%+v", got)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errFault }

func FuzzReadMimirIndex(f *testing.F) {
	one := fmt.Sprintf(`{"block_id":%q,"min_time":1,"max_time":2,"uploaded_at":3}`, mimirID(1))
	f.Add(gzipped(f, `{"version":1,"blocks":[`+one+`],"block_deletion_marks":[`+one+`],"updated_at":1}`), false)
	f.Add([]byte(`{"version":2,"blocks":[`+one+`]}`), true)
	f.Fuzz(func(t *testing.T, b []byte, plain bool) {
		if plain { // so that the fuzzer gets past the checksum
			b = gzipped(t, string(b))
		}
		ix, err := readMimirIndex(bytes.NewReader(b), func(ulid.ULID) bool { return true })
		if kind := errs.KindOf(err); kind != errs.OK && kind != errs.Invalid {
			t.Fatalf("%s: %v", kind, err)
		}
		fetcher := NewFetcher(objstore.NewInMemBucket(), FetcherOptions{Mimir: true, TenantLabel: "t"})
		for i := range ix.blocks {
			m, err := fetcher.adopted(&ix.blocks[i], "a")
			if err == nil && !maps.Equal(m.Thanos.Labels, map[string]string{"t": "a"}) {
				t.Fatalf("%+v", m)
			}
		}
	})
}

// TestMimirIsNeverWrittenTo: a bucket in Mimir's layout is recognised, and neither claimed nor indexed.
func TestMimirIsNeverWrittenTo(t *testing.T) {
	f := func(mimir bool, names ...string) {
		t.Helper()
		bkt := objstore.NewInMemBucket()
		for _, name := range names {
			put1(t, bkt, name, "{}")
		}
		if got, err := InMimirsLayout(t.Context(), bkt); got != mimir || err != nil {
			t.Errorf("%v: %v, %v", names, got, err)
		}
		own := Owner{"c", "tenant_id", "receive_replica"}
		if !mimir {
			return
		}
		check := func(id Identity) error { return id.MayWrite(own, labels.EmptyLabels()) }
		if _, err := Claim(t.Context(), bkt, own, check); errs.KindOf(err) != errs.Conflict {
			t.Errorf("claim: %v", err)
		}
		if _, err := NewFetcher(bkt, FetcherOptions{}).WriteIndex(t.Context(), bkt); errs.KindOf(err) != errs.Conflict {
			t.Errorf("index: %v", err)
		}
		if got := len(bkt.Objects()); got != len(names) {
			t.Errorf("%d objects, want %d", got, len(names))
		}
	}
	id := mimirID(1).String()
	f(false)
	f(false, "x", "a/b", "a/c/"+id+"/index")
	f(false, "debug/metas/"+id+".json", "hearth/"+id+"/x")
	f(false, id+"/meta.json", "a/"+id+"/meta.json")
	f(true, "a/"+id+"/meta.json")
	f(true, "a/x", "b/bucket-index.json.gz")
	f(true, id+"/meta.json", "bucket-index.json.gz")

	bkt := &countingBucket{Bucket: objstore.NewInMemBucket()}
	bkt.fail(func(verb, _ string) bool { return verb == "list" })
	if _, err := InMimirsLayout(t.Context(), bkt); errs.KindOf(err) != errs.Unavailable {
		t.Error(err)
	}
}
