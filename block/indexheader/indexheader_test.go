package indexheader

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

type sample int64

func (s sample) ST() int64                     { return 0 }
func (s sample) T() int64                      { return int64(s) }
func (s sample) F() float64                    { return 1 }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// uploaded makes a block of n series and puts its index in a bucket; dir is the local block.
func uploaded(t testing.TB, n int) (bkt *objstore.InMemBucket, id ulid.ULID, dir string) {
	t.Helper()
	var list []storage.Series
	for i := range n {
		ls := labels.FromStrings("__name__", fmt.Sprintf("m%d", i%7), "instance", fmt.Sprintf("i%05d", i), "mod",
			fmt.Sprint(i%97), "ü", "\xff")
		list = append(list, storage.NewListSeries(ls, []chunks.Sample{sample(1), sample(2)}))
	}
	dir, err := tsdb.CreateBlock(list, t.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id = ulid.MustParse(filepath.Base(dir))
	b, err := os.ReadFile(filepath.Join(dir, block.IndexName))
	if err != nil {
		t.Fatal(err)
	}
	bkt = objstore.NewInMemBucket()
	if err := bkt.Upload(t.Context(), block.Object(id, block.IndexName), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	return bkt, id, dir
}

// load opens the index-header at path, and builds it when it is missing or faulty.
func load(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, path string) (*Reader, error) {
	if r, err := Open(path); err == nil {
		return r, nil
	}
	if err := Build(ctx, bkt, id, path); err != nil {
		return nil, err
	}
	return Open(path)
}

// TestAgreesWithIndex compares every answer with Prometheus's own reader of the whole index.
func TestAgreesWithIndex(t *testing.T) {
	for _, n := range []int{1, 33, 2000} {
		bkt, id, dir := uploaded(t, n)
		r, err := load(t.Context(), bkt, id, filepath.Join(t.TempDir(), "sub", "index-header"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ix, err := index.NewFileReader(filepath.Join(dir, block.IndexName), index.DecodePostingsRaw)
		if err != nil {
			t.Fatal(err)
		}
		defer ix.Close()
		raw, _ := os.ReadFile(filepath.Join(dir, block.IndexName))
		names, err := ix.LabelNames(t.Context())
		if err != nil || !slices.Equal(names, r.LabelNames()) {
			t.Fatalf("names %q, want %q", r.LabelNames(), names)
		}
		for _, name := range append(names, "", "absent") {
			want, err := ix.SortedLabelValues(t.Context(), name, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			var ranges []index.Range
			if err := r.Values(t.Context(), name, "", func(v string, at index.Range) bool {
				got, ranges = append(got, v), append(ranges, at)
				return true
			}); err != nil || !slices.Equal(got, want) {
				t.Fatalf("values of %q: %q, want %q, %v", name, got, want, err)
			}
			for i, v := range got {
				one, err := r.Ranges(t.Context(), nil, name, v)
				if err != nil || len(one) != 1 || one[0] != ranges[i] {
					t.Fatalf("%s=%s: %v, want %v, %v", name, v, one, ranges[i], err)
				}
				samePostings(t, ix, raw, ranges[i], name, v)
			}
			for _, prefix := range []string{"i0", "i00032", "i00033", "m", "m6", "a", "z", "\xff"} {
				i := 0
				for _, v := range want {
					if strings.HasPrefix(v, prefix) {
						i++
					}
				}
				if err := r.Values(t.Context(), name, prefix, func(v string, at index.Range) bool {
					k := slices.Index(got, v)
					if k < 0 || ranges[k] != at || !strings.HasPrefix(v, prefix) {
						t.Fatalf("prefix %q of %q: %q at %v", prefix, name, v, at)
					}
					i--
					return true
				}); err != nil || i != 0 {
					t.Fatalf("prefix %q of %q: %d values are missing, %v", prefix, name, i, err)
				}
			}
			asked := append(slices.Clone(want), "", "i000005", "i00005x", "zzz", "0", "m3a")
			slices.Sort(asked)
			if all, err := r.Ranges(t.Context(), nil, name, slices.Compact(asked)...); err != nil || !slices.Equal(all, ranges) {
				t.Fatalf("%q: %d ranges, want %d, %v", name, len(all), len(ranges), err)
			}
			if one, err := r.Ranges(t.Context(), nil, name, "zzzz"); err != nil || len(one) != 0 {
				t.Fatalf("%v, %v", one, err)
			}
		}
		symbols := ix.Symbols()
		for i := uint32(0); symbols.Next(); i++ {
			if s, err := r.LookupSymbol(t.Context(), i); err != nil || s != symbols.At() {
				t.Fatalf("symbol %d: %q, want %q, %v", i, s, symbols.At(), err)
			}
		}
		if _, err := r.LookupSymbol(t.Context(), 1<<31); err == nil {
			t.Fatal("a symbol that is not there")
		}
	}
}

func samePostings(t *testing.T, ix *index.Reader, raw []byte, at index.Range, name, value string) {
	t.Helper()
	d := encoding.NewDecbufAt(block.Bytes(raw[at.Start:at.End]), 0, block.Castagnoli)
	_, p, err := index.DecodePostingsRaw(d)
	if err != nil {
		t.Fatalf("%s=%s at %v: %v", name, value, at, err)
	}
	got, err := index.ExpandPostings(p)
	if err != nil {
		t.Fatal(err)
	}
	p, err = ix.Postings(t.Context(), name, value)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := index.ExpandPostings(p); !slices.Equal(got, want) {
		t.Fatalf("%s=%s: postings %v, want %v", name, value, got, want)
	}
}

// TestFaultyFileIsRebuilt damages the local file in every byte and at every length: Open refuses, Build repairs.
func TestFaultyFileIsRebuilt(t *testing.T) {
	bkt, id, _ := uploaded(t, 3)
	path := filepath.Join(t.TempDir(), "index-header")
	if err := Build(t.Context(), bkt, id, path); err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(path)
	damaged := filepath.Join(t.TempDir(), "damaged")
	f := func(b []byte) bool {
		if err := os.WriteFile(damaged, b, 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := Open(damaged)
		if err == nil {
			r.Close()
		} else if kind := errs.KindOf(err); kind != errs.Invalid && kind != errs.NotFound {
			t.Fatalf("kind %s: %v", kind, err)
		}
		return err == nil
	}
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 0x41
		if f(b) && !bytes.Equal(b[:5], good[:5]) {
			t.Fatalf("byte %d flipped: accepted", i)
		}
		if f(good[:i]) {
			t.Fatalf("cut to %d bytes: accepted", i)
		}
	}
	r, err := load(t.Context(), bkt, id, damaged)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if b, _ := os.ReadFile(damaged); !bytes.Equal(b, good) {
		t.Fatal("not rebuilt")
	}
}

// TestFaultyIndex damages the index in the bucket: no file may appear.
func TestFaultyIndex(t *testing.T) {
	bkt, id, dir := uploaded(t, 3)
	good, _ := os.ReadFile(filepath.Join(dir, block.IndexName))
	f := func(b []byte, want errs.Kind) {
		t.Helper()
		if err := bkt.Upload(t.Context(), block.Object(id, block.IndexName), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		r, err := load(t.Context(), bkt, id, filepath.Join(out, "index-header"))
		if r != nil {
			r.Close()
		}
		if errs.KindOf(err) != want {
			t.Fatalf("kind %s: %v", errs.KindOf(err), err)
		}
		if left, _ := os.ReadDir(out); err != nil && len(left) != 0 {
			t.Fatalf("left %v", left)
		}
	}
	f(good, errs.OK)
	f(good[:40], errs.Invalid)
	f(good[:len(good)-1], errs.Invalid)
	for _, at := range []int{0, len(good) - 10, 12, len(good) - indexTOCLen - 6} { // magic, contents, symbols, table
		b := slices.Clone(good)
		b[at] ^= 1
		f(b, errs.Invalid)
	}
	old := slices.Clone(good)
	old[4] = 1
	f(old, errs.Unsupported)
	bkt.Delete(t.Context(), block.Object(id, block.IndexName))
	if err := Build(t.Context(), bkt, id, filepath.Join(t.TempDir(), "x")); errs.KindOf(err) != errs.NotFound {
		t.Fatal(err)
	}
}

// TestShipped: what a producer ships is what Build makes, and it is fetched by one read. What is damaged, cut, missing
// or of another index is not used.
func TestShipped(t *testing.T) {
	_, id, dir := uploaded(t, 300)
	bkt := &countBucket{Bucket: objstore.NewInMemBucket()}
	extra, err := Shipped(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := block.ReadMeta(f, id)
	if err != nil {
		t.Fatal(err)
	}
	err = block.UploadWith(t.Context(), bkt, dir, *m, block.UploadOptions{Extra: []block.ExtraFile{extra}, Hash: true})
	if err != nil {
		t.Fatal(err)
	}
	if m, err = block.FetchMeta(t.Context(), bkt, id); err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(t.TempDir(), "built")
	if err := Build(t.Context(), bkt, id, built); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(built)
	object := block.Object(id, block.IndexHeaderName)
	check := func(what string, content []byte, reads int64) {
		t.Helper()
		if content == nil {
			bkt.Delete(t.Context(), object)
		} else if err := bkt.Upload(t.Context(), object, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "fetched")
		before := bkt.reads.Load()
		if err := Fetch(t.Context(), bkt, m, path); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes differ from the %d that are built", what, len(got), len(want))
		}
		if n := bkt.reads.Load() - before; n != reads {
			t.Errorf("%s: %d reads, want %d", what, n, reads)
		}
	}
	sent, err := extra.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer sent.Close()
	whole, err := io.ReadAll(sent)
	if err != nil || int64(len(whole)) != extra.Size {
		t.Fatalf("%d bytes, want %d, %v", len(whole), extra.Size, err)
	}
	const rebuilt = 1 + 2 // the end and the beginning of the index
	check("whole", whole, 1)
	check("cut", whole[:len(whole)-1], rebuilt)
	check("too long", append(slices.Clone(whole), 0), rebuilt)
	flipped := slices.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	check("damaged", flipped, rebuilt)
	check("gone", nil, rebuilt)
	_, _, other := uploaded(t, 301)
	foreign, err := Shipped(other)
	if err != nil {
		t.Fatal(err)
	}
	r, err := foreign.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	of301, _ := io.ReadAll(r)
	for i, f := range m.Thanos.Files {
		if f.RelPath == block.IndexHeaderName {
			m.Thanos.Files[i].SizeBytes = int64(len(of301))
		}
	}
	check("of another index", of301, rebuilt)
	for _, wrong := range []int64{-7, 14, 1 << 40} { // then the bucket is asked for the size
		for i, f := range m.Thanos.Files {
			if f.RelPath == block.IndexName {
				m.Thanos.Files[i].SizeBytes += wrong
			}
		}
		check(fmt.Sprintf("size %+d", wrong), nil, 1+1+3)
	}
	content, err := os.ReadFile(filepath.Join(dir, block.IndexName))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut")
	if err := Cut(content, id, path); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
		t.Error("what is cut out of an index in memory differs")
	}
	for n := range []int{0, 4, 5, len(content) / 2, len(content) - 1} {
		if err := Cut(content[:n], id, path); errs.KindOf(err) != errs.Invalid {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

// countBucket counts reads.
type countBucket struct {
	objstore.Bucket
	reads atomic.Int64
}

func (b *countBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.reads.Add(1)
	return b.Bucket.Get(ctx, name)
}

func (b *countBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	b.reads.Add(1)
	return b.Bucket.GetRange(ctx, name, off, n)
}

func (b *countBucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	b.reads.Add(1)
	return b.Bucket.Attributes(ctx, name)
}

type downBucket struct{ objstore.Bucket }

func (downBucket) GetRange(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, io.ErrUnexpectedEOF
}

func TestBucketDown(t *testing.T) {
	bkt, id, _ := uploaded(t, 1)
	if err := Build(t.Context(), downBucket{bkt}, id,
		filepath.Join(t.TempDir(), "x")); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
}

func FuzzOpen(f *testing.F) {
	bkt, id, _ := uploaded(f, 2)
	path := filepath.Join(f.TempDir(), "index-header")
	if err := Build(context.Background(), bkt, id, path); err != nil {
		f.Fatal(err)
	}
	good, _ := os.ReadFile(path)
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path)
		if err != nil {
			return
		}
		defer r.Close()
		for _, n := range append(r.LabelNames(), "") {
			_ = r.Values(t.Context(), n, "", func(v string, _ index.Range) bool {
				_, err := r.Ranges(t.Context(), nil, n, v)
				return err == nil
			})
		}
		for ref := range uint32(20) {
			_, _ = r.LookupSymbol(t.Context(), ref)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	bkt, id, _ := uploaded(b, 5000)
	path := filepath.Join(b.TempDir(), "index-header")
	if err := Build(b.Context(), bkt, id, path); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

// BenchmarkLookupSymbol looks up symbols at random; Prometheus's reader of symbols is beside it.
func BenchmarkLookupSymbol(b *testing.B) {
	bkt, id, _ := uploaded(b, 20_000)
	path := filepath.Join(b.TempDir(), "index-header")
	if err := Build(b.Context(), bkt, id, path); err != nil {
		b.Fatal(err)
	}
	r, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	theirs, err := index.NewSymbols(block.Bytes(r.file.Bytes()), index.FormatV2, headerLen)
	if err != nil {
		b.Fatal(err)
	}
	for name, lookup := range map[string]func(uint32) (string, error){
		"ours": r.symbols.lookup, "Prometheus": theirs.Lookup,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ref := uint32(0)
			for b.Loop() {
				ref = (ref + 7919) % uint32(r.symbols.count)
				if _, err := lookup(ref); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
