package downsample

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
)

// collected is a Sink that keeps the chunks of all series, by the value of their only label.
type collected struct {
	symbols merge.Symbols
	chunks  map[string][]merge.Chunk
}

func (c *collected) Begin(s merge.Symbols) error {
	c.symbols, c.chunks = s, map[string][]merge.Chunk{}
	return nil
}
func (c *collected) End() error { return nil }
func (c *collected) Add(s *merge.Series) error {
	var k kept
	if err := k.Add(s); err != nil {
		return err
	}
	c.chunks[c.symbols.At(s.Symbols[1])] = k.chunks
	return nil
}

// newMeta is that of a block in dir.
func newMeta(id byte, mint, maxt int64) *block.Meta {
	return &block.Meta{
		BlockMeta: tsdb.BlockMeta{
			Version: 1, ULID: ulid.MustNew(uint64(id), bytes.NewReader(bytes.Repeat([]byte{id}, 16))),
			MinTime: mint, MaxTime: maxt, Compaction: tsdb.BlockMetaCompaction{Level: 1},
		},
		Thanos: block.Thanos{Version: 1, Labels: map[string]string{"cluster": "a"}, Source: block.SourceTest},
	}
}

// finish writes the meta.json of a block in a bucket on disk.
func finish(t *testing.T, bucket string, m *block.Meta, w *merge.BlockWriter) {
	t.Helper()
	m.Compaction.Sources = []ulid.ULID{m.ULID}
	for _, f := range w.Written().Files {
		m.Thanos.Files = append(m.Thanos.Files, f)
		if filepath.Dir(f.RelPath) == block.ChunksName {
			m.Thanos.SegmentFiles = append(m.Thanos.SegmentFiles, filepath.Base(f.RelPath))
		}
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bucket, m.ULID.String(), block.MetaName), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeRaw writes a raw block of in, by name, into a bucket on disk.
func writeRaw(t *testing.T, bucket string, in map[string][]merge.Chunk, mint, maxt int64) *block.Meta {
	t.Helper()
	m := newMeta(1, mint, maxt)
	w := merge.NewBlockWriter(filepath.Join(bucket, m.ULID.String()), merge.WriterOptions{})
	defer w.Close()
	names := slices.Sorted(maps.Keys(in))
	table := append(symbols{"__name__"}, names...)
	if err := w.Begin(table); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if err := w.Add(&merge.Series{Symbols: []uint32{0, uint32(i + 1)}, Chunks: in[name]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	m.Stats = w.Written().Stats
	finish(t, bucket, m, w)
	return m
}

// contents are the chunks of a block, by name.
func contents(t *testing.T, bucket string, m *block.Meta) map[string][]merge.Chunk {
	t.Helper()
	out := new(collected)
	in := []merge.Input{merge.FromDir(filepath.Join(bucket, m.ULID.String()), m)}
	if _, err := merge.Run(t.Context(), in, out, merge.Options{Scratch: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return out.chunks
}

// compacted rewrites a raw block, and writes both downsampled ones in the same read.
func compacted(t *testing.T, bucket string, m *block.Meta) (five, hour *block.Meta) {
	t.Helper()
	five, hour = newMeta(5, m.MinTime, m.MaxTime), newMeta(6, m.MinTime, m.MaxTime)
	raw := newMeta(4, m.MinTime, m.MaxTime)
	writer := func(m *block.Meta) *merge.BlockWriter {
		w := merge.NewBlockWriter(filepath.Join(bucket, m.ULID.String()), merge.WriterOptions{})
		t.Cleanup(func() { w.Close() })
		return w
	}
	rawWriter, fiveWriter, hourWriter := writer(raw), writer(five), writer(hour)
	hourStage := New(Hour, hourWriter)
	fiveStage := NewWith(FiveMinutes, fiveWriter, hourStage)
	in := []merge.Input{merge.FromDir(filepath.Join(bucket, m.ULID.String()), m)}
	sink := merge.Tee(rawWriter, fiveStage)
	if _, err := merge.Run(t.Context(), in, sink, merge.Options{Scratch: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	Describe(five, FiveMinutes, fiveStage.Stats())
	Describe(hour, Hour, hourStage.Stats())
	for m, w := range map[*block.Meta]*merge.BlockWriter{five: fiveWriter, hour: hourWriter} {
		if w.Written().Stats.NumSamples != m.Stats.NumSamples || w.Written().Stats.NumSeries != m.Stats.NumSeries ||
			w.Written().Stats.NumChunks != m.Stats.NumChunks {
			t.Errorf("the writer counts %+v, the stage %+v", w.Written().Stats, m.Stats)
		}
	}
	finish(t, bucket, raw, rawWriter)
	finish(t, bucket, five, fiveWriter)
	finish(t, bucket, hour, hourWriter)
	return five, hour
}

// TestOneRead: a block is compacted, and downsampled to both resolutions, in one read of it.
func TestOneRead(t *testing.T) {
	bucket := t.TempDir()
	in := recordedInput()
	chunks := map[string][]merge.Chunk{}
	for name, samples := range in {
		chunks[name] = chunksOf(samples)
	}
	chunks["gone"] = chunksOf([]sample{{T: recordedFrom, V: stale}})
	m := writeRaw(t, bucket, chunks, recordedFrom, recordedTo)
	five, hour := compacted(t, bucket, m)
	for resolution, m := range map[int64]*block.Meta{FiveMinutes: five, Hour: hour} {
		got := contents(t, bucket, m)
		if len(got) != len(in) || m.Stats.NumSeries != uint64(len(in)) {
			t.Fatalf("%d series and %+v, want %d", len(got), m.Stats, len(in))
		}
		if m.Thanos.Downsample.Resolution != resolution || m.Thanos.Source != block.SourceCompactor ||
			m.Stats.NumFloatSamples+m.Stats.NumHistogramSamples != m.Stats.NumSamples || m.Stats.NumHistogramSamples == 0 {
			t.Errorf("%+v %+v", m.Thanos, m.Stats)
		}
		for name, samples := range in {
			f, h := downsampled(t, samples)
			want := f
			if resolution == Hour {
				want = h
			}
			if !slices.EqualFunc(got[name], want, func(a, b merge.Chunk) bool { return bytes.Equal(a.Data, b.Data) }) {
				t.Errorf("%s: other chunks than by itself", name)
			}
		}
	}
}
