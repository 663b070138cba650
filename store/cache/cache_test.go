package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestReadIsTheObject reads random ranges of two objects through a small cache and compares with the objects.
func TestReadIsTheObject(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	objects := map[string][]byte{}
	for i, size := range []int{1, PageSize, 5*PageSize + 77, 40 * PageSize} {
		b := make([]byte, size)
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		objects[fmt.Sprint(i)] = b
	}
	for _, max := range []int64{0, 20 * PageSize, 1000 * PageSize} {
		p := New(max, nil)
		reads := 0
		for range 2000 {
			name := fmt.Sprint(rnd.IntN(len(objects)))
			b := objects[name]
			off := rnd.Int64N(int64(len(b)))
			n := 1 + rnd.Int64N(min(int64(len(b))-off, 4*PageSize))
			got, err := p.Read(t.Context(), name, int64(len(b)), off, n, func(_ context.Context, off, n int64) ([]byte, error) {
				reads++
				return bytes.Clone(b[off : off+n]), nil
			})
			if err != nil || !bytes.Equal(got, b[off:off+n]) {
				t.Fatalf("max %d: %s [%d, +%d) differs: %v", max, name, off, n, err)
			}
			if p.size > max || len(p.pages) != p.order.Len() {
				t.Fatalf("max %d: holds %d bytes, %d and %d pages", max, p.size, len(p.pages), p.order.Len())
			}
		}
		if max == 1000*PageSize && reads > 47 {
			t.Fatalf("%d reads though everything fits", reads)
		}
	}
}

func TestReadFails(t *testing.T) {
	p := New(100*PageSize, nil)
	fault := errors.New("fault")
	for range 2 {
		if _, err := p.Read(t.Context(), "x", 10, 0, 10,
			func(context.Context, int64, int64) ([]byte, error) { return nil, fault }); err != fault {
			t.Fatal(err)
		}
	}
	if p.size != 0 {
		t.Fatal("a failed read is kept")
	}
}
