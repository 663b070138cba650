package ship

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

var errFault = errors.New("injected fault")

// faultBucket fails the uploads that fault says.
type faultBucket struct {
	objstore.Bucket
	uploads []string
	fault   func(n int, name string) bool
}

func (b *faultBucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	b.uploads = append(b.uploads, name)
	if b.fault != nil && b.fault(len(b.uploads), name) {
		return errFault
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

// prometheusDir is the data directory of a Prometheus server with n blocks, oldest first.
func prometheusDir(t *testing.T, n int) (dir string, ids []ulid.ULID) {
	t.Helper()
	dir = t.TempDir()
	for i := range n {
		in := []storage.Series{
			storage.NewListSeries(labels.FromStrings("__name__", "up", "i", "1"), chunks.GenerateSamples(i*1000, 100)),
			storage.NewListSeries(labels.FromStrings("__name__", "up", "i", "2"), chunks.GenerateSamples(i*1000, 100)),
		}
		path, err := tsdb.CreateBlock(in, dir, 1000, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, ulid.MustParse(filepath.Base(path)))
	}
	for _, name := range []string{"wal", "chunks_head", "01ARZ3NDEKTSV4RRFFQ69G5FAV.tmp-for-creation", "thanos"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "queries.active"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir, ids
}

func newShipper(t *testing.T, dir string, bkt objstore.Bucket) *Shipper {
	t.Helper()
	s, err := New(slog.New(slog.DiscardHandler), NewMetrics(nil, "hearth_test_"), bkt, Dir(dir), Options{
		Record: filepath.Join(dir, RecordName), Timeout: time.Minute, Retry: time.Hour,
		Origin: func(Block) block.Thanos {
			return block.Thanos{Labels: map[string]string{"cluster": "eu"}, Source: block.SourceSidecar}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// files are all paths below dir with their contents.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestShip ships what a Prometheus server has, oldest first, and writes nothing but the record into its directory.
func TestShip(t *testing.T) {
	dir, ids := prometheusDir(t, 3)
	before := files(t, dir)
	bkt := &faultBucket{Bucket: objstore.NewInMemBucket()}
	s := newShipper(t, dir, bkt)
	if s.Shipped(ids[0]) {
		t.Error("shipped before anything was")
	}
	if err := s.Ship(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, name := range bkt.uploads {
		if strings.HasSuffix(name, "/"+block.MetaName) {
			order = append(order, name[:ulid.EncodedSize])
		}
	}
	for i, id := range ids {
		m, err := block.FetchMeta(t.Context(), bkt, id)
		if err != nil || !s.Shipped(id) || order[i] != id.String() {
			t.Fatalf("block %d: %v, shipped %v, order %v", i, err, s.Shipped(id), order)
		}
		th := m.Thanos
		if th.Labels["cluster"] != "eu" || th.Source != block.SourceSidecar || th.Version != 1 || len(th.Files) != 4 ||
			th.IndexStats.SeriesMaxSize == 0 || th.UploadTime.IsZero() || m.Stats.NumSamples != 200 {
			t.Errorf("block %d: %+v", i, th)
		}
	}
	after := files(t, dir)
	var r record
	if err := json.Unmarshal([]byte(after["/"+RecordName]), &r); err != nil || r.Version != 1 ||
		!slices.Equal(r.Uploaded, ids) {
		t.Errorf("record %s, %v", after["/"+RecordName], err)
	}
	delete(after, "/"+RecordName)
	if len(after) != len(before) {
		t.Errorf("files before %d, after %d", len(before), len(after))
	}
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s was changed", name)
		}
	}
	// Another process on the directory sends nothing again, with the record and without it.
	for _, forget := range []bool{false, true} {
		if forget {
			if err := os.Remove(filepath.Join(dir, RecordName)); err != nil {
				t.Fatal(err)
			}
		}
		sent := len(bkt.uploads)
		again := newShipper(t, dir, bkt)
		if err := again.Ship(t.Context(), false); err != nil || len(bkt.uploads) != sent || !again.Shipped(ids[2]) {
			t.Errorf("without the record %v: %v, %d objects were sent again", forget, err, len(bkt.uploads)-sent)
		}
	}
}

// TestShipGoesOn fails at each upload in turn: the next pass of another process finishes.
func TestShipGoesOn(t *testing.T) {
	dir, ids := prometheusDir(t, 2)
	for failAt := 1; ; failAt++ {
		bkt := &faultBucket{Bucket: objstore.NewInMemBucket(), fault: func(n int, _ string) bool { return n == failAt }}
		_ = os.Remove(filepath.Join(dir, RecordName))
		s := newShipper(t, dir, bkt)
		err := s.Ship(t.Context(), false)
		if len(bkt.uploads) < failAt {
			if failAt < 8 {
				t.Errorf("only %d uploads were made", failAt-1)
			}
			return
		}
		if debug := strings.HasPrefix(bkt.uploads[failAt-1], "debug/"); debug != (err == nil) {
			t.Fatalf("upload %d, %s: %v", failAt, bkt.uploads[failAt-1], err)
		} else if !debug && (errs.KindOf(err) != errs.Unavailable || s.Status().Pending == 0) {
			t.Errorf("upload %d: %v, %+v", failAt, err, s.Status())
		}
		if err := newShipper(t, dir, bkt).Ship(t.Context(), false); err != nil {
			t.Fatalf("after the failure at %d: %v", failAt, err)
		}
		for _, id := range ids {
			if _, err := block.FetchMeta(t.Context(), bkt, id); err != nil {
				t.Errorf("after the failure at %d: %v", failAt, err)
			}
		}
	}
}

// TestShipWaits: after a failure of the bucket only a forced pass tries again before the wait is over.
func TestShipWaits(t *testing.T) {
	dir, ids := prometheusDir(t, 2)
	bkt := &faultBucket{Bucket: objstore.NewInMemBucket(), fault: func(int, string) bool { return true }}
	s := newShipper(t, dir, bkt)
	if err := s.Ship(t.Context(), false); errs.KindOf(err) != errs.Unavailable || len(bkt.uploads) != 1 {
		t.Fatalf("%v, %d uploads: the second block was tried, too", err, len(bkt.uploads))
	}
	if err := s.Ship(t.Context(), false); err != nil || len(bkt.uploads) != 1 {
		t.Errorf("%v, %d uploads: did not wait", err, len(bkt.uploads))
	}
	bkt.fault = nil
	if err := s.Ship(t.Context(), true); err != nil || !s.Shipped(ids[0]) || !s.Shipped(ids[1]) {
		t.Errorf("forced: %v", err)
	}
}

// TestShipMeasuresOnce tries a block again without reading its index again.
func TestShipMeasuresOnce(t *testing.T) {
	dir, ids := prometheusDir(t, 1)
	bkt := &faultBucket{Bucket: objstore.NewInMemBucket(), fault: func(n int, _ string) bool { return n == 1 }}
	s := newShipper(t, dir, bkt)
	if err := s.Ship(t.Context(), true); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	s.ledger.pending[ids[0]].measured.ChunkMaxSize = 4711 // a measurement would say another thing
	if err := s.Ship(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if m, err := block.FetchMeta(t.Context(), bkt, ids[0]); err != nil || m.Thanos.IndexStats.ChunkMaxSize != 4711 {
		t.Fatalf("the index was read again: %v, %v", m, err)
	}
}

// TestShipFaultyBlock: a block that cannot be read keeps no other from being shipped; repaired it is shipped, too.
func TestShipFaultyBlock(t *testing.T) {
	dir, ids := prometheusDir(t, 3)
	meta := filepath.Join(dir, ids[1].String(), block.MetaName)
	whole, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(meta, []byte("]"), 0o666); err != nil {
		t.Fatal(err)
	}
	bkt := objstore.NewInMemBucket()
	s := newShipper(t, dir, bkt)
	if err := s.Ship(t.Context(), false); errs.KindOf(err) != errs.Invalid ||
		!strings.Contains(err.Error(), ids[1].String()) {
		t.Errorf("ship: %v", err)
	}
	if !s.Shipped(ids[0]) || s.Shipped(ids[1]) || !s.Shipped(ids[2]) {
		t.Error("not exactly the good blocks were shipped")
	}
	s.m.Report([]Status{s.Status(), {}}, nil)
	if n := testutil.ToFloat64(
		s.m.Pending); n != 1 || testutil.ToFloat64(s.m.Oldest) != float64(ids[1].Timestamp().Unix()) ||
		testutil.ToFloat64(s.m.Success) != 0 ||
		testutil.ToFloat64(s.m.Failures) != 1 {
		t.Errorf("%v pending, oldest %v", n, testutil.ToFloat64(s.m.Oldest))
	}
	if err := os.WriteFile(meta, whole, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := s.Ship(t.Context(), true); err != nil || !s.Shipped(ids[1]) {
		t.Errorf("repaired: %v", err)
	}
	s.m.Report([]Status{s.Status()}, nil)
	if testutil.ToFloat64(s.m.Pending) != 0 || testutil.ToFloat64(s.m.Oldest) != 0 ||
		testutil.ToFloat64(s.m.Success) == 0 {
		t.Error("the gauges say that something is left")
	}
}

// TestShipBusy has two callers at once.
func TestShipBusy(t *testing.T) {
	dir, _ := prometheusDir(t, 1)
	entered, leave := make(chan struct{}), make(chan struct{})
	bkt := &faultBucket{Bucket: objstore.NewInMemBucket(), fault: func(n int, _ string) bool {
		if n == 1 {
			close(entered)
			<-leave
		}
		return false
	}}
	s := newShipper(t, dir, bkt)
	first := make(chan error)
	go func() { first <- s.Ship(t.Context(), false) }()
	<-entered
	if err := s.Ship(t.Context(), true); !errors.Is(err, ErrBusy) {
		t.Errorf("the second: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitIdle(ended); err == nil {
		t.Error("idle while the first is under way")
	}
	close(leave)
	if err := errors.Join(<-first, s.WaitIdle(t.Context()), s.Ship(t.Context(), true)); err != nil {
		t.Error(err)
	}
}

// TestShipUnlisted: a directory that cannot be listed is an error, and says nothing of what was shipped.
func TestShipUnlisted(t *testing.T) {
	dir, ids := prometheusDir(t, 1)
	s := newShipper(t, dir, objstore.NewInMemBucket())
	if err := s.Ship(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	s.list = Dir(filepath.Join(dir, "none"))
	if err := s.Ship(t.Context(), false); err == nil || !s.Shipped(ids[0]) || testutil.ToFloat64(s.m.Failures) != 1 {
		t.Errorf("%v, %v failures", err, testutil.ToFloat64(s.m.Failures))
	}
}

func TestOptions(t *testing.T) {
	_, err := New(slog.New(slog.DiscardHandler), NewMetrics(nil, "x_"), nil, nil,
		Options{Upload: block.UploadOptions{Concurrency: -1}})
	for _, part := range []string{"record", "origin", "timeout", "retry", "concurrency"} {
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name the %s", err, part)
		}
	}
}
