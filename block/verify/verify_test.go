package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
)

func id(n int) ulid.ULID { var u ulid.ULID; u[15] = byte(n); return u }

func metaOf(n int, from, until int64, stream string, sources ...ulid.ULID) *block.Meta {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id(n), MinTime: from, MaxTime: until}}
	m.Thanos.Labels, m.Compaction.Sources = map[string]string{"s": stream}, sources
	return m
}

func picture(all []Finding) (text string) {
	for _, f := range all {
		text += fmt.Sprint(f.Block[15], ":")
		for _, o := range f.Others {
			text += fmt.Sprint(" ", o[15])
		}
		text += ";"
	}
	return text
}

func TestOverlaps(t *testing.T) {
	f := func(want string, metas ...*block.Meta) {
		t.Helper()
		if got := picture(Overlaps(metas)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f("")
	f("", metaOf(1, 0, 10, "a"), metaOf(2, 10, 20, "a"), metaOf(3, 5, 15, "b"))
	f("2: 1;", metaOf(1, 0, 10, "a"), metaOf(2, 9, 20, "a"))
	f("2: 1;3: 1 2;4: 1;", metaOf(1, 0, 100, "a"), metaOf(2, 10, 20, "a"), metaOf(3, 15, 18, "a"), metaOf(4, 20, 30, "a"))
	coarse := metaOf(2, 0, 10, "a")
	coarse.Thanos.Downsample.Resolution = 300000
	f("", metaOf(1, 0, 10, "a"), coarse)
}

func TestDuplicates(t *testing.T) {
	f := func(want string, metas ...*block.Meta) {
		t.Helper()
		if got := picture(Duplicates(metas)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	other := metaOf(4, 0, 10, "a", id(8), id(9))
	other.Stats.NumSeries = 1
	f("2: 1;3: 1;", metaOf(3, 0, 10, "a", id(9), id(8)), metaOf(1, 0, 10, "a", id(8), id(9)), metaOf(2, 0, 10, "a", id(8), id(9)), other,
		metaOf(5, 0, 10, "b", id(8), id(9)), metaOf(6, 0, 11, "a", id(8), id(9)), metaOf(7, 0, 10, "a", id(8)))
}

// realBlock writes a block with floats and histograms, and returns its directory and its meta.
func realBlock(t *testing.T) (dir string, m *block.Meta) {
	t.Helper()
	var list []storage.Series
	for i := range 20 {
		samples := chunks.GenerateSamples(1000*i, 500)
		if i%4 == 3 {
			samples = nil
			for ts := range 50 {
				samples = append(samples, histogramAt{int64(ts * 100), tsdbutil.GenerateTestHistogram(int64(ts))})
			}
		}
		list = append(list, storage.NewListSeries(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), samples))
	}
	path, err := tsdb.CreateBlock(list, t.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(path, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if m, err = block.ReadMeta(f, ulid.MustParse(filepath.Base(path))); err != nil {
		t.Fatal(err)
	}
	return path, m
}

// TestScan: a whole block has nothing wrong, and one bit that is another one is found wherever it is.
func TestScan(t *testing.T) {
	dir, m := realBlock(t)
	bkt, err := filesystem.NewBucket(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	scan := func(deep bool) []Finding {
		t.Helper()
		all, err := Scan(t.Context(), bkt, m, scratch, deep)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, deep := range []bool{false, true} {
		if all := scan(deep); len(all) > 0 {
			t.Fatalf("a whole block: %+v", all)
		}
	}
	flips := 150
	if os.Getenv("HEARTH_LONG") != "" {
		flips = 10_000
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, rel := range []string{"index", "chunks/000001"} {
		path := filepath.Join(dir, rel)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		missed := 0
		for i := range flips {
			bad := append([]byte{}, good...)
			bit := random.IntN(len(bad) * 8)
			if i < 64 { // the header, of which a part is under no checksum
				bit = i
			}
			bad[bit/8] ^= 1 << (bit % 8)
			if err := os.WriteFile(path, bad, 0o666); err != nil {
				t.Fatal(err)
			}
			if len(scan(true)) == 0 {
				missed++
				t.Logf("%s: bit %d of %d bytes is not found", rel, bit, len(good))
			}
		}
		if missed > 0 {
			t.Errorf("%s: %d of %d", rel, missed, flips)
		}
		if err := os.WriteFile(path, good, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	m.Stats.NumSamples++
	if all := scan(false); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	if all := scan(true); len(all) != 1 || !strings.Contains(all[0].Text, "samples") {
		t.Errorf("%+v", all)
	}
	m.Stats.NumSeries++
	if all := scan(false); len(all) != 1 || !strings.Contains(all[0].Text, "series") {
		t.Errorf("%+v", all)
	}
}

// TestGreedy: a chunk that claims more buckets than it can hold is a fault, and no memory is made for them.
func TestGreedy(t *testing.T) {
	greedy := []byte{0, 1, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0x40, 0, 0, 0, 0} // 2^31 buckets
	c := checker{deep: true}
	for _, enc := range []chunkenc.Encoding{chunkenc.EncHistogram, chunkenc.EncFloatHistogram} {
		err := c.decode(&merge.Chunk{Encoding: byte(enc), Data: greedy})
		if err == nil || !strings.Contains(err.Error(), "claims 2147483648 buckets") {
			t.Errorf("%s: %v", enc, err)
		}
	}
}

// dark is a bucket that does not answer.
type dark struct{ objstore.Bucket }

func (dark) Attributes(context.Context, string) (objstore.ObjectAttributes, error) {
	return objstore.ObjectAttributes{}, errors.New("dark")
}

func (dark) Get(context.Context, string) (io.ReadCloser, error) { return nil, errors.New("dark") }

func (dark) GetRange(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, errors.New("dark")
}

// TestUnread: a bucket that does not answer is no fault of the block.
func TestUnread(t *testing.T) {
	_, m := realBlock(t)
	all, err := Scan(t.Context(), dark{objstore.NewInMemBucket()}, m, t.TempDir(), true)
	if errs.KindOf(err) != errs.Unavailable || len(all) > 0 {
		t.Errorf("%v %+v", err, all)
	}
}

// histogramAt is a sample with a histogram.
type histogramAt struct {
	at int64
	h  *histogram.Histogram
}

func (s histogramAt) ST() int64                     { return 0 }
func (s histogramAt) T() int64                      { return s.at }
func (s histogramAt) F() float64                    { return 0 }
func (s histogramAt) H() *histogram.Histogram       { return s.h }
func (s histogramAt) FH() *histogram.FloatHistogram { return nil }
func (s histogramAt) Copy() chunks.Sample           { return s }
func (s histogramAt) Type() chunkenc.ValueType      { return chunkenc.ValHistogram }

// counted is a bucket that counts how often an object is read from its beginning.
type counted struct {
	objstore.BucketReader
	gets map[string]int
}

func (c counted) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	c.gets[name]++
	return c.BucketReader.Get(ctx, name)
}

// TestScanFetchesOnce: the index and each segment are fetched once, and nothing is left of them.
func TestScanFetchesOnce(t *testing.T) {
	dir, m := realBlock(t)
	bkt, err := filesystem.NewBucket(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	c, scratch := counted{bkt, map[string]int{}}, t.TempDir()
	if all, err := Scan(t.Context(), c, m, scratch, true); err != nil || len(all) > 0 {
		t.Fatal(all, err)
	}
	for _, rel := range []string{block.IndexName, block.ChunksName + "/000001"} {
		if n := c.gets[block.Object(m.ULID, rel)]; n != 1 {
			t.Errorf("%s was fetched %d times", rel, n)
		}
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}
