package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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

// addBlock makes a block in dir as Prometheus has it, changed by change.
func addBlock(t *testing.T, dir string, from int, change func(*tsdb.BlockMeta)) ulid.ULID {
	t.Helper()
	in := []storage.Series{storage.NewListSeries(labels.FromStrings("__name__", "up"), chunks.GenerateSamples(from, 100))}
	path, err := tsdb.CreateBlock(in, dir, 1000, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := ulid.MustParse(filepath.Base(path))
	if change == nil {
		return id
	}
	file := filepath.Join(path, block.MetaName)
	var m tsdb.BlockMeta
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	change(&m)
	if raw, _ := json.Marshal(m); err == nil {
		err = os.WriteFile(file, raw, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// shipping returns a sidecar of f that ships what is in dir into bkt, and knows f.
func (f *fakePrometheus) shipping(t *testing.T, dir string, bkt objstore.Bucket, change ...func(*Options)) *Sidecar {
	t.Helper()
	s := f.sidecarTo(t, bkt, append(change, func(o *Options) { o.Ship.Dir = dir })...)
	if err := s.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// recorded are the blocks that the record in dir lists.
func recorded(t *testing.T, dir, name string) (ids string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err.Error()
	}
	var r struct {
		Version  int         `json:"version"`
		Uploaded []ulid.ULID `json:"uploaded"`
	}
	if err := json.Unmarshal(raw, &r); err != nil || r.Version != 1 || !strings.Contains(string(raw), "uploaded") {
		t.Errorf("record %s: %v", raw, err)
	}
	return fmt.Sprint(r.Uploaded)
}

// TestShipped: which blocks are in the bucket, what their meta.json says, and that the record is there from the start.
func TestShipped(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu", "replica", "0"))
	dir := t.TempDir()
	bkt := objstore.NewInMemBucket()
	s := f.shipping(t, dir, bkt, func(o *Options) { o.Tenant, o.MarkTenant, o.Ship.Record = owner, true, "other.json" })
	s.shipOnce(t.Context())
	if got := recorded(t, dir, "other.json"); got != "[]" {
		t.Errorf("before there is a block the record lists %s", got)
	}
	first := addBlock(t, dir, 0, func(m *tsdb.BlockMeta) { m.Compaction.Failed = true })
	compacted := addBlock(t, dir, 1000, func(m *tsdb.BlockMeta) { m.Compaction.Level = 2 })
	empty := addBlock(t, dir, 2000, func(m *tsdb.BlockMeta) { m.Stats.NumSamples = 0 })
	s.shipOnce(t.Context())
	m, err := block.FetchMeta(t.Context(), bkt, first)
	if err != nil || m.Compaction.Failed || m.Thanos.Source != "sidecar" || len(m.Thanos.Files) == 0 ||
		fmt.Sprint(m.Thanos.Labels) != "map[cluster:eu replica:0 tenant_id:team-a]" {
		t.Errorf("%+v, %v", m, err)
	}
	for _, id := range []ulid.ULID{compacted, empty} {
		if _, err := block.FetchMeta(t.Context(), bkt, id); errs.KindOf(err) != errs.NotFound {
			t.Errorf("%s is in the bucket: %v", id, err)
		}
	}
	if got := recorded(t, dir, "other.json"); got != fmt.Sprint([]ulid.ULID{first}) {
		t.Errorf("the record lists %s", got)
	}
	// Another start keeps the record, and a block that Prometheus deletes leaves it.
	again := f.shipping(t, dir, bkt, func(o *Options) { o.Ship.Record = "other.json" })
	again.shipOnce(t.Context())
	if got := recorded(t, dir, "other.json"); got != fmt.Sprint([]ulid.ULID{first}) || valueOf(again.m.ship.Shipped) != 0 {
		t.Errorf("the record lists %s", got)
	}
	if err := os.RemoveAll(filepath.Join(dir, first.String())); err != nil {
		t.Fatal(err)
	}
	again.shipOnce(t.Context())
	if got := recorded(t, dir, "other.json"); got != "[]" {
		t.Errorf("the record lists %s, which is gone", got)
	}
}

// TestShipCompacted: compacted blocks are shipped when that is asked for, unless their samples are there already.
func TestShipCompacted(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	dir := t.TempDir()
	bkt := objstore.NewInMemBucket()
	first := addBlock(t, dir, 0, nil)
	f.shipping(t, dir, bkt).shipOnce(t.Context())
	over := addBlock(t, dir, 50, func(m *tsdb.BlockMeta) { m.Compaction.Level = 2 })
	beside := addBlock(t, dir, 5000, func(m *tsdb.BlockMeta) { m.Compaction.Level = 3 })
	s := f.shipping(t, dir, bkt, func(o *Options) { o.Ship.Compacted = true })
	s.shipOnce(t.Context())
	if _, err := block.FetchMeta(t.Context(), bkt, over); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a block that overlaps with %s is in the bucket: %v", first, err)
	}
	if _, err := block.FetchMeta(t.Context(), bkt, beside); err != nil {
		t.Error(err)
	}
	if testutil.ToFloat64(s.m.compacted) != 0 || testutil.ToFloat64(s.m.syncFailures) != 1 {
		t.Error("metrics say that all blocks are in the bucket")
	}
}

// fatalBucket fails an upload, and every call after it, as for a process that ends there. What the object store has of
// the object then is up to torn: nothing, a part, or all of it.
type fatalBucket struct {
	objstore.Bucket
	left int
	torn int
}

var errKilled = errors.New("killed")

func (b *fatalBucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if b.left--; b.left > 0 {
		return b.Bucket.Upload(ctx, name, r, o...)
	}
	if b.left == 0 {
		all, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if part := len(all) * b.torn / 2; b.torn > 0 {
			_ = b.Bucket.Upload(ctx, name, strings.NewReader(string(all[:part])))
		}
	}
	return errKilled
}

// TestKilledAtEachObject: wherever a sidecar dies in an upload, the next one ends with the same bucket.
func TestKilledAtEachObject(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	dir := t.TempDir()
	for i := range 2 {
		addBlock(t, dir, i*1000, nil)
	}
	objects := func(bkt *objstore.InMemBucket) (names []string, metas string) {
		all := bkt.Objects()
		for name, content := range all {
			names = append(names, fmt.Sprint(name, " ", len(content)))
			if strings.HasSuffix(name, block.MetaName) {
				var m block.Meta
				if err := json.Unmarshal(content, &m); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				m.Thanos.UploadTime = time.Time{}
				raw, _ := json.Marshal(m)
				metas += string(raw)
			}
		}
		return names, metas
	}
	record := func() { _ = os.Remove(filepath.Join(dir, DefaultOptions().Ship.Record)) }
	whole := objstore.NewInMemBucket()
	f.shipping(t, dir, whole).shipOnce(t.Context())
	want, _ := objects(whole)
	for torn := range 3 {
		for at := 1; ; at++ {
			record()
			bkt := objstore.NewInMemBucket()
			killed := &fatalBucket{Bucket: bkt, left: at, torn: torn}
			f.shipping(t, dir, killed).shipOnce(t.Context())
			if killed.left > 0 {
				if at < 9 {
					t.Errorf("only %d objects were sent", at-1)
				}
				break
			}
			f.shipping(t, dir, bkt).shipOnce(t.Context())
			if got, _ := objects(bkt); len(got) < len(want)-2 { // copies of metas for people may be missing
				t.Errorf("killed at %d, torn %d: %d objects, want %d", at, torn, len(got), len(want))
			}
			for name, content := range whole.Objects() {
				there := bkt.Objects()[name]
				switch {
				case strings.HasSuffix(name, ".json"):
					if !strings.HasPrefix(name, "debug/") && len(there) < len(content)/2 {
						t.Errorf("killed at %d, torn %d: %s has %d bytes", at, torn, name, len(there))
					}
				case string(there) != string(content):
					t.Errorf("killed at %d, torn %d: %s is another", at, torn, name)
				}
			}
		}
	}
}
