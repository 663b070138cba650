package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var discard = slog.New(slog.DiscardHandler)

// makeBlock writes a local block of in.
func makeBlock(t testing.TB, in []sourcetest.Series) string {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(discard, dir, math.MaxInt64/4)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, s := range in {
		app := w.AppenderV2(t.Context())
		for _, p := range s.Samples {
			h, fh := p.H, p.FH // the head keeps and changes them
			if h != nil {
				h = h.Copy()
			}
			if fh != nil {
				fh = fh.Copy()
			}
			if _, err := app.Append(0, s.Labels, 0, p.T, p.V, h, fh, storage.AOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	id, err := w.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, id.String())
}

// upload puts a local block into the bucket under external labels, after edit changed its meta.
func upload(
	t testing.TB,
	bkt objstore.Bucket,
	dir string,
	external map[string]string,
	edit ...func(*block.Meta),
) ulid.ULID {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := block.ReadMeta(f, ulid.MustParse(filepath.Base(dir)))
	if err != nil {
		t.Fatal(err)
	}
	m.Thanos.Labels, m.Thanos.Source = external, block.SourceTest
	for _, e := range edit {
		e(m)
	}
	if err := block.Upload(t.Context(), bkt, dir, *m); err != nil {
		t.Fatal(err)
	}
	return m.ULID
}

// opened is an open gateway of bkt with small batches of everything.
func opened(t testing.TB, bkt objstore.BucketReader, edit ...func(*Options)) *Gateway {
	t.Helper()
	opts := DefaultOptions()
	opts.Dir = t.TempDir()
	opts.SyncInterval = time.Hour // a look at the bucket is a read, and tests that count reads may take minutes
	for _, e := range edit {
		e(&opts)
	}
	g, err := New(discard, nil, bkt, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Open(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if n, free := g.budget.requests.Used(), g.opts.Memory.Free(); n != 0 || free != g.opts.Memory.Total() {
			t.Errorf("%d requests were not given back, and %v", n, g.opts.Memory.Holders())
		}
	})
	return g
}

// inBucket says that the gateway's bucket has an id.
func inBucket(id string) func(*Options) {
	return func(o *Options) { o.BucketID = func() (string, bool) { return id, true } }
}

func inMemory(t testing.TB) objstore.Bucket { return objstore.NewInMemBucket() }

func onDisk(t testing.TB) objstore.Bucket {
	t.Helper()
	bkt, err := filesystem.NewBucket(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return bkt
}

// TestContract runs the contract of sources over one block, over blocks of halves in time, and over replicas.
func TestContract(t *testing.T) {
	for name, bucket := range map[string]func(testing.TB) objstore.Bucket{"memory": inMemory, "disk": onDisk} {
		t.Run(name, func(t *testing.T) {
			f := func(layout string, put func(t *testing.T, bkt objstore.Bucket, id tenant.ID, in []sourcetest.Series)) {
				t.Run(layout, func(t *testing.T) {
					sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
						bkt := bucket(t)
						put(t, bkt, id, in)
						return opened(t, bkt)
					})
				})
			}
			f("one block", func(t *testing.T, bkt objstore.Bucket, id tenant.ID, in []sourcetest.Series) {
				upload(t, bkt, makeBlock(t, in), ring(id, "r1"))
			})
			f("halves", func(t *testing.T, bkt objstore.Bucket, id tenant.ID, in []sourcetest.Series) {
				a, b := split(in)
				upload(t, bkt, makeBlock(t, a), ring(id, "r1"))
				upload(t, bkt, makeBlock(t, b), ring(id, "r1"))
			})
			f("replicas", func(t *testing.T, bkt objstore.Bucket, id tenant.ID, in []sourcetest.Series) {
				a, b := split(in)
				upload(t, bkt, makeBlock(t, in), ring(id, "r1"))
				upload(t, bkt, makeBlock(t, a), ring(id, "r2"))
				upload(t, bkt, makeBlock(t, b), ring(id, "r3"))
			})
		})
	}
}

func ring(id tenant.ID, replica string) map[string]string {
	return map[string]string{"tenant_id": string(id), "receive_replica": replica}
}

// split cuts every series in the middle of its samples.
func split(in []sourcetest.Series) (a, b []sourcetest.Series) {
	for _, s := range in {
		n := len(s.Samples) / 2
		a = append(a, sourcetest.Series{Labels: s.Labels, Samples: s.Samples[:n]})
		b = append(b, sourcetest.Series{Labels: s.Labels, Samples: s.Samples[n:]})
	}
	return a, b
}

// text writes a set out: labels and samples of each series, and how it ended.
func text(set series.Set, mint, maxt int64) string {
	defer set.Close()
	var b strings.Builder
	for set.Next() {
		s := set.At()
		fmt.Fprintf(&b, "%s", s.Labels)
		it := series.NewIterator(s.Chunks, series.PickAvg)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			if t := it.AtT(); t >= mint && t <= maxt {
				writeSample(&b, it, typ)
			}
		}
		if it.Err() != nil {
			fmt.Fprintf(&b, " %v", it.Err())
		}
		b.WriteByte('\n')
	}
	for _, w := range set.Warnings() {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	if set.Err() != nil {
		fmt.Fprintf(&b, "error: %v\n", set.Err())
	}
	return b.String()
}

func writeSample(b *strings.Builder, it chunkenc.Iterator, typ chunkenc.ValueType) {
	switch typ {
	case chunkenc.ValFloat:
		t, v := it.At()
		fmt.Fprintf(b, " %d:%g", t, v)
	default:
		t, h := it.AtFloatHistogram(nil)
		fmt.Fprintf(b, " %d:%s", t, h)
	}
}

// plainText is what Prometheus's own querier says of local blocks.
func plainText(t testing.TB, dirs []string, mint, maxt int64, ms []*labels.Matcher) string {
	t.Helper()
	var qs []storage.Querier
	for _, dir := range dirs {
		b, err := tsdb.OpenBlock(discard, dir, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		q, err := tsdb.NewBlockQuerier(b, mint, maxt)
		if err != nil {
			t.Fatal(err)
		}
		qs = append(qs, q)
	}
	q := storage.NewMergeQuerier(qs, nil, storage.ChainedSeriesMerge)
	defer q.Close()
	var out strings.Builder
	set := q.Select(t.Context(), true, nil, slices.Clone(ms)...)
	for set.Next() {
		fmt.Fprintf(&out, "%s", set.At().Labels())
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			writeSample(&out, it, typ)
		}
		out.WriteByte('\n')
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out.String()
}

func ask(id tenant.ID, mint, maxt int64, ms ...*labels.Matcher) *series.Request {
	return &series.Request{Tenant: id, MinTime: mint, MaxTime: maxt, Matchers: ms}
}

func match(typ labels.MatchType, name, value string) *labels.Matcher {
	return labels.MustNewMatcher(typ, name, value)
}

// damage replaces an object by what edit makes of it; nil removes it.
func damage(t *testing.T, bkt objstore.Bucket, object string, edit func([]byte) []byte) {
	t.Helper()
	r, err := bkt.Get(context.Background(), object)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if b = edit(slices.Clone(b)); b == nil {
		err = bkt.Delete(context.Background(), object)
	} else {
		err = bkt.Upload(context.Background(), object, bytes.NewReader(b))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// servedOf reports for each block whether g serves its samples.
func servedOf(g *Gateway, ids ...ulid.ULID) (served []bool) {
	g.BlockStates(ids) // begins to open them
	for !g.opener.idle() {
		time.Sleep(time.Millisecond)
	}
	for _, s := range g.BlockStates(ids) {
		served = append(served, s.Served)
	}
	return served
}
