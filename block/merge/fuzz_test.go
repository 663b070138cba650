package merge

import (
	"bytes"
	"context"
	"io"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// FuzzSeriesEntry: entries of series come from buckets.
func FuzzSeriesEntry(f *testing.F) {
	f.Add([]byte{2, 1, 2, 3, 4, 2, 10, 20, 8, 1, 5, 4})
	f.Add([]byte{1, 1, 2, 0})
	f.Fuzz(func(t *testing.T, entry []byte) {
		labels, rest, err := decodeLabels(nil, entry, 10)
		if err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatal(err)
			}
			return
		}
		if slices.ContainsFunc(labels, func(n uint32) bool { return n >= 10 }) {
			t.Fatal(labels)
		}
		metas, err := decodeChunks(nil, rest)
		if err == nil && slices.ContainsFunc(metas, func(c chunkRef) bool { return c.maxt < c.mint }) {
			t.Fatal(metas)
		}
	})
}

// bytesFiles is a block whose files are all the same bytes.
type bytesFiles []byte

func (b bytesFiles) open(_ context.Context, _ string, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[min(off, int64(len(b))):])), nil
}
func (b bytesFiles) size(context.Context, string) (int64, error)     { return int64(len(b)), nil }
func (b bytesFiles) index(context.Context, string) (*os.File, error) { return nil, os.ErrNotExist }

// FuzzSegment: segments come from buckets.
func FuzzSegment(f *testing.F) {
	f.Add([]byte{0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0, 3, 1, 0, 0, 0, 1, 2, 3, 4}, uint64(8))
	f.Fuzz(func(t *testing.T, b []byte, ref uint64) {
		s := newSegments(context.Background(), bytesFiles(b), 64)
		for _, ref := range []uint64{ref, 8, ref} {
			if data, _, err := s.read(nil, ref); err == nil && len(data) > len(b) {
				t.Fatalf("%d bytes of %d", len(data), len(b))
			} else if k := errs.KindOf(err); err != nil && k != errs.Invalid {
				t.Fatalf("%v of kind %s", err, k)
			}
		}
	})
}

// FuzzIndex: indexes come from buckets.
func FuzzIndex(f *testing.F) {
	for _, rel := range []string{"index", "chunks/000001"} {
		in := rawBlock(f, 1, 0, 10, rawSeries{[]string{"a", "b"}, []Chunk{{0, 9, 1, []byte{0, 1, 2, 3}}}})
		b, err := os.ReadFile(in.files.(dirFiles).path(rel))
		check(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := scratchFile(t.TempDir())
		check(t, err)
		if _, err := file.Write(b); err != nil {
			t.Fatal(err)
		}
		s, err := openIndex(file, 64)
		if err != nil {
			return
		}
		defer s.close()
		for text, err := s.nextSymbol(); text != nil && err == nil; text, err = s.nextSymbol() {
		}
		s.startSeries()
		for entry, err := s.nextSeries(); entry != nil && err == nil; entry, err = s.nextSeries() {
		}
	})
}

// FuzzUnion: chunks come from buckets. Whatever is in them, the union is in order, and can be read.
func FuzzUnion(f *testing.F) {
	for _, c := range []Chunk{chunkOf(f, chunkenc.EncXOR, floats(0, 50, 1, 0)...),
		chunkOf(f, chunkenc.EncXOR2, floats(0, 50, 1, 0)...)} {
		f.Add(c.Encoding, c.Data, int64(0), int64(49))
	}
	f.Add(byte(chunkenc.EncHistogram), []byte{0, 1, 0, 0, 0xff, 0, 3, 4, 5, 6, 7, 8}, int64(0), int64(49))
	other := chunkOf(f, chunkenc.EncXOR, floats(25, 75, 1, 3)...)
	f.Fuzz(func(t *testing.T, enc byte, data []byte, mint, maxt int64) {
		if checkChunk(enc, data) != nil || maxt < mint {
			return
		}
		a, b := &cursor{id: ulid.ULID{1}}, &cursor{id: ulid.ULID{2}, number: 1}
		u := union{opts: Options{MinTime: math.MinInt64, MaxTime: math.MaxInt64}, replicas: 1}
		u.chunks = []piece{{Chunk: Chunk{mint, maxt, enc, bytes.Clone(data)}, cursor: a},
			{Chunk: Chunk{other.MinTime, other.MaxTime, other.Encoding, bytes.Clone(other.Data)}, cursor: b}}
		out, err := u.merge()
		if err != nil {
			if k := errs.KindOf(err); k != errs.Invalid && k != errs.Unsupported {
				t.Fatalf("%v of kind %s", err, k)
			}
			return
		}
		for i, c := range out {
			if c.MaxTime < c.MinTime || i > 0 && c.MinTime <= out[i-1].MaxTime {
				t.Fatalf("chunk %d of %+v", i, out)
			}
			if chunkenc.Encoding(c.Encoding) != series.EncAggregates && c.Encoding > byte(chunkenc.EncFloatHistogram) {
				t.Fatalf("encoding %d", c.Encoding)
			}
		}
	})
}
