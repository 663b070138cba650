package rewrite

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/verify"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// chunkOf is a chunk of ten samples from a time on, whose values are the times.
func chunkOf(t *testing.T, from int64) chunks.Meta {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for ts := from; ts < from+10; ts++ {
		app.Append(0, ts, float64(ts))
	}
	return chunks.Meta{MinTime: from, MaxTime: from + 9, Chunk: c}
}

// checked are options with the check that the tool makes.
func checked(t *testing.T, bkt objstore.BucketReader) Options {
	o := small(t)
	o.Check = func(ctx context.Context, m *block.Meta) error {
		found, err := verify.Scan(ctx, bkt, m, o.Dir, true)
		if err == nil && len(found) > 0 {
			err = errors.New(found[0].Text)
		}
		return err
	}
	return o
}

// odd puts a block with one series into a bucket, which has chunks of these times. The block says that it ends at
// until.
func odd(t *testing.T, bkt objstore.Bucket, n byte, until int64, from ...int64) *block.Meta {
	t.Helper()
	id := ulid.ULID{5: 1, 15: n}
	dir := filepath.Join(t.TempDir(), id.String())
	cw, err := chunks.NewWriter(filepath.Join(dir, block.ChunksName))
	if err != nil {
		t.Fatal(err)
	}
	var all []chunks.Meta
	for _, at := range from {
		all = append(all, chunkOf(t, at))
	}
	if err := cw.WriteChunks(all...); err != nil {
		t.Fatal(err)
	}
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, block.IndexName))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"__name__", "m"} {
		if err := iw.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := iw.AddSeries(1, labels.FromStrings("__name__", "m"), all...); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{cw.Close(), iw.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: 0, MaxTime: until, Version: 1}}
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{id}
	m.Stats = tsdb.BlockStats{NumSeries: 1, NumChunks: uint64(len(from)), NumSamples: uint64(10 * len(from))}
	m.Thanos.Labels, m.Thanos.Source = map[string]string{"tenant_id": "a"}, block.SourceReceive
	if err := block.Upload(t.Context(), bkt, dir, *m); err != nil {
		t.Fatal(err)
	}
	m, err = block.FetchMeta(t.Context(), bkt, id)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// timesOf are the times of the samples of a block in a bucket on disk, as Prometheus reads them.
func timesOf(t *testing.T, dir string, id ulid.ULID) (times []int64) {
	t.Helper()
	b, err := tsdb.OpenBlock(nil, filepath.Join(dir, id.String()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockQuerier(b, 0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			ts, v := it.At()
			if float64(ts) != v {
				t.Errorf("at %d: %g", ts, v)
			}
			times = append(times, ts)
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return times
}

// TestRepair: what can be put right is found, is right in the new block, and no sample is lost. The new block replaces
// the old ones, and is the same each time.
func TestRepair(t *testing.T) {
	f := func(issue string, want []int64, make func(t *testing.T, bkt objstore.Bucket) []*block.Meta) {
		t.Helper()
		dir := t.TempDir()
		bkt := bucketAt(t, dir)
		metas := make(t, bkt)
		found, err := verify.Scan(t.Context(), bkt, metas[0], t.TempDir(), true)
		if err != nil || len(metas) == 1 && (len(found) == 0 || !strings.Contains(found[0].Text, issue)) {
			t.Errorf("%v %+v, want %q", err, found, issue)
		}
		if err := Repairable(t.Context(), bkt, metas, small(t)); err != nil {
			t.Errorf("%s: %v", issue, err)
		}
		made, err := Repair(t.Context(), bkt, metas, checked(t, bkt))
		if err != nil {
			t.Fatalf("%s: %v", issue, err)
		}
		if found, err := verify.Scan(t.Context(), bkt, made, t.TempDir(), true); err != nil || len(found) > 0 {
			t.Errorf("%s: %v %+v", issue, err, found)
		}
		var times []int64
		for _, from := range want {
			for ts := from; ts < from+10; ts++ {
				times = append(times, ts)
			}
		}
		if got := timesOf(t, dir, made.ULID); !slices.Equal(got, times) {
			t.Errorf("%s: samples at %v, want %v", issue, got, times)
		}
		there, err := block.FetchMeta(t.Context(), bkt, made.ULID)
		if err != nil {
			t.Fatal(err)
		}
		replaced := block.Replaced(append(slices.Clone(metas), there))
		for _, m := range metas {
			if r, ok := replaced[m.ULID]; !ok || len(r.By) != 1 || r.By[0].ULID != made.ULID {
				t.Errorf("%s: %s is not replaced", issue, m.ULID)
			}
		}
		if there.Thanos.Source != block.SourceRepair || there.Stats.NumSamples != uint64(len(times)) {
			t.Errorf("%+v", there)
		}
		if again, err := Repair(t.Context(), bkt, metas, checked(t, bkt)); err != nil || again.ULID != made.ULID {
			t.Errorf("again: %v", err)
		}
	}
	one := func(until int64, from ...int64) func(t *testing.T, bkt objstore.Bucket) []*block.Meta {
		return func(t *testing.T, bkt objstore.Bucket) []*block.Meta {
			return []*block.Meta{odd(t, bkt, 1, until, from...)}
		}
	}
	f("outside", []int64{0, 10}, one(20, 0, 10, 20))
	f("meta.json says 2 and 2", []int64{0, 10}, func(t *testing.T, bkt objstore.Bucket) []*block.Meta {
		m := odd(t, bkt, 1, 100, 0, 10)
		m.Stats.NumSeries = 2
		return []*block.Meta{m}
	})
	f("postings", []int64{0, 10}, func(t *testing.T, bkt objstore.Bucket) []*block.Meta {
		m := odd(t, bkt, 1, 100, 0, 10)
		r, err := bkt.Get(t.Context(), m.Object(block.IndexName))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		raw[binary.BigEndian.Uint64(raw[len(raw)-20:])+5] ^= 1 // in the table of postings
		if err := bkt.Upload(t.Context(), m.Object(block.IndexName), bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		return []*block.Meta{m}
	})
	f("", []int64{0, 10, 20, 30}, func(t *testing.T, bkt objstore.Bucket) []*block.Meta {
		return []*block.Meta{odd(t, bkt, 1, 100, 0, 10, 20), odd(t, bkt, 2, 100, 10, 20, 30)}
	})
}

// TestUnrepairable: what nothing can put right makes no block, and says why.
func TestUnrepairable(t *testing.T) {
	dir := t.TempDir()
	bkt := bucketAt(t, dir)
	f := func(want errs.Kind, metas ...*block.Meta) {
		t.Helper()
		before := names(t, bkt)
		if made, err := Repair(t.Context(), bkt, metas, checked(t, bkt)); errs.KindOf(err) != want || made != nil {
			t.Errorf("%v, want %v", err, want)
		}
		if got := names(t, bkt); !slices.Equal(got, before) {
			t.Errorf("%q were written", got)
		}
	}
	a, b, c := odd(t, bkt, 1, 100, 0), odd(t, bkt, 2, 100, 0), odd(t, bkt, 3, 100, 200)
	f(errs.Conflict, c) // nothing of it is within its time
	other := *b
	other.Thanos.Labels = map[string]string{"tenant_id": "b"}
	f(errs.Conflict, a, &other)
	coarse, coarser := *a, *b
	coarse.Thanos.Downsample.Resolution, coarser.Thanos.Downsample.Resolution = 300_000, 300_000
	f(errs.Conflict, &coarse, &coarser)
	path := filepath.Join(dir, a.ULID.String(), "chunks", "000001")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(path, raw, 0o666); err != nil {
		t.Fatal(err)
	}
	f(errs.Invalid, a)
	if err := block.MarkDeletion(t.Context(), bkt, b.ULID, "d", b.ULID.Timestamp()); err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(t.Context(), bkt, []*block.Meta{b}, checked(t, bkt)); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a block that is marked: %v", err)
	}
}
