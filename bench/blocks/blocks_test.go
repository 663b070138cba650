package blocks

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
)

func small() Plan {
	p := DefaultPlan()
	p.Blocks, p.Tenants = 6, 3
	p.Large = &Large{Shape: Shape{Metrics: 10, Namespaces: 2, Pods: 2}, Range: 48 * time.Hour, Interval: 10 * time.Minute}
	return p
}

// TestWrite reads each small block back with the library, and compares it with its meta.json.
func TestWrite(t *testing.T) {
	p := small()
	dir := t.TempDir()
	if err := Write(t.Context(), dir, p); err != nil {
		t.Fatal(err)
	}
	tenants := map[string]int{}
	for _, m := range metasOf(t, dir) {
		tenants[m.Thanos.Labels["tenant_id"]]++
		if m.Thanos.Downsample.Resolution > 0 {
			continue
		}
		seriesOf, samples := readBlock(t, filepath.Join(dir, m.ULID.String()), m)
		if seriesOf != m.Stats.NumSeries || samples != m.Stats.NumSamples {
			t.Errorf("block %s: %d series and %d samples, meta.json says %+v", m.ULID, seriesOf, samples, m.Stats)
		}
		if id := m.ULID; ulid.Time(id.Time()).UnixMilli() != m.MaxTime {
			t.Errorf("block %s ends at %d", id, m.MaxTime)
		}
	}
	if len(tenants) != 4 || tenants[Tenant(0)] != 2 || tenants[LargeTenant] != len(resolutions) {
		t.Errorf("blocks of tenants: %v", tenants)
	}
}

// readBlock counts what the library finds in a block, all of which must be within its times.
func readBlock(t *testing.T, dir string, m *block.Meta) (seriesOf, samples uint64) {
	t.Helper()
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockQuerier(b, m.MinTime, m.MaxTime-1)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchNotEqual, "__name__", ""))
	for set.Next() {
		seriesOf++
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			if at := it.AtT(); at < m.MinTime || at >= m.MaxTime {
				t.Fatalf("sample at %d in a block of [%d, %d)", at, m.MinTime, m.MaxTime)
			}
			samples++
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return seriesOf, samples
}

// TestSameBytes: a plan is written twice, and the two directories hold the same files.
func TestSameBytes(t *testing.T) {
	files := func() map[string]string {
		dir := t.TempDir()
		if err := Write(t.Context(), dir, small()); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(filepath.Join(dir, path))
			out[path] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first, second := files(), files()
	for path, data := range first {
		if second[path] != data {
			t.Errorf("%s differs", path)
		}
	}
	if len(first) != len(second) || len(first) != (6+3)*3 {
		t.Errorf("%d files, then %d", len(first), len(second))
	}
}

// TestDownsampled compares the aggregates of a resolution with the samples that they are of.
func TestDownsampled(t *testing.T) {
	for _, isNative := range []bool{false, true} {
		q := sequence{seed: 3, native: isNative, when: span{0, 48 * 3_600_000}, interval: 600_000}
		p, err := q.downsampled(3_600_000)
		if err != nil {
			t.Fatal(err)
		}
		total := 0.0
		for _, c := range p.chunks {
			decoded, err := series.DecodeAggregates(c.Chunk.Bytes(), series.EveryAggregate)
			if err != nil {
				t.Fatal(err)
			}
			count, err := chunkenc.FromData(decoded[series.Count].Encoding, decoded[series.Count].Data)
			if err != nil {
				t.Fatal(err)
			}
			for it := count.Iterator(nil); it.Next() != chunkenc.ValNone; {
				at, n := it.At()
				if total += n; at < c.MinTime || at > c.MaxTime {
					t.Errorf("window at %d in a chunk of [%d, %d]", at, c.MinTime, c.MaxTime)
				}
			}
			if decoded[series.Counter].Encoding == chunkenc.EncNone || decoded[series.Sum].Encoding == chunkenc.EncNone {
				t.Errorf("native %v: an aggregate is absent", isNative)
			}
		}
		if want := len(q.times()); int(total) != want || p.samples != 48 {
			t.Errorf("native %v: %d windows of %v samples, want 48 of %d", isNative, p.samples, total, want)
		}
	}
}

// TestLabelOrder: the library's index writer takes series in label order only.
func TestLabelOrder(t *testing.T) {
	var last labels.Labels
	err := Shape{Metrics: 12, Namespaces: 12, Pods: 12}.each(func(_, _ int, ls labels.Labels) error {
		if labels.Compare(last, ls) >= 0 {
			t.Errorf("%s comes after %s", ls, last)
		}
		last = ls
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestValidate(t *testing.T) {
	for _, spoil := range []func(*Plan){
		func(p *Plan) { p.Blocks = 7 },
		func(p *Plan) { p.Tenants = 0 },
		func(p *Plan) { p.End = p.End.Add(time.Second) },
		func(p *Plan) { p.Shape.Pods = 1000 },
		func(p *Plan) { p.Interval = 0 },
		func(p *Plan) { p.Large.Interval = 49 * time.Hour },
	} {
		p := small()
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		if spoil(&p); p.Validate() == nil {
			t.Errorf("no error for %+v", p)
		}
	}
}

func metasOf(t *testing.T, dir string) []*block.Meta {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []*block.Meta
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if !ok {
			t.Fatalf("%s is no block", e.Name())
		}
		f, err := os.Open(filepath.Join(dir, e.Name(), block.MetaName))
		if err != nil {
			t.Fatal(err)
		}
		m, err := block.ReadMeta(f, id)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range m.Thanos.Files {
			if _, err := os.Stat(filepath.Join(dir, e.Name(), file.RelPath)); err != nil {
				t.Error(err)
			}
		}
		out = append(out, m)
	}
	return out
}

func BenchmarkWriteWindow(b *testing.B) {
	b.ReportAllocs()
	p := DefaultPlan()
	p.Blocks = p.Tenants
	for b.Loop() {
		if err := Write(context.Background(), b.TempDir(), p); err != nil {
			b.Fatal(err)
		}
	}
}
