package block

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"
)

var errFault = errors.New("injected fault")

// faultBucket fails every mutating or reading call after the first `left` ones.
type faultBucket struct {
	objstore.Bucket
	mu   sync.Mutex
	left int
	log  []string
}

func (b *faultBucket) step(verb, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return errFault
	}
	b.left--
	b.log = append(b.log, verb+" "+name)
	return nil
}

func (b *faultBucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if err := b.step("put", name); err != nil {
		return err
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

func (b *faultBucket) Delete(ctx context.Context, name string) error {
	if err := b.step("delete", name); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, name)
}

// localBlock makes a real block of n series, and its meta.
func localBlock(t testing.TB, n int) (string, Meta) {
	t.Helper()
	var list []storage.Series
	for i := range n {
		var samples []chunks.Sample
		for ts := int64(0); ts < 1000; ts += 10 {
			samples = append(samples, sample{ts, float64(i) + float64(ts)})
		}
		list = append(list, storage.NewListSeries(labels.FromStrings("__name__", "m", "i", string(rune('a'+i))), samples))
	}
	dir, err := tsdb.CreateBlock(list, t.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := ulid.MustParse(filepath.Base(dir))
	f, err := os.Open(filepath.Join(dir, MetaName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := ReadMeta(f, id)
	if err != nil {
		t.Fatal(err)
	}
	m.Thanos.Labels = map[string]string{"tenant_id": "a", "receive_replica": "r1"}
	m.Thanos.Source = SourceTest
	return dir, *m
}

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

func TestUploadCommitsLast(t *testing.T) {
	dir, meta := localBlock(t, 3)
	bkt := objstore.NewInMemBucket()
	fb := &faultBucket{Bucket: bkt, left: -1}
	if err := Upload(t.Context(), fb, dir, meta); err != nil {
		t.Fatal(err)
	}
	id := meta.ULID.String()
	want := "put " + id + "/chunks/000001\nput " + id + "/index\nput " + id + "/meta.json\nput debug/metas/" + id + ".json"
	if got := strings.Join(fb.log, "\n"); got != want {
		t.Fatalf("order:\n%s\nwant:\n%s", got, want)
	}
	back, err := FetchMeta(t.Context(), bkt, meta.ULID)
	if err != nil {
		t.Fatal(err)
	}
	if len(back.Thanos.Files) != 3 || back.Thanos.UploadTime.IsZero() || back.Thanos.Labels["tenant_id"] != "a" {
		t.Fatalf("meta: %+v", back.Thanos)
	}
	fb.log = nil
	if err := Upload(t.Context(), fb, dir, meta); err != nil || len(fb.log) != 0 {
		t.Fatalf("second upload: %v, wrote %v", err, fb.log)
	}
}
