package upload

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/block/faulty"
	"github.com/hearth-metrics/hearth/block/verify"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// local is a block of a Prometheus on disk: what its files have, by their paths, and its meta.json.
type local struct {
	id    ulid.ULID
	files map[string][]byte
	meta  map[string]any
}

func newLocal(t testing.TB) *local {
	t.Helper()
	var all []storage.Series
	for i := range 5 {
		name := labels.FromStrings("__name__", "up", "i", fmt.Sprint(i))
		all = append(all, storage.NewListSeries(name, chunks.GenerateSamples(1_700_000_000_000, 300)))
	}
	dir, err := tsdb.CreateBlock(all, t.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := &local{id: ulid.MustParse(filepath.Base(dir)), files: map[string][]byte{}}
	for _, rel := range []string{block.MetaName, block.IndexName, "chunks/000001"} {
		if l.files[rel], err = os.ReadFile(filepath.Join(dir, rel)); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.Unmarshal(l.files[block.MetaName], &l.meta); err != nil {
		t.Fatal(err)
	}
	delete(l.files, block.MetaName)
	return l
}

// begin is the meta.json that mimirtool sends first: with the files of the block.
func (l *local) begin() []byte {
	files := []map[string]any{{"rel_path": block.MetaName}}
	for _, rel := range slices.Sorted(maps.Keys(l.files)) {
		files = append(files, map[string]any{"rel_path": rel, "size_bytes": len(l.files[rel])})
	}
	meta := maps.Clone(l.meta)
	meta["thanos"] = map[string]any{"files": files, "labels": map[string]string{"__org_id__": "1"}}
	raw, _ := json.Marshal(meta)
	return raw
}

// server is a Receiver behind HTTP.
type server struct {
	*testing.T
	*Receiver
	url string
}

func serve(t *testing.T, bkt objstore.Bucket, change func(*Options)) *server {
	t.Helper()
	o := DefaultOptions()
	o.Dir, o.TenantLabel = t.TempDir(), "tenant_id"
	if change != nil {
		change(&o)
	}
	r := New(slog.New(slog.DiscardHandler), nil, bkt, o)
	r.retry = time.Millisecond
	mux := http.NewServeMux()
	for _, route := range r.Routes(tenant.Resolver{}.Write) {
		mux.Handle(route.Pattern, route.Handler)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(func() { s.Close(); _ = r.Close() })
	return &server{t, r, s.URL}
}

// do makes a request as mimirtool does, for tenant a, and returns its status and answer.
func (s *server) do(method, id, verb string, body []byte) (int, string) {
	s.Helper()
	return s.as("a", method, id, verb, body)
}

func (s *server) as(t, method, id, verb string, body []byte) (int, string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+"/api/v1/upload/block/"+id+"/"+verb, bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set(tenant.HeaderOrgID, t)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// want makes a request whose answer has a status and a text.
func (s *server) want(status int, text, method, id, verb string, body []byte) {
	s.Helper()
	if got, answer := s.do(method, id, verb, body); got != status || !strings.Contains(answer, text) {
		s.Errorf("%s %s: %d %s, want %d with %q", method, verb, got, answer, status, text)
	}
}

// send sends all of a block, up to finish.
func (s *server) send(l *local) {
	s.Helper()
	id := l.id.String()
	s.want(200, "", "POST", id, "start", l.begin())
	s.want(200, `"result":"uploading"`, "GET", id, "check", nil)
	for rel, raw := range l.files {
		s.want(200, "", "POST", id, "files?path="+url.QueryEscape(rel), raw)
	}
	s.want(200, "", "POST", id, "finish", nil)
}

// result waits until a block is checked, and returns what came of it.
func (s *server) result(id ulid.ULID) string {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		status, answer := s.do("GET", id.String(), "check", nil)
		if status != 200 {
			s.Fatalf("check: %d %s", status, answer)
		}
		if !strings.Contains(answer, `"validating"`) {
			return answer
		}
	}
	s.Fatal("the block is being checked for ever")
	return ""
}

// names are all objects of a bucket but copies for people.
func names(bkt *objstore.InMemBucket) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(bkt.Objects())) {
		if !strings.HasPrefix(name, "debug/") {
			all = append(all, name)
		}
	}
	return all
}

// TestUpload: a block that mimirtool sends becomes one of its tenant, with nothing that it says of itself beyond its
// times and numbers.
func TestUpload(t *testing.T) {
	bkt, l := objstore.NewInMemBucket(), newLocal(t)
	s, id := serve(t, bkt, nil), l.id.String()
	l.meta["compaction"] = map[string]any{"level": 3, "sources": []string{ulid.Make().String()}, "parents": []any{}}
	s.want(404, "begin it anew", "GET", id, "check", nil)
	s.want(404, "begin it anew", "POST", id, "finish", nil)
	s.want(404, "begin it anew", "POST", id, "files?path=index", l.files["index"])
	s.send(l)
	if got := s.result(l.id); got != "{\"result\":\"complete\"}\n" {
		t.Fatal(got)
	}
	m, err := block.FetchMeta(t.Context(), bkt, l.id)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(m.Thanos.Labels, map[string]string{"tenant_id": "a"}) || m.Thanos.Source != block.SourceUpload ||
		!slices.Equal(m.Compaction.Sources, []ulid.ULID{l.id}) || m.Compaction.Level != 3 || m.Stats.NumSamples != 1500 {
		t.Errorf("%+v", m)
	}
	if found, err := verify.Scan(t.Context(), bkt, m, t.TempDir(), true); err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
	want := []string{block.Object(l.id, "chunks/000001"), block.Object(l.id, "index"), block.Object(l.id, block.IndexHeaderName),
		block.Object(l.id, block.MetaName)}
	slices.Sort(want)
	if got := names(bkt); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s.want(409, "already", "POST", id, "start", l.begin())
	s.want(409, "already", "POST", id, "finish", nil)
	if status, _ := s.as("b", "GET", id, "check", nil); status != 404 {
		t.Errorf("another tenant's block is shown: %d", status)
	}
}

// TestBegins: which meta.json begins no upload.
func TestBegins(t *testing.T) {
	s, l := serve(t, objstore.NewInMemBucket(), func(o *Options) { o.MaxBytes = 1 << 20 }), newLocal(t)
	f := func(status int, text string, change func(meta, thanos map[string]any)) {
		t.Helper()
		meta := map[string]any{}
		_ = json.Unmarshal(l.begin(), &meta)
		change(meta, meta["thanos"].(map[string]any))
		raw, _ := json.Marshal(meta)
		s.want(status, text, "POST", l.id.String(), "start", raw)
	}
	set := func(key string, v any) func(meta, thanos map[string]any) {
		return func(meta, _ map[string]any) { meta[key] = v }
	}
	files := func(all ...any) func(meta, thanos map[string]any) {
		return func(_, thanos map[string]any) {
			var list []any
			for i := 0; i < len(all); i += 2 {
				list = append(list, map[string]any{"rel_path": all[i], "size_bytes": all[i+1]})
			}
			thanos["files"] = list
		}
	}
	f(400, "ulid", set("ulid", ulid.Make().String()))
	f(400, "version", set("version", 2))
	f(400, "time", set("minTime", -1))
	f(400, "maxTime 0", set("maxTime", 0))
	f(400, "spans", set("minTime", 0))
	f(400, "future", func(meta, _ map[string]any) {
		now := time.Now().Add(time.Hour).UnixMilli()
		meta["minTime"], meta["maxTime"] = now-1, now
	})
	f(400, "stats", set("stats", map[string]any{}))
	f(400, "failed", set("compaction", map[string]any{"failed": true}))
	f(400, "downsampled", func(_, thanos map[string]any) { thanos["downsample"] = map[string]any{"resolution": 300_000} })
	f(400, "cluster", func(_, thanos map[string]any) { thanos["labels"] = map[string]string{"cluster": "x"} })
	f(400, "0 indexes", files())
	f(400, "2 indexes", files("index", 1, "index", 1, "chunks/000001", 1))
	f(400, "0 segments", files("index", 1))
	f(400, "chunks/000001", files("index", 1, "chunks/000002", 1))
	f(400, "chunks/000002", files("index", 1, "chunks/000001", 1, "chunks/000001", 1))
	f(400, "neither", files("index", 1, "chunks/000001", 1, "tombstones", 1))
	f(400, "neither", files("index", 1, "chunks/000001", 1, "chunks/1", 1))
	f(400, "0 segments", files("index", 1, "../chunks/000001", 1)) // ReadMeta leaves out what is no path
	f(400, "no size", files("index", 0, "chunks/000001", 1))
	f(400, "may have", files("index", 1, "chunks/000001", 5<<30))
	f(413, "may have", files("index", 1, "chunks/000001", 2<<20))
	s.want(413, "more than", "POST", l.id.String(), "start", make([]byte, maxSession+1))
	s.want(400, "", "POST", l.id.String(), "start", nil)
	s.want(400, "no id", "POST", "x", "start", l.begin())
	s.want(400, "no id", "POST", strings.ToLower(l.id.String()), "start", l.begin())
	if got := names(s.bkt.(*objstore.InMemBucket)); len(got) > 0 {
		t.Errorf("%q were written", got)
	}
}

// TestFiles: a file is taken only by its name and with its size, and never in the directory of the block.
func TestFiles(t *testing.T) {
	bkt, l := objstore.NewInMemBucket(), newLocal(t)
	s, id := serve(t, bkt, nil), l.id.String()
	s.want(200, "", "POST", id, "start", l.begin())
	for _, path := range []string{"", "meta.json", "chunks/000002", "../index", "/index", "chunks/../index", "index\x00", "index/"} {
		s.want(400, "none of the files", "POST", id, "files?path="+url.QueryEscape(path), l.files["index"])
	}
	s.want(400, "bytes", "POST", id, "files?path=index", l.files["index"][1:])
	s.want(400, "bytes", "POST", id, "files?path=index", append(slices.Clone(l.files["index"]), 0))
	for _, body := range []string{"x", strings.Repeat("x", len(l.files["index"])+1)} {
		if err := s.put(t.Context(), l.id, "a", "index", strings.NewReader(body), -1); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%d bytes of no known length: %v", len(body), err)
		}
	}
	if status, _ := s.as("b", "POST", id, "files?path=index", l.files["index"]); status != 404 {
		t.Errorf("another tenant's upload takes files: %d", status)
	}
	s.want(200, "", "POST", id, "files?path=index", l.files["index"])
	s.want(400, "was not sent", "POST", id, "finish", nil)
	for _, name := range names(bkt) {
		if !strings.HasPrefix(name, folder) {
			t.Errorf("%s was written", name)
		}
	}
	other := newLocal(t) // what something else writes
	if err := bkt.Upload(t.Context(), block.Object(other.id, "index"), strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	s.want(409, "something else", "POST", other.id.String(), "start", other.begin())
}

// TestFaultyBlock: what is wrong with the bytes of a block is found, said, and removed; the upload can begin anew.
func TestFaultyBlock(t *testing.T) {
	f := func(text string, change func(l *local)) {
		t.Helper()
		bkt, l := objstore.NewInMemBucket(), newLocal(t)
		s, good := serve(t, bkt, nil), maps.Clone(l.files)
		change(l)
		s.send(l)
		if got := s.result(l.id); !strings.Contains(got, `"failed"`) || !strings.Contains(got, text) {
			t.Errorf("%s, want %q", got, text)
		}
		if got := names(bkt); !slices.Equal(got, []string{sessionName(l.id)}) {
			t.Errorf("%q are left", got)
		}
		s.want(409, "anew", "POST", l.id.String(), "finish", nil)
		s.want(409, "anew", "POST", l.id.String(), "files?path=index", l.files["index"])
		l.files = good
		l.meta["stats"] = newLocal(t).meta["stats"]
		s.send(l)
		if got := s.result(l.id); !strings.Contains(got, `"complete"`) {
			t.Errorf("the second time: %s", got)
		}
	}
	turned := func(rel string, at int) func(l *local) {
		return func(l *local) {
			l.files[rel] = slices.Clone(l.files[rel])
			l.files[rel][(at+len(l.files[rel]))%len(l.files[rel])] ^= 1
		}
	}
	f("checksum", turned("chunks/000001", 60))
	f("begins with", turned("chunks/000001", 0))
	f("", turned("index", 200))
	f("", turned("index", -1))
	f("", func(l *local) { l.files["index"] = []byte("no index") })
	f("meta.json says", func(l *local) {
		l.meta["stats"] = map[string]any{"numSeries": 5, "numSamples": 1, "numChunks": l.meta["stats"].(map[string]any)["numChunks"]}
	})
}

// TestBounds: what a tenant has in unfinished uploads is bounded, and so is how many blocks are checked at once.
func TestBounds(t *testing.T) {
	a, b := newLocal(t), newLocal(t)
	size := 0
	for _, raw := range a.files {
		size += len(raw)
	}
	s := serve(t, objstore.NewInMemBucket(), func(o *Options) { o.MaxBytes = int64(size) + 10 })
	s.want(200, "", "POST", a.id.String(), "start", a.begin())
	s.want(200, "", "POST", a.id.String(), "start", a.begin()) // it counts once
	s.want(429, "unfinished", "POST", b.id.String(), "start", b.begin())
	if status, answer := s.as("b", "POST", b.id.String(), "start", b.begin()); status != 200 {
		t.Errorf("another tenant: %d %s", status, answer)
	}
	s.want(409, "already", "POST", b.id.String(), "start", b.begin())
	s.at[ulid.Make()] = true // another block is being checked
	for rel, raw := range a.files {
		s.want(200, "", "POST", a.id.String(), "files?path="+url.QueryEscape(rel), raw)
	}
	s.want(429, "other blocks", "POST", a.id.String(), "finish", nil)
	clear(s.at)
	s.want(200, "", "POST", a.id.String(), "finish", nil)
	if got := s.result(a.id); !strings.Contains(got, `"complete"`) {
		t.Error(got)
	}
	s.opts.Refuse = true
	s.want(403, "disable-admin-operations", "POST", a.id.String(), "finish", nil)
}

// TestOutlives: an upload goes on after the process that took it is gone, also in the middle of its check, and ends
// with its lifetime.
func TestOutlives(t *testing.T) {
	bkt, l := objstore.NewInMemBucket(), newLocal(t)
	first := serve(t, bkt, nil)
	id := l.id.String()
	first.want(200, "", "POST", id, "start", l.begin())
	second := serve(t, bkt, nil)
	for rel, raw := range l.files {
		second.want(200, "", "POST", id, "files?path="+url.QueryEscape(rel), raw)
	}
	gone := serve(t, bkt, nil)
	ctx, cancel := context.WithCancel(t.Context())
	gone.ctx = ctx
	cancel() // it is stopped with the finish that it answered
	session, err := gone.read(t.Context(), l.id)
	if err != nil {
		t.Fatal(err)
	}
	session.State, session.By, session.Touched = validating, gone.name, time.Now()
	if err := gone.write(t.Context(), l.id, session); err != nil {
		t.Fatal(err)
	}
	var later atomic.Int64
	third := serve(t, bkt, func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	sweep := func() {
		t.Helper()
		if err := third.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	third.want(200, `"validating"`, "GET", id, "check", nil) // the other process may still be there
	third.want(409, "already", "POST", id, "start", l.begin())
	later.Store(int64(staleAfter))
	sweep()
	if got := third.result(l.id); !strings.Contains(got, `"complete"`) {
		t.Fatal(got)
	}

	other, broken := newLocal(t), newLocal(t)
	third.want(200, "", "POST", other.id.String(), "start", other.begin())
	third.want(200, "", "POST", other.id.String(), "files?path=index", other.files["index"])
	before := len(names(bkt))
	sweep()
	if got := names(bkt); len(got) != before {
		t.Errorf("an upload was removed in its time: %q", got)
	}
	// What a write that came late left, without a session.
	if err := bkt.Upload(t.Context(), stagedName(broken.id, "index"), strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	later.Store(int64(25 * time.Hour))
	sweep()
	for _, name := range names(bkt) {
		if !strings.HasPrefix(name, id) {
			t.Errorf("%s stays", name)
		}
	}
	third.want(404, "begin it anew", "POST", other.id.String(), "finish", nil)
}

// TestFaults: whatever request of a check fails, no block is visible that is not whole, the upload is not called
// faulty, and the next try ends as an undisturbed one does.
func TestFaults(t *testing.T) {
	l := newLocal(t)
	start := func() (*objstore.InMemBucket, *session) {
		bkt := objstore.NewInMemBucket()
		r := serve(t, bkt, nil).Receiver
		if err := r.start(t.Context(), l.id, "a", l.begin()); err != nil {
			t.Fatal(err)
		}
		for rel, raw := range l.files {
			if err := r.put(t.Context(), l.id, "a", rel, bytes.NewReader(raw), int64(len(raw))); err != nil {
				t.Fatal(err)
			}
		}
		s, err := r.read(t.Context(), l.id)
		if err != nil {
			t.Fatal(err)
		}
		return bkt, s
	}
	bkt, s := start()
	count := &faulty.Bucket{Bucket: bkt}
	if err := serve(t, count, nil).commit(t.Context(), l.id, s); err != nil {
		t.Fatal(err)
	}
	want := names(bkt)
	if len(want) != 4 {
		t.Fatalf("%q", want)
	}
	for at := 1; at <= count.N; at++ {
		for _, all := range []bool{false, true} {
			for _, effect := range []bool{false, true} {
				bkt, s := start()
				err := serve(t, &faulty.Bucket{Bucket: bkt, At: at, All: all, Effect: effect}, nil).commit(t.Context(), l.id, s)
				if kind := errs.KindOf(err); err != nil && kind != errs.Unavailable && kind != errs.Internal {
					t.Errorf("request %d: the block is blamed: %v", at, err)
				}
				got := names(bkt)
				if slices.Contains(got, block.Object(l.id, block.MetaName)) {
					for _, name := range want {
						if !slices.Contains(got, name) {
							t.Errorf("request %d: half of a block is visible: %q", at, got)
						}
					}
				}
				if err := serve(t, bkt, nil).commit(t.Context(), l.id, s); err != nil {
					t.Errorf("request %d, again: %v", at, err)
				}
				if got := names(bkt); !slices.Equal(got, want) {
					t.Errorf("request %d: %q", at, got)
				}
			}
		}
	}
}

// FuzzBegin: no meta.json makes it panic, and one that is taken names only files of a block, and its tenant alone.
func FuzzBegin(f *testing.F) {
	l := newLocal(f)
	f.Add(l.begin())
	f.Add([]byte(`{"ulid":"` + l.id.String() + `","minTime":1,"maxTime":9223372036854775807,"version":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o := DefaultOptions()
		o.TenantLabel = "tenant_id"
		m, err := metaOf(raw, l.id, "a", &o, time.Now())
		if err != nil {
			return
		}
		for _, file := range m.Thanos.Files {
			if file.RelPath != block.IndexName && !segmentName.MatchString(file.RelPath) || file.SizeBytes <= 0 {
				t.Errorf("%+v", file)
			}
		}
		if !maps.Equal(m.Thanos.Labels, map[string]string{"tenant_id": "a"}) || m.Origin != nil || len(m.Thanos.Extensions) > 0 {
			t.Errorf("%+v", m)
		}
	})
}

// TestDeletedTenant: a tenant that is to be deleted brings no blocks, also those that were begun before; another one
// does. After it was made anew it brings those that were made since.
func TestDeletedTenant(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	var ahead time.Duration
	s := serve(t, bkt, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(ahead) } })
	l := newLocal(t)
	id := l.id.String()
	s.want(200, "", "POST", id, "start", l.begin())
	for rel, raw := range l.files {
		s.want(200, "", "POST", id, "files?path="+url.QueryEscape(rel), raw)
	}
	request := deletion.New("a", time.Now(), time.Hour)
	if err := deletion.Put(t.Context(), bkt, request); err != nil {
		t.Fatal(err)
	}
	s.want(200, "", "POST", id, "finish", nil)
	if got := s.result(l.id); !strings.Contains(got, `"failed"`) || !strings.Contains(got, "is to be deleted") {
		t.Errorf("begun before: %s", got)
	}
	s.want(400, "is to be deleted", "POST", id, "start", l.begin())
	other := newLocal(t)
	if code, text := s.as("b", "POST", other.id.String(), "start", other.begin()); code != 200 {
		t.Errorf("another tenant: %d %s", code, text)
	}
	ahead = 2 * time.Hour
	if err := deletion.PutRenewal(t.Context(), bkt, deletion.NewChange(request.ID, time.Now().Add(ahead))); err != nil {
		t.Fatal(err)
	}
	ahead += time.Minute
	s.want(400, "before tenant", "POST", id, "start", l.begin())
}
