package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func fetch(t *testing.T, f *Fetcher) View {
	t.Helper()
	v, err := f.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func put1(t testing.TB, bkt objstore.Bucket, name, content string) {
	t.Helper()
	if err := bkt.Upload(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// TestUploadFaults breaks the upload off after each write: readers see no block until meta.json is there, and a second
// upload completes the first.
func TestUploadFaults(t *testing.T) {
	dir, meta := localBlock(t, 2)
	for steps := range 5 {
		bkt := objstore.NewInMemBucket()
		err := Upload(t.Context(), &faultBucket{Bucket: bkt, left: steps}, dir, meta)
		visible := steps >= 3
		if (err == nil) != visible {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		if err != nil && errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("after %d steps: kind %s", steps, errs.KindOf(err))
		}
		v := fetch(t, NewFetcher(bkt, FetcherOptions{}))
		if got := v.Metas[meta.ULID] != nil; got != visible {
			t.Fatalf("after %d steps: visible %v", steps, got)
		}
		if steps > 0 && !visible && errs.KindOf(v.Partial[meta.ULID]) != errs.NotFound {
			t.Fatalf("after %d steps: partial %v", steps, v.Partial)
		}
		again := &faultBucket{Bucket: bkt, left: -1}
		if err := Upload(t.Context(), again, dir, meta); err != nil {
			t.Fatal(err)
		}
		if want := max(0, 4-steps); !visible && len(again.log) != want {
			t.Fatalf("after %d steps the second upload wrote %v", steps, again.log)
		}
		if fetch(t, NewFetcher(bkt, FetcherOptions{})).Metas[meta.ULID] == nil {
			t.Fatal("not visible at the end")
		}
	}
}

// TestUploadReplacesTruncated covers what a crash leaves in a FILESYSTEM bucket.
func TestUploadReplacesTruncated(t *testing.T) {
	dir, meta := localBlock(t, 2)
	bkt := objstore.NewInMemBucket()
	put1(t, bkt, Object(meta.ULID, IndexName), "short")
	put1(t, bkt, Object(meta.ULID, MetaName), `{"ulid":`)
	if v := fetch(t, NewFetcher(bkt, FetcherOptions{})); errs.KindOf(v.Partial[meta.ULID]) != errs.Invalid {
		t.Fatalf("partial: %v", v.Partial)
	}
	if err := Upload(t.Context(), bkt, dir, meta); err != nil {
		t.Fatal(err)
	}
	down := filepath.Join(t.TempDir(), meta.ULID.String())
	if _, err := Download(t.Context(), bkt, meta.ULID, down); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{IndexName, "chunks/000001"} {
		a, _ := os.ReadFile(filepath.Join(dir, name))
		b, err := os.ReadFile(filepath.Join(down, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Fatalf("%s differs: %v", name, err)
		}
	}
	if _, err := Download(t.Context(), bkt, meta.ULID, down); errs.KindOf(err) != errs.Conflict {
		t.Fatalf("download over an existing directory: %v", err)
	}
}

func TestUploadRefuses(t *testing.T) {
	dir, meta := localBlock(t, 1)
	f := func(dir string, m Meta) {
		t.Helper()
		bkt := objstore.NewInMemBucket()
		if err := Upload(t.Context(), bkt, dir, m); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("got %v", err)
		}
		if len(bkt.Objects()) != 0 {
			t.Fatal("wrote something")
		}
	}
	other := meta
	other.ULID = ulid.MustNew(1, zeros{})
	f(dir, other)
	old := meta
	old.Version = 2
	f(dir, old)
	f(filepath.Join(t.TempDir(), meta.ULID.String()), meta) // no such directory
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestDeleteOrder breaks the deletion off after each step: never a meta.json with anything else missing, and the mark
// goes last.
func TestDeleteOrder(t *testing.T) {
	dir, meta := localBlock(t, 2)
	id := meta.ULID
	for steps := range 7 {
		bkt := objstore.NewInMemBucket()
		if err := Upload(t.Context(), bkt, dir, meta); err != nil {
			t.Fatal(err)
		}
		if err := MarkDeletion(t.Context(), bkt, id, "test", time.Unix(100, 0)); err != nil {
			t.Fatal(err)
		}
		put1(t, bkt, Object(id, "foreign.bin"), "x")
		before := len(bkt.Objects())
		err := Delete(t.Context(), &faultBucket{Bucket: bkt, left: steps}, id)
		if (err == nil) != (steps >= 6) {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		left := bkt.Objects()
		if _, hasCopy := left[marksFolder+id.String()+"-"+DeletionMarkName]; hasCopy != (steps < 6) {
			t.Fatalf("after %d steps: Hearth's copy of the mark: %v", steps, hasCopy)
		}
		_, hasMeta := left[Object(id, MetaName)]
		_, hasMark := left[Object(id, DeletionMarkName)]
		if hasMeta && len(left) != before {
			t.Fatalf("after %d steps: meta.json outlived others", steps)
		}
		if !hasMark && steps < 5 {
			t.Fatalf("after %d steps: the mark went before others", steps)
		}
		if err := Delete(t.Context(), bkt, id); err != nil {
			t.Fatal(err)
		}
		stay := 1 // debug/metas
		if steps == 5 {
			stay = 2 // nothing says any more that there is a copy of a mark; who writes the index removes it
		}
		if n := len(bkt.Objects()); n != stay {
			t.Fatalf("after %d steps: %d objects stay", steps, n)
		}
	}
}

func TestMarks(t *testing.T) {
	_, meta := localBlock(t, 1)
	id, bkt := meta.ULID, objstore.NewInMemBucket()
	ctx := t.Context()
	if _, err := ReadDeletionMark(ctx, bkt, id); errs.KindOf(err) != errs.NotFound {
		t.Fatal(err)
	}
	for range 2 { // the second does not change the first
		if err := MarkDeletion(ctx, bkt, id, "d", time.Unix(100, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := MarkDeletion(ctx, bkt, id, "later", time.Unix(200, 0)); err != nil {
		t.Fatal(err)
	}
	if err := MarkNoCompact(ctx, bkt, id, ReasonManual, "c", time.Unix(101, 0)); err != nil {
		t.Fatal(err)
	}
	if err := MarkNoDownsample(ctx, bkt, id, ReasonManual, "n", time.Unix(102, 0)); err != nil {
		t.Fatal(err)
	}
	want := `{"id":"` + id.String() + `","version":1,"details":"d","deletion_time":100}`
	if got := string(bkt.Objects()[Object(id, DeletionMarkName)]); got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	f := NewFetcher(bkt, FetcherOptions{})
	v := fetch(t, f)
	if v.Deletions[id].DeletionTime != 100 || v.NoCompact[id].Reason != "manual" ||
		v.NoDownsample[id].NoDownsampleTime != 102 {
		t.Fatalf("%+v", v)
	}
	if err := Unmark(ctx, bkt, id, DeletionMarkName); err != nil {
		t.Fatal(err)
	}
	if v = fetch(t, f); len(v.Deletions) != 0 || len(v.NoCompact) != 1 {
		t.Fatalf("%+v", v)
	}
	put1(t, bkt, Object(id, DeletionMarkName), `{"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","version":1}`)
	if v = fetch(t, f); len(v.Deletions) != 0 || len(v.MarkFaults) != 1 {
		t.Fatalf("a mark of another block: %+v", v)
	}
}

func TestFetcher(t *testing.T) {
	for _, flat := range []bool{false, true} {
		mem := objstore.NewInMemBucket()
		bkt := &countingBucket{Bucket: objstore.NewPrefixedBucket(mem, "some/prefix"), flat: flat}
		dir1, meta1 := localBlock(t, 1)
		dir2, meta2 := localBlock(t, 2)
		for _, up := range []func() error{
			func() error { return Upload(t.Context(), bkt, dir1, meta1) },
			func() error { return Upload(t.Context(), bkt, dir2, meta2) },
			func() error { return MarkDeletion(t.Context(), bkt, meta2.ULID, "", time.Unix(1, 0)) },
		} {
			if err := up(); err != nil {
				t.Fatal(err)
			}
		}
		bad := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
		put1(t, bkt, Object(bad, MetaName), `{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAW","version":1}`)
		put1(t, bkt, "01arz3ndektsv4rrffq69g5faw/meta.json", `{}`)    // not canonical
		put1(t, bkt, "../01ARZ3NDEKTSV4RRFFQ69G5FAV/meta.json", `{}`) // not a block
		put1(t, bkt, "some-file", `{}`)
		cache := t.TempDir()
		f := NewFetcher(bkt, FetcherOptions{CacheDir: cache})
		bkt.gets = 0
		v := fetch(t, f)
		if len(v.Metas) != 2 || len(v.Deletions) != 1 || len(v.Partial) != 1 || errs.KindOf(v.Partial[bad]) != errs.Invalid {
			t.Fatalf("flat %v: %d metas, %d deletions, partial %v", flat, len(v.Metas), len(v.Deletions), v.Partial)
		}
		bkt.gets = 0
		if v = fetch(t, f); len(v.Metas) != 2 || bkt.gets != 2 { // the pointer, and the bad one is looked at again
			t.Fatalf("flat %v: the second fetch read %d objects", flat, bkt.gets)
		}
		bkt.gets = 0
		if v = fetch(t, NewFetcher(bkt, FetcherOptions{CacheDir: cache})); len(v.Metas) != 2 || bkt.gets != 3 {
			t.Fatalf("flat %v: %d objects read with the disk cache", flat, bkt.gets)
		}
		if err := Delete(t.Context(), bkt, meta1.ULID); err != nil {
			t.Fatal(err)
		}
		if v = fetch(t, f); v.Metas[meta1.ULID] != nil || len(v.Metas) != 1 {
			t.Fatalf("flat %v: a deleted block stays", flat)
		}
	}
}

func TestFetcherListingFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewFetcher(objstore.NewInMemBucket(), FetcherOptions{}).Fetch(ctx); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestOpenBucket(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Setenv("HEARTH_TEST_DIR", t.TempDir())
	bkt, err := OpenBucket(log, nil, "bucket.yml",
		[]byte("type: FILESYSTEM\nconfig: {directory: $(HEARTH_TEST_DIR)/b}\nprefix: p\nhedging_config: {enabled: true}\n"),
		"test")
	if err != nil {
		t.Fatal(err)
	}
	put1(t, bkt, "x", "y")
	if _, err := os.Stat(filepath.Join(os.Getenv("HEARTH_TEST_DIR"), "b", "p", "x")); err != nil {
		t.Fatal(err)
	}
	f := func(content, want string) {
		t.Helper()
		_, err := OpenBucket(log, nil, "bucket.yml", []byte(content), "test")
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Fatalf("%q: %v", content, err)
		}
	}
	f("", "empty")
	f("type: NONE", "there is no such object store; known are ALIYUNOSS")
	f("config: {}", "bucket.yml:1: type: is missing")
	f("type: S3\nconfig:\n  bukcet: b\n", "bucket.yml:3: config: bukcet: there is no such key here; did you mean bucket?")
	f("type: S3\nconfig: {bucket: b, http_config: {idle_conn_timout: 1m}}",
		"config: http_config: idle_conn_timout: there is no such key here; did you mean idle_conn_timeout?")
	f("type: FILESYSTEM\nconfig: {directory: $(HEARTH_TEST_UNSET)}", "HEARTH_TEST_UNSET")
	f("type: FILESYSTEM\nconfig: {}", "directory")
	f("{", "bucket.yml")
	f("type: FILESYSTEM\nunknown: 1\nconfig: {directory: x}", "unknown")
}

const thanosMeta = `{
	"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
	"minTime": 1000,
	"maxTime": 2000,
	"stats": {
		"numSamples": 3
	},
	"compaction": {
		"level": 1
	},
	"version": 1,
	"thanos": {
		"version": 1,
		"labels": {
			"a": "b"
		},
		"downsample": {
			"resolution": 300000
		},
		"source": "compactor",
		"files": [
			{
				"rel_path": "index",
				"size_bytes": 7
			}
		],
		"rewrites": [
			{
				"sources": []
			}
		],
		"index_stats": {
			"series_max_size": 9
		},
		"extensions": {
			"x": 1
		},
		"upload_time": "0001-01-01T00:00:00Z"
	}
}
`

func TestMetaRoundTrip(t *testing.T) {
	id := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	m, err := ReadMeta(strings.NewReader(thanosMeta), id)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil || b.String() != thanosMeta {
		t.Fatalf("%v:\n%s", err, b.String())
	}
	f := func(old, new string) {
		t.Helper()
		if _, err := ReadMeta(strings.NewReader(strings.Replace(thanosMeta, old, new, 1)),
			id); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("%s: %v", new, err)
		}
	}
	f(`"version": 1,`+"\n\t\"thanos", `"version": 2,`+"\n\t\"thanos")
	f("Q69G5FAV", "Q69G5FAW")
	f(`"maxTime": 2000`, `"maxTime": 20`)
	f(`"labels": {`, `"labels": [`)
	f(`"resolution": 300000`, `"resolution": "5m"`)
	f(`"resolution": 300000`, `"resolution": -1`)
	f(`"a": "b"`, `"a": 1`)

	// What is not needed to serve the block is advice.
	for old, new := range map[string]string{
		`"thanos": {` + "\n\t\t\"version\": 1":  `"thanos": {` + "\n\t\t\"version\": 2",
		`"rel_path": "index"`:                   `"rel_path": "../index"`,
		`"size_bytes": 7`:                       `"size_bytes": -7`,
		`"numSamples": 3`:                       `"numSamples": "many"`,
		`"level": 1`:                            `"level": "one", "sources": 7, "parents": {}, "hints": 1`,
		`"compaction": {`:                       `"compaction": 1, "x": {`,
		`"source": "compactor"`:                 `"source": ["compactor"], "segment_files": 1`,
		`"series_max_size": 9`:                  `"series_max_size": 1e30`,
		`"index_stats": {`:                      `"index_stats": [], "y": {`,
		`"files": [`:                            `"files": 7, "z": [`,
		`"upload_time": "0001-01-01T00:00:00Z"`: `"upload_time": "yesterday"`,
		`"maxTime": 2000,`:                      `"maxTime": 2000, "future": {"a": [1, null]},`,
	} {
		text := strings.Replace(thanosMeta, old, new, 1)
		m, err := ReadMeta(strings.NewReader(text), id)
		if err != nil || text == thanosMeta || m.Thanos.Labels["a"] != "b" || m.Thanos.Downsample.Resolution != 300000 ||
			m.MaxTime != 2000 {
			t.Errorf("%s: %+v, %v", new, m, err)
		}
	}
}

// TestMetaKeepsUnknown: fields that Hearth does not know are written again wherever they are, in a copy as well.
func TestMetaKeepsUnknown(t *testing.T) {
	const in = `{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": 1000, "maxTime": 2000, "version": 1, "z": [1, {"a": null}],
		"stats": {"numSamples": 3, "numExemplars": 12345678901234567890},
		"compaction": {"level": 2, "why": "x", "parents": [
			{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FA1", "minTime": 1, "maxTime": 2, "p": 1},
			{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FA2", "minTime": 1, "maxTime": 2}]},
		"thanos": {"labels": {"a": "b"}, "downsample": {"resolution": 0, "d": true}, "Source": "compactor",
			"index_stats": {"series_max_size": 9, "names": 4}, "Future": {"x": {"y": "<z>"}},
			"files": [{"rel_path": "index", "size_bytes": 7, "hash": {"hashFunc": "SHA256", "value": "v", "h": 1}, "f": 1.50},
				{"rel_path": "chunks/000001", "size_bytes": 8, "f": 2}]}}`
	id := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	read, err := ReadMeta(strings.NewReader(in), id)
	if err != nil {
		t.Fatal(err)
	}
	m := *read
	m.Thanos.Files = slices.Clone(m.Thanos.Files)
	m.Thanos.Files[1].SizeBytes = 9
	m.MaxTime = 3000
	var out bytes.Buffer
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	const want = `{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":1000,"maxTime":3000,` +
		`"stats":{"numSamples":3,"numExemplars":12345678901234567890},"compaction":{"level":2,"parents":[` +
		`{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FA1","minTime":1,"maxTime":2,"p":1},` +
		`{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FA2","minTime":1,"maxTime":2}],"why":"x"},"version":1,` +
		`"thanos":{"version":1,"labels":{"a":"b"},"downsample":{"resolution":0,"d":true},"source":"compactor","files":[` +
		`{"rel_path":"index","size_bytes":7,"hash":{"hashFunc":"SHA256","value":"v","h":1},"f":1.50},` +
		`{"rel_path":"chunks/000001","size_bytes":9}],"index_stats":{"series_max_size":9,"names":4},` +
		`"upload_time":"0001-01-01T00:00:00Z","Future":{"x":{"y":"<z>"}}},"z":[1,{"a":null}]}`
	var compact bytes.Buffer
	if err := json.Compact(&compact, out.Bytes()); err != nil {
		t.Fatal(err)
	}
	got := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(compact.String())
	if got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func FuzzReadMeta(f *testing.F) {
	f.Add([]byte(thanosMeta))
	f.Add([]byte(`{"version":1,"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","X":1,"thanos":{"files":[{"y":1}],"STATS":{}},"Stats":[]}`))
	f.Add([]byte(`{"version":1,"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}`))
	id := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadMeta(bytes.NewReader(b), id)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := m.Write(&out); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		again, err := ReadMeta(&out, id)
		if err != nil {
			t.Fatalf("does not read what it wrote: %v", err)
		}
		var second bytes.Buffer
		if err := again.Write(&second); err != nil || second.String() != text {
			t.Fatalf("%v: writes\n%s, after\n%s", err, &second, text)
		}
	})
}

func TestUploadWith(t *testing.T) {
	dir, meta := localBlock(t, 3)
	bkt := objstore.NewInMemBucket()
	if err := UploadWith(t.Context(), bkt, dir, meta, UploadOptions{Hash: true, Concurrency: 4}); err != nil {
		t.Fatal(err)
	}
	back, err := FetchMeta(t.Context(), bkt, meta.ULID)
	if err != nil || len(back.Thanos.Files) != 3 {
		t.Fatalf("%d files, %v", len(back.Thanos.Files), err)
	}
	for _, f := range back.Thanos.Files {
		if f.RelPath == MetaName {
			if f.Hash != nil {
				t.Errorf("meta.json has a hash of itself: %v", f.Hash)
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, f.RelPath))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%x", sha256.Sum256(content)); f.Hash == nil || f.Hash.Func != "SHA256" ||
			f.Hash.Value != want {
			t.Errorf("hash of %s: %v, want %s", f.RelPath, f.Hash, want)
		}
	}
}

// TestUploadOverEqualSize: an object of the right size with other bytes, as a crash may leave it, is sent again.
func TestUploadOverEqualSize(t *testing.T) {
	dir, meta := localBlock(t, 2)
	bkt := objstore.NewInMemBucket()
	for _, rel := range []string{IndexName, "chunks/000001"} {
		content, err := os.ReadFile(filepath.Join(dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		if rel == IndexName {
			clear(content)
		}
		put1(t, bkt, Object(meta.ULID, rel), string(content))
	}
	fb := &faultBucket{Bucket: bkt, left: -1}
	if err := Upload(t.Context(), fb, dir, meta); err != nil {
		t.Fatal(err)
	}
	if len(fb.log) != 3 || fb.log[0] != "put "+Object(meta.ULID, IndexName) {
		t.Errorf("wrote %v", fb.log)
	}
}

// TestDownloadResumes: what a broken download has left is used if its checksum is right, and only then.
func TestDownloadResumes(t *testing.T) {
	dir, meta := localBlock(t, 2)
	bkt := &countingBucket{Bucket: objstore.NewInMemBucket()}
	if err := UploadWith(t.Context(), bkt, dir, meta, UploadOptions{Hash: true}); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, IndexName))
	if err != nil {
		t.Fatal(err)
	}
	f := func(name string, left []byte, gets int) {
		t.Helper()
		down := filepath.Join(t.TempDir(), meta.ULID.String())
		tmp := down + ".tmp-for-download"
		if err := os.MkdirAll(filepath.Join(tmp, "chunks", "old"), 0o777); err != nil {
			t.Fatal(err)
		}
		for rel, content := range map[string][]byte{IndexName: left, "chunks/000009": nil, "x": nil} {
			if err := os.WriteFile(filepath.Join(tmp, rel), content, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		bkt.fail(func(verb, object string) bool {
			return verb == "get" && object == Object(meta.ULID, "chunks/000001")
		})
		if _, err := Download(t.Context(), bkt, meta.ULID, down); errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("%s: %v", name, err)
		}
		bkt.fault = nil
		if err := os.WriteFile(filepath.Join(tmp, IndexName), left, 0o666); err != nil {
			t.Fatal(err)
		}
		bkt.costs()
		if _, err := Download(t.Context(), bkt, meta.ULID, down); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c := bkt.costs(); c[0] != gets {
			t.Errorf("%s: %d objects read, want %d", name, c[0], gets)
		}
		var names []string
		_ = filepath.WalkDir(down, func(path string, _ os.DirEntry, _ error) error {
			rel, _ := filepath.Rel(down, path)
			names = append(names, rel)
			return nil
		})
		if got := strings.Join(names, " "); got != ". chunks chunks/000001 index meta.json" {
			t.Errorf("%s: %s", name, got)
		}
		if got, err := os.ReadFile(filepath.Join(down, IndexName)); err != nil || !bytes.Equal(got, index) {
			t.Errorf("%s: another index, %v", name, err)
		}
	}
	f("whole", index, 2+1) // meta.json twice, the chunks
	f("of the right size", make([]byte, len(index)), 2+2)
	f("cut short", index[:len(index)/2], 2+2)

	// An object that differs from its checksum is no block.
	put1(t, bkt.Bucket, Object(meta.ULID, IndexName), string(make([]byte, len(index))))
	down := filepath.Join(t.TempDir(), meta.ULID.String())
	if _, err := Download(t.Context(), bkt, meta.ULID, down); errs.KindOf(err) != errs.Invalid {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(down + "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
