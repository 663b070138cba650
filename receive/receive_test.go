package receive

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb"
)

const team tenant.ID = "team"

// start opens a receiver over dir and returns it with what stops it, which also happens with the test.
func start(t *testing.T, dir string, bkt objstore.Bucket, change func(*tsdb.Options, *Options)) (*Receiver, func()) {
	t.Helper()
	dbOpts, opts := tsdb.DefaultOptions(), DefaultOptions()
	dbOpts.Dir, dbOpts.Tick = dir, time.Hour
	opts.Instance, opts.ShipInterval, opts.Retry = "r-1", time.Hour, time.Nanosecond
	if change != nil {
		change(&dbOpts, &opts)
	}
	log := slog.New(slog.DiscardHandler)
	db, err := tsdb.New(log, nil, dbOpts)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(log, nil, db, bkt, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Open(t.Context(), nil), r.Open(t.Context(), nil)); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		if err := errors.Join(r.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	eventually(t, func() bool { return r.Ready() == nil })
	return r, stop
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 20s")
		}
	}
}

func write(t *testing.T, r *Receiver, id tenant.ID, ls labels.Labels, at time.Time, values ...float64) {
	t.Helper()
	b := wire.NewBatch(id)
	s := b.Add(ls)
	for i, v := range values {
		s.Samples = append(s.Samples, wire.Sample{T: at.UnixMilli() + int64(i)*1000, V: v})
	}
	if f, err := r.Write(context.Background(), wire.All(b)); err != nil || len(f) > 0 {
		t.Fatalf("write: %v %v", f, err)
	}
}

func blocksIn(t *testing.T, bkt objstore.Bucket) []*block.Meta {
	t.Helper()
	var out []*block.Meta
	err := bkt.Iter(t.Context(), "", func(name string) error {
		id, ok := block.ParseID(name)
		if !ok {
			return nil
		}
		m, err := block.FetchMeta(t.Context(), bkt, id)
		if errs.KindOf(err) == errs.NotFound {
			return nil
		}
		out = append(out, m)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFlushShips(t *testing.T) {
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	r, stop := start(t, dir, bkt, nil)
	now := time.Now().Truncate(time.Second)
	for i := range 50 {
		write(t, r, team, labels.FromStrings("__name__", "up", "i", string(rune('a'+i))), now.Add(-time.Minute), 1, 2, 3, 4)
	}
	write(t, r, "other", labels.FromStrings("__name__", "up"), now.Add(-time.Minute), 5)
	req := httptest.NewRequest(http.MethodPost, "/api/v1/admin/flush", nil)
	rec := httptest.NewRecorder()
	if r.HandleFlush(rec, req); rec.Code != http.StatusNoContent {
		t.Fatalf("flush: %d %s", rec.Code, rec.Body)
	}
	metas := blocksIn(t, bkt)
	if len(metas) != 2 {
		t.Fatalf("%d blocks in the bucket, want 2", len(metas))
	}
	for _, m := range metas {
		id := tenant.ID(m.Thanos.Labels["tenant_id"])
		if !labels.Equal(m.ExternalLabels(), r.ExternalLabels(id)) || m.Thanos.Source != "receive" ||
			m.Thanos.Downsample.Resolution != 0 ||
			!slices.Equal(m.Thanos.SegmentFiles, []string{"000001"}) ||
			len(m.Thanos.Files) != 4 {
			t.Fatalf("meta of %s: %+v", id, m.Thanos)
		}
		if id == team &&
			(m.Thanos.IndexStats.SeriesMaxSize == 0 || m.Thanos.IndexStats.ChunkMaxSize == 0 || m.Stats.NumSamples != 200) {
			t.Fatalf("stats: %+v %+v", m.Thanos.IndexStats, m.Stats)
		}
		if !r.Shipped(id, m.ULID) {
			t.Fatalf("block %s of %s does not count as shipped", m.ULID, id)
		}
		raw, err := os.ReadFile(filepath.Join(dir, string(id), ship.RecordName))
		var f struct {
			Version  int
			Uploaded []ulid.ULID
		}
		if err = errors.Join(err, json.Unmarshal(raw, &f)); err != nil || f.Version != 1 ||
			!slices.Equal(f.Uploaded, []ulid.ULID{m.ULID}) {
			t.Fatalf("%s: %s %v", ship.RecordName, raw, err)
		}
	}
	stop()
	r, _ = start(t, dir, bkt, nil)
	if !r.Shipped(tenant.ID(metas[0].Thanos.Labels["tenant_id"]), metas[0].ULID) {
		t.Fatal("a restart forgot what is shipped")
	}
}

func TestFlushMethodAndFailure(t *testing.T) {
	bkt := &faultBucket{Bucket: objstore.NewInMemBucket(), failAt: 1}
	r, _ := start(t, t.TempDir(), bkt, nil)
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	f := func(method string, want int) {
		t.Helper()
		rec := httptest.NewRecorder()
		if r.HandleFlush(rec, httptest.NewRequest(method, "/api/v1/admin/flush", nil)); rec.Code != want {
			t.Fatalf("%s: %d %s, want %d", method, rec.Code, rec.Body, want)
		}
	}
	f(http.MethodGet, http.StatusMethodNotAllowed)
	f(http.MethodPost, http.StatusServiceUnavailable)
	f(http.MethodPost, http.StatusNoContent)
}

// faultBucket fails the failAt-th upload, once.
type faultBucket struct {
	objstore.Bucket
	mu      sync.Mutex
	uploads int
	failAt  int
	after   bool // the object is written, and only the answer is lost
}

var errFault = errors.New("fault")

func (b *faultBucket) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	b.mu.Lock()
	b.uploads++
	fail := b.uploads == b.failAt
	b.mu.Unlock()
	if fail && !b.after {
		return errFault
	}
	err := b.Bucket.Upload(ctx, name, r, opts...)
	if fail {
		return errFault
	}
	return err
}

// TestShippedStays: a block that is past its retention when it is shipped stays until store gateways have had time to
// see it in the bucket, as nobody would serve it otherwise.
func TestShippedStays(t *testing.T) {
	now := time.Now()
	var ahead atomic.Int64
	r, _ := start(t, t.TempDir(), objstore.NewInMemBucket(), func(o *tsdb.Options, r *Options) {
		o.Retention = time.Minute
		o.Now = func() time.Time { return now.Add(time.Duration(ahead.Load())) }
		r.Now = o.Now
	})
	write(t, r, team, labels.FromStrings("__name__", "up"), now.Add(-2*time.Hour), 1)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	blocks, err := r.db.Blocks(team)
	if err != nil || len(blocks) != 1 || !r.Shipped(team, blocks[0].ID) {
		t.Fatalf("local blocks: %v %v", blocks, err)
	}
	f := func(after time.Duration, there bool) {
		t.Helper()
		ahead.Store(int64(after))
		write(t, r, team, labels.FromStrings("__name__", "up"), now.Add(after), 2)
		if err := r.db.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(blocks[0].Dir); (err == nil) != there {
			t.Errorf("%s after it was shipped: %v", after, err)
		}
	}
	f(time.Minute, true)
	f(settledAfter-time.Minute, true)
	f(settledAfter+time.Minute, false)
}

// TestShipFaults fails each step of shipping in turn: nothing may be deleted before its meta.json is in the bucket,
// and the next try, after a restart, completes it.
func TestShipFaults(t *testing.T) {
	f := func(failAt int, after bool) {
		t.Helper()
		mem := objstore.NewInMemBucket()
		bkt := &faultBucket{Bucket: mem, failAt: failAt, after: after}
		dir, now := t.TempDir(), time.Now()
		var ahead atomic.Int64
		clock := func(o *tsdb.Options, r *Options) {
			o.Retention = time.Minute
			o.Now = func() time.Time { return now.Add(time.Duration(ahead.Load())) }
			r.Now = o.Now
		}
		r, stop := start(t, dir, bkt, clock)
		write(t, r, team, labels.FromStrings("__name__", "up"), now, 1, 2)
		if err := r.Flush(t.Context()); (err != nil) != (failAt >= 1 && failAt <= 4) {
			t.Fatalf("fault at upload %d (after=%v): flush: %v", failAt, after, err)
		}
		blocks, err := r.db.Blocks(team)
		if err != nil || len(blocks) != 1 {
			t.Fatalf("local blocks: %v %v", blocks, err)
		}
		// Far past the retention: a reload (by the next cut) deletes what counts as shipped and nothing else.
		shipped := r.Shipped(team, blocks[0].ID)
		if inBucket := len(blocksIn(t, mem)) == 1; shipped && !inBucket {
			t.Fatalf("fault at upload %d (after=%v): counts as shipped without meta.json", failAt, after)
		}
		ahead.Store(int64(3 * time.Hour))
		stop()
		r, _ = start(t, dir, bkt, clock)
		write(t, r, team, labels.FromStrings("__name__", "up"), now.Add(3*time.Hour), 3)
		if err := r.db.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(blocks[0].Dir)
		if _, merr := block.FetchMeta(t.Context(), mem, blocks[0].ID); err != nil && merr != nil {
			t.Fatalf("fault at upload %d (after=%v): block deleted before it was shipped: %v", failAt, after, merr)
		}
		if shipped && err == nil {
			t.Fatalf("shipped block past its retention is still there")
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(blocksIn(t, mem)); got != 2 {
			t.Fatalf("fault at upload %d (after=%v): %d blocks in the bucket in the end, want 2", failAt, after, got)
		}
	}
	for failAt := range 6 { // 1 chunks, 2 index, 3 index-header, 4 meta.json, 5 the copy of it; 0 none
		f(failAt, false)
		f(failAt, true)
	}
}

// TestShipForgottenFile loses thanos.shipper.json: blocks are looked up in the bucket and not sent again.
func TestShipForgottenFile(t *testing.T) {
	dir := t.TempDir()
	bkt := &faultBucket{Bucket: objstore.NewInMemBucket(), failAt: -1}
	r, stop := start(t, dir, bkt, nil)
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.WriteFile(filepath.Join(dir, string(team), ship.RecordName), []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	sent := bkt.uploads
	r, _ = start(t, dir, bkt, nil)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if blocks, _ := r.db.Blocks(team); !r.Shipped(team, blocks[0].ID) || bkt.uploads != sent {
		t.Fatalf("uploads %d -> %d, shipped %v", sent, bkt.uploads, r.Shipped(team, blocks[0].ID))
	}
}

func TestShipBadBlockLeavesOthers(t *testing.T) {
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	r, _ := start(t, dir, bkt, nil)
	now := time.Now()
	write(t, r, team, labels.FromStrings("__name__", "up"), now.Add(-2*time.Minute), 1)
	if err := r.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	blocks, _ := r.db.Blocks(team)
	index := filepath.Join(blocks[0].Dir, "index")
	good, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(index, 10); err != nil {
		t.Fatal(err)
	}
	write(t, r, team, labels.FromStrings("__name__", "up"), now, 1)
	if err := r.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.shipAll(t.Context(), true); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("ship of a bad block: %v", err)
	}
	if got := len(blocksIn(t, bkt)); got != 1 {
		t.Fatalf("%d blocks in the bucket, want the good one", got)
	}
	if err := os.WriteFile(index, good, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := r.shipAll(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := len(blocksIn(t, bkt)); got != 2 {
		t.Fatalf("%d blocks in the bucket after the repair, want 2", got)
	}
}

func TestShipLoop(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	r, _ := start(t, t.TempDir(), bkt, func(_ *tsdb.Options, o *Options) { o.ShipInterval = time.Millisecond })
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	if err := r.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(blocksIn(t, bkt)) == 1 })
}

func TestSource(t *testing.T) {
	load := func(t *testing.T, id tenant.ID, in []sourcetest.Series, change func(*tsdb.Options, *Options)) *Receiver {
		r, _ := start(t, t.TempDir(), nil, change)
		for _, s := range in {
			b := wire.NewBatch(id)
			w := b.Add(s.Labels)
			for _, p := range s.Samples {
				if p.H != nil || p.FH != nil {
					w.Histograms = append(w.Histograms, wire.Histogram{T: p.T, H: p.H, FH: p.FH})
				} else {
					w.Samples = append(w.Samples, wire.Sample{T: p.T, V: p.V})
				}
			}
			if f, err := r.Write(t.Context(), wire.All(b)); err != nil || len(f) > 0 {
				t.Fatal(f, err)
			}
		}
		return r
	}
	t.Run("plain", func(t *testing.T) {
		sourcetest.Run(t,
			func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source { return load(t, id, in, nil) })
	})
}

func TestExternalLabels(t *testing.T) {
	r, _ := start(t, t.TempDir(), nil, func(_ *tsdb.Options, o *Options) {
		o.Labels = labels.FromStrings("receive_replica", "a", "region", "eu")
	})
	if got, want := r.ExternalLabels(team).String(), `{receive_replica="a", region="eu", tenant_id="team"}`; got != want {
		t.Fatalf("external labels %s, want %s", got, want)
	}
	// Two members with the same labels would ship blocks that a Thanos compactor takes for one overlapping stream.
	other, _ := start(t, t.TempDir(), nil,
		func(_ *tsdb.Options, o *Options) { o.Labels = labels.FromStrings("region", "eu") })
	if got, want := other.ExternalLabels(
		team).String(), `{receive_replica="r-1", region="eu", tenant_id="team"}`; got != want {
		t.Fatalf("external labels %s, want %s", got, want)
	}
	now := time.Now()
	write(t, r, team, labels.FromStrings("__name__", "up", "tenant_id", "mine"), now, 1)
	write(t, r, team, labels.FromStrings("__name__", "up", "region", "us", "z", "1"), now, 1)
	f := func(matchers string, want ...string) {
		t.Helper()
		ms := parse(t, matchers)
		set := r.Select(t.Context(), &series.Request{Tenant: team, MinTime: 0, MaxTime: math.MaxInt64, Matchers: ms})
		defer set.Close()
		var got []string
		for set.Next() {
			got = append(got, set.At().Labels.String())
		}
		if set.Err() != nil || !slices.Equal(got, want) {
			t.Fatalf("%s: %v %v, want %v", matchers, got, set.Err(), want)
		}
	}
	one, two := `{__name__="up", region="eu", tenant_id="mine"}`, `{__name__="up", region="eu", z="1"}`
	f(`up`, one, two)
	f(`up region=eu`, one, two)
	f(`up region=us`)
	f(`up tenant_id=mine`, one)
	f(`up tenant_id=team`)
	f(`up receive_replica=a`)
	names, _, err := r.LabelNames(t.Context(), &series.Request{Tenant: team, MinTime: 0, MaxTime: math.MaxInt64})
	if want := []string{"__name__", "region", "tenant_id", "z"}; err != nil || !slices.Equal(names, want) {
		t.Fatalf("names %v %v, want %v", names, err, want)
	}
	values, _, err := r.LabelValues(t.Context(), "region",
		&series.Request{Tenant: team, MinTime: 0, MaxTime: math.MaxInt64})
	if err != nil || !slices.Equal(values, []string{"eu"}) {
		t.Fatalf("values %v %v", values, err)
	}
	info, err := r.Info(t.Context())
	if err != nil || info.Role != "receive" || info.Instance != "r-1" || len(info.Labels) != 1 ||
		info.Labels[0].Get("tenant_id") != "team" {
		t.Fatalf("info %+v %v", info, err)
	}
	if s := r.Streams(team); len(s) != 1 || !labels.Equal(s[0].External, r.ExternalLabels(team)) ||
		len(r.Streams("nobody")) != 0 {
		t.Fatalf("streams %v", s)
	}
}

// parse reads "name label=value...".
func parse(t *testing.T, s string) (out []*labels.Matcher) {
	t.Helper()
	for i, part := range strings.Fields(s) {
		name, value, _ := strings.Cut(part, "=")
		if i == 0 {
			name, value = "__name__", part
		}
		out = append(out, labels.MustNewMatcher(labels.MatchEqual, name, value))
	}
	return out
}

func TestOptions(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if _, err := New(log, nil, nil, nil, Options{}); errs.KindOf(err) != errs.Invalid ||
		strings.Count(err.Error(), "\n") < 4 {
		t.Fatalf("zero options: %v", err)
	}
	o := DefaultOptions()
	o.Labels = labels.FromStrings("tenant_id", "x")
	if err := o.Validate(); err == nil {
		t.Fatal("a label that names the tenant was accepted")
	}
}
