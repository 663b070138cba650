package viewer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
)

func id(n int) ulid.ULID {
	var u ulid.ULID
	u[0], u[14], u[15] = 1, byte(n>>8), byte(n)
	return u
}

func metaOf(n int) *block.Meta {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id(n), Version: 1}}
	m.MinTime, m.MaxTime = int64(n)*1000, int64(n+1)*1000
	m.Stats.NumSeries, m.Compaction.Level = uint64(n), 1+n%3
	m.Thanos.Labels = map[string]string{"tenant": fmt.Sprint(n % 7), "html": `<b>"&`}
	m.Thanos.Source, m.Thanos.Files = "receive", []block.File{{RelPath: "index", SizeBytes: int64(n)}}
	return m
}

func stateOf(n int) State {
	v := block.View{Metas: map[ulid.ULID]*block.Meta{}, Deletions: map[ulid.ULID]block.DeletionMark{id(1): {}},
		NoCompact: map[ulid.ULID]block.NoCompactMark{id(1): {}}}
	s := State{View: v, At: time.Unix(1000, 0).UTC()}
	for i := range n {
		m := metaOf(i)
		v.Metas[m.ULID] = m
		if i%2 == 1 {
			s.Loaded = append(s.Loaded, m)
		}
	}
	return s
}

func serve(v *Viewer, r *http.Request) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	for _, route := range v.Routes() {
		mux.Handle(route.Pattern, route.Handler)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

// decoded is the data of an answer that must be a success.
func decoded[T any](t *testing.T, w *httptest.ResponseRecorder) (data T) {
	t.Helper()
	var answer struct {
		Status string
		Data   *T
	}
	answer.Data = &data
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Status != "success" || w.Code != 200 {
		t.Fatalf("%v: %d %.300s", err, w.Code, w.Body)
	}
	return data
}

// TestBlocks: the answer has the fields of Thanos's, for all blocks and for those that are loaded.
func TestBlocks(t *testing.T) {
	s := stateOf(3)
	v := New(Options{Source: func() State { return s }, Label: "tenant", CORS: true})
	w := serve(v, httptest.NewRequest("GET", "/api/v1/blocks?view=global", nil))
	if w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Error("no CORS")
	}
	data := decoded[map[string]any](t, w)
	first := data["blocks"].([]any)[0].(map[string]any)
	for _, field := range []string{"ulid", "minTime", "maxTime", "stats", "compaction", "version", "thanos"} {
		if _, ok := first[field]; !ok {
			t.Errorf("a block has no %s: %v", field, first)
		}
	}
	if data["label"] != "tenant" || len(data["blocks"].([]any)) != 3 || data["refreshedAt"] != "1970-01-01T00:16:40Z" || data["err"] != nil {
		t.Errorf("%v", data)
	}
	if n := len(decoded[blocksInfo](t, serve(v, httptest.NewRequest("GET", "/api/v1/blocks?view=loaded", nil))).Blocks); n != 1 {
		t.Errorf("%d loaded blocks", n)
	}
	s.Err = errors.New("out of order")
	if data := decoded[blocksInfo](t, serve(v, httptest.NewRequest("GET", "/api/v1/blocks", nil))); *data.Err != "out of order" || len(data.Blocks) != 3 {
		t.Errorf("%+v", data)
	}
	s = State{}
	if data := decoded[blocksInfo](t, serve(v, httptest.NewRequest("GET", "/api/v1/blocks", nil))); data.Blocks == nil || *data.Err == "" {
		t.Errorf("%+v", data)
	}
}

// TestRows: the pages of a listing have each block once, in order, with its labels.
func TestRows(t *testing.T) {
	const n = maxRows + 1234
	s := stateOf(n)
	v := New(Options{Source: func() State { return s }, Refuse: true})
	got := 0
	for got < n {
		p := decoded[page](t, serve(v, httptest.NewRequest("GET", fmt.Sprint("/api/v1/blocks/rows?from=", got), nil)))
		if p.Total != n || p.Version != 1_000_000 || p.Admin || len(p.Streams) != 7 || len(p.Rows) == 0 {
			t.Fatalf("%d rows of %d, %d streams", len(p.Rows), p.Total, len(p.Streams))
		}
		for _, row := range p.Rows {
			marks := 0
			if got == 1 {
				marks = markedDeletion | markedNoCompact
			}
			if got%2 == 1 {
				marks |= isLoaded
			}
			stream := p.Streams[int(row[5].(float64))]
			want := fmt.Sprint([]any{id(got), float64(got * 1000), float64(got*1000 + 1000), 1 + got%3, 0, row[5], 0, got, 0, 0,
				float64(got), marks})
			if fmt.Sprint(row) != want || stream["tenant"] != fmt.Sprint(got%7) {
				t.Fatalf("%v %v, want %v", row, stream, want)
			}
			got++
		}
	}
	for _, from := range []string{"-5", "99999999"} {
		decoded[page](t, serve(v, httptest.NewRequest("GET", "/api/v1/blocks/rows?view=loaded&from="+from, nil)))
	}
	if w := serve(v, httptest.NewRequest("GET", "/api/v1/blocks/rows?from=x", nil)); w.Code != 400 {
		t.Error(w.Code)
	}
}

// TestMark: marks are written as Thanos's viewer writes them, and refused where they are to be.
func TestMark(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	var text bytes.Buffer
	if err := metaOf(1).Write(&text); err != nil {
		t.Fatal(err)
	}
	if err := bkt.Upload(t.Context(), block.Object(id(1), block.MetaName), bytes.NewReader(text.Bytes())); err != nil {
		t.Fatal(err)
	}
	f := func(refuse bool, code int, want string, form url.Values, header ...string) {
		t.Helper()
		r := httptest.NewRequest("POST", "/api/v1/blocks/mark", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := serve(New(Options{Bucket: bkt, Marks: bkt, Refuse: refuse}), r)
		if w.Code != code || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%v: %d %s, want %d %q", form, w.Code, w.Body, code, want)
		}
	}
	form := func(id, action string) url.Values {
		return url.Values{"id": {id}, "action": {action}, "detail": {"be<cause"}}
	}
	one := id(1).String()
	f(true, 403, "Admin operations are disabled", form(one, "DELETION"))
	f(false, 400, "ID cannot be empty", form("", "DELETION"))
	f(false, 400, "is not valid", form("../../x", "DELETION"))
	f(false, 400, "Action cannot be empty", form(one, ""))
	f(false, 400, "not supported marker", form(one, "FLY"))
	f(false, 404, "there is no block", form(id(2).String(), "DELETION"))
	f(false, 403, "cross-origin", form(one, "DELETION"), "Sec-Fetch-Site", "cross-site")
	if len(bkt.Objects()) != 1 {
		t.Fatalf("%d objects", len(bkt.Objects()))
	}
	f(false, 200, `"status":"success"`, form(one, "DELETION"))
	f(false, 200, `"status":"success"`, form(one, "DELETION")) // it stays as it is
	f(false, 200, `"status":"success"`, form(one, "NO_COMPACTION"))
	if got := string(bkt.Objects()[one+"/no-compact-mark.json"]); !strings.Contains(got, `"reason":"manual"`) || !strings.Contains(got, "be") {
		t.Error(got)
	}
	if _, err := block.ReadDeletionMark(t.Context(), bkt, id(1)); err != nil {
		t.Error(err)
	}
	w := serve(New(Options{Bucket: bkt}), httptest.NewRequest("GET", "/api/v1/blocks/meta?id="+one, nil))
	if w.Code != 200 || w.Body.String() != text.String() {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for target, code := range map[string]int{id(2).String(): 404, "x": 400, "": 400} {
		if w := serve(New(Options{Bucket: bkt}), httptest.NewRequest("GET", "/api/v1/blocks/meta?id="+target, nil)); w.Code != code {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
}

// dark is a bucket that can be switched off.
type dark struct {
	objstore.Bucket
	off bool
}

func (d *dark) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if d.off {
		return errors.New("it is dark")
	}
	return d.Bucket.Iter(ctx, dir, f, o...)
}

// TestPoller: what is new is found at the next look, and a look that failed keeps what was known.
func TestPoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := &dark{Bucket: objstore.NewInMemBucket()}
		put := func(n int) {
			var text bytes.Buffer
			if err := metaOf(n).Write(&text); err != nil {
				t.Fatal(err)
			}
			if err := bkt.Upload(context.Background(), block.Object(id(n), block.MetaName), &text); err != nil {
				t.Fatal(err)
			}
		}
		p := NewPoller(slog.New(slog.DiscardHandler), bkt, PollerOptions{Refresh: time.Hour, Timeout: time.Minute,
			Filters: func(time.Time) []block.Filter { return []block.Filter{block.Within(0, 5000)} }})
		if s := p.State(); !s.At.IsZero() || s.fault() == "" {
			t.Errorf("%+v", s)
		}
		put(1)
		put(9) // not within the filter
		if err := p.Open(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		expect := func(blocksNow int, fault string) {
			t.Helper()
			synctest.Wait()
			if s := p.State(); len(blocks(s, "")) != blocksNow || (s.fault() == "") != (fault == "") ||
				!strings.Contains(s.fault(), fault) {
				t.Errorf("%d blocks, %q", len(blocks(s, "")), s.fault())
			}
		}
		expect(1, "")
		put(2)
		expect(1, "")
		time.Sleep(time.Hour)
		expect(2, "")
		bkt.off = true
		time.Sleep(time.Hour)
		expect(2, "dark")
		if p.State().Err == nil {
			t.Error("no error")
		}
		bkt.off = false
		put(3)
		time.Sleep(time.Minute) // sooner than after a success
		expect(3, "")
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
