package store

import (
	"context"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
)

// FuzzEntry compares the decoder of series entries with Prometheus's.
func FuzzEntry(f *testing.F) {
	var e encoding.Encbuf
	e.PutUvarint(2)
	for _, symbol := range []int{1, 2, 3, 4} {
		e.PutUvarint(symbol)
	}
	e.PutUvarint(3)
	e.PutVarint64(-5)
	e.PutUvarint64(100)
	e.PutUvarint64(8)
	for range 2 {
		e.PutUvarint64(1)
		e.PutUvarint64(90)
		e.PutVarint64(77)
	}
	f.Add(e.Get())
	f.Add([]byte{0, 0})
	f.Add([]byte("\x00\x91\x91\x91\x91\x91\x91\xff\xff\xff\x01"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		var builder labels.ScratchBuilder
		var metas []chunks.Meta
		var want []string
		d := index.Decoder{LookupSymbol: func(_ context.Context, ref uint32) (string, error) {
			want = append(want, strconv.Itoa(int(ref)))
			return "", nil
		}}
		wantErr := d.Series(b, &builder, &metas)
		var e indexEntry
		if err := e.decode(b); (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, want %v", err, wantErr)
		}
		if wantErr != nil {
			return
		}
		var got []string
		for _, ref := range e.symbols {
			got = append(got, strconv.Itoa(int(ref)))
		}
		if !slices.Equal(got, want) || !slices.Equal(e.chunks, metas) {
			t.Fatalf("%v %v, want %v %v", got, e.chunks, want, metas)
		}
	})
}
