package compact

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
)

const hour = int64(time.Hour / time.Millisecond)

type sample struct {
	t int64
	v float64
}

func (s sample) ST() int64                     { return 0 }
func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// made is a block to be put into a bucket.
type made struct {
	tenant, replica string
	begin           int64 // ms
	length          int64
	gap             int64 // ms after begin from which the replica has 5 minutes no samples; 0 = none
}

// valueAt is the sample of series i of a tenant.
func valueAt(tenant string, i int, t int64) float64 {
	return float64(len(tenant)*1000+i) + float64(t%(7*hour))/1000
}

const (
	series = 3
	every  = 300_000 // ms between samples
)

// blocks are those that tests made: to make one takes a tenth of a second, and the same one is in many buckets.
var blocks = map[made]*objstore.InMemBucket{}

// put puts the block into the bucket.
func (m made) put(t testing.TB, bkt objstore.Bucket) {
	t.Helper()
	if blocks[m] == nil {
		blocks[m] = objstore.NewInMemBucket()
		m.make(t, blocks[m])
	}
	for name, b := range blocks[m].Objects() {
		if err := bkt.Upload(t.Context(), name, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
}

// make makes a block of all series and uploads it.
func (m made) make(t testing.TB, bkt objstore.Bucket) {
	t.Helper()
	external := map[string]string{"tenant_id": m.tenant, "receive_replica": m.replica}
	if m.tenant == "" {
		delete(external, "tenant_id")
	}
	makeBlock(t, bkt, external, [2]int64{m.begin, m.begin + m.length}, func(i int) (samples []chunks.Sample) {
		for ts := m.begin; ts < m.begin+m.length; ts += every {
			if m.gap > 0 && ts >= m.begin+m.gap && ts < m.begin+m.gap+600_000 {
				continue
			}
			samples = append(samples, sample{ts, valueAt(m.tenant, i, ts)})
		}
		return samples
	})
}

// makeBlock makes a block of a range, with the samples that of gives for each series, and uploads it.
func makeBlock(t testing.TB, bkt objstore.Bucket, external map[string]string, from [2]int64,
	of func(i int) []chunks.Sample) *block.Meta {
	t.Helper()
	var list []storage.Series
	for i := range series {
		list = append(list, storage.NewListSeries(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), of(i)))
	}
	dir, err := tsdb.CreateBlock(list, t.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := ulid.MustParse(filepath.Base(dir))
	f, err := os.Open(filepath.Join(dir, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	meta, err := block.ReadMeta(f, id)
	if err != nil {
		t.Fatal(err)
	}
	meta.MinTime, meta.MaxTime = from[0], from[1] // as the cut of a head makes it
	meta.Thanos.Labels, meta.Thanos.Source = external, block.SourceReceive
	if err := block.Upload(t.Context(), bkt, dir, *meta); err != nil {
		t.Fatal(err)
	}
	return meta
}

// clone is a bucket with the same objects.
func clone(bkt *objstore.InMemBucket) *objstore.InMemBucket {
	out := objstore.NewInMemBucket()
	for name, b := range bkt.Objects() {
		_ = out.Upload(context.Background(), name, strings.NewReader(string(b)))
	}
	return out
}

// testOptions are options of a compactor of a bucket whose objects are old.
func testOptions(t testing.TB, instance string) Options {
	o := DefaultOptions()
	o.Dir, o.Instance, o.ConsistencyDelay = t.TempDir(), instance, 0
	o.BucketID = func() (string, bool) { return "bucket", true }
	o.Retention.Wait = 0
	return o
}

func newCompactor(t testing.TB, bkt objstore.Bucket, o Options) *Compactor {
	t.Helper()
	c, err := New(slog.New(slog.NewTextHandler(logOf{t}, nil)), prometheus.NewRegistry(), bkt, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// logOf writes a log into that of a test.
type logOf struct{ t testing.TB }

func (l logOf) Write(b []byte) (int, error) {
	if testing.Verbose() {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func once(t testing.TB, c *Compactor) {
	t.Helper()
	if err := c.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func viewOf(t testing.TB, bkt objstore.BucketReader) block.View {
	t.Helper()
	v, err := block.NewFetcher(bkt, block.FetcherOptions{}).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// visible are the blocks that a reader serves: those that no others replace.
func visible(v block.View) []*block.Meta {
	all := v.Select()
	replaced := block.Replaced(all)
	return slices.DeleteFunc(all, func(m *block.Meta) bool { _, ok := replaced[m.ULID]; return ok })
}

// reader collects the samples of a stream of series.
type reader struct {
	symbols merge.Symbols
	got     map[string][]sample
}

func (r *reader) Begin(symbols merge.Symbols) error { r.symbols = symbols; return nil }
func (r *reader) End() error                        { return nil }

func (r *reader) Add(s *merge.Series) error {
	name := ""
	for _, n := range s.Symbols {
		name += r.symbols.At(n) + ";"
	}
	for _, c := range s.Chunks {
		chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Encoding), slices.Clone(c.Data))
		if err != nil {
			return err
		}
		it := chunk.Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			ts, v := it.At()
			r.got[name] = append(r.got[name], sample{ts, v})
		}
		if it.Err() != nil {
			return it.Err()
		}
	}
	return nil
}

// samplesOf are the samples of the visible raw blocks of a bucket, by tenant and series, in order of time. Samples of
// replicas are united. twice counts the samples that one stream has in two blocks.
func samplesOf(t testing.TB, bkt objstore.BucketReader) (all map[string][]sample, twice int) {
	t.Helper()
	all = map[string][]sample{}
	byStream := map[string]map[int64]bool{}
	for _, m := range visible(viewOf(t, bkt)) {
		if m.Thanos.Downsample.Resolution != 0 {
			continue
		}
		r := &reader{got: map[string][]sample{}}
		if _, err := merge.Run(t.Context(), []merge.Input{merge.FromBucket(bkt, m)}, r, merge.Options{
			Scratch: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
		for name, list := range r.got {
			name = m.Thanos.Labels["tenant_id"] + ":" + name
			stream := name + labels.FromMap(m.Thanos.Labels).String()
			if byStream[stream] == nil {
				byStream[stream] = map[int64]bool{}
			}
			for _, s := range list {
				if byStream[stream][s.t] {
					twice++
				}
				byStream[stream][s.t] = true
			}
			all[name] = append(all[name], list...)
		}
	}
	for name, list := range all {
		slices.SortFunc(list, func(a, b sample) int { return int(a.t - b.t) })
		all[name] = slices.Compact(list)
	}
	return all, twice
}

// wanted are the samples that blocks with these begins have, all replicas together.
func wanted(blocks []made) map[string][]sample {
	all := map[string][]sample{}
	for _, m := range blocks {
		for i := range series {
			name := fmt.Sprintf("%s:__name__;m;i;%d;", m.tenant, i)
			for ts := m.begin; ts < m.begin+m.length; ts += every {
				all[name] = append(all[name], sample{ts, valueAt(m.tenant, i, ts)})
			}
		}
	}
	for name, list := range all {
		slices.SortFunc(list, func(a, b sample) int { return int(a.t - b.t) })
		all[name] = slices.Compact(list)
	}
	return all
}

func sameSamples(t testing.TB, got, want map[string][]sample) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d series, want %d", len(got), len(want))
	}
	for name, list := range want {
		if !slices.Equal(got[name], list) {
			t.Errorf("%s: %d samples, want %d", name, len(got[name]), len(list))
		}
	}
}

// content is all that matters in a bucket at the end: blocks with their bytes, without the times of uploads.
func content(t testing.TB, bkt *objstore.InMemBucket) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, b := range bkt.Objects() {
		switch {
		case strings.HasPrefix(name, "hearth/") || strings.HasPrefix(name, "debug/"):
		case strings.HasSuffix(name, "/"+block.DeletionMarkName):
			out[name] = "marked"
		case strings.HasSuffix(name, "/"+block.MetaName):
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			delete(m["thanos"].(map[string]any), "upload_time")
			text, _ := json.Marshal(m)
			out[name] = string(text)
		default:
			out[name] = string(b)
		}
	}
	return out
}

func sameContent(t testing.TB, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s has other bytes (%d, want %d)", name, len(got[name]), len(want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is there", name)
		}
	}
}

// oldest is the begin of the data of tests: a border of 14 days, long ago.
var oldest = time.Now().Add(-60*24*time.Hour).UnixMilli() / (14 * 24 * hour) * (14 * 24 * hour)
