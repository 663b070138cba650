package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/index"
)

// TestJoin: near gaps are read, far ones while they are few, the smallest first, and no read is too long.
func TestJoin(t *testing.T) {
	const near, far = nearGap, farGap
	evenly := func(n, step int64) (numbers []int64) {
		for i := range n {
			numbers = append(numbers, i*step)
		}
		return numbers
	}
	f := func(numbers []int64, want string) {
		t.Helper()
		if got := fmt.Sprint(join(numbers)); got != want {
			t.Errorf("%v: %s, want %s", numbers, got, want)
		}
	}
	f(nil, "[]")
	f([]int64{5}, "[{5 6}]")
	f([]int64{5, 6, 7 + near}, fmt.Sprint([]run{{5, 8 + near}}))
	f([]int64{0, 2 + far}, fmt.Sprint([]run{{0, 1}, {2 + far, 3 + far}}))
	f([]int64{0, 1 + far, 2 + far}, fmt.Sprint([]run{{0, 3 + far}}))
	f(evenly(longest+1, 1), fmt.Sprint([]run{{0, longest}, {longest, longest + 1}}))
	// All far gaps together are bounded; the smallest come first.
	numbers := evenly(farGaps/far+1, far+1)
	numbers = append(numbers, numbers[len(numbers)-1]+far+1, numbers[len(numbers)-1]+far+1+far/2)
	if got := join(numbers); len(got) != 3 || got[2].first != numbers[len(numbers)-2] {
		t.Errorf("%v", got)
	}
}

// TestJoinCovers: each page is in one read, and reads begin and end with pages that are wanted.
func TestJoinCovers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 1))
	for range 500 {
		var numbers []int64
		for range rnd.IntN(200) {
			numbers = append(numbers, rnd.Int64N(1+rnd.Int64N(200_000)))
		}
		slices.Sort(numbers)
		numbers = slices.Compact(numbers)
		left := numbers
		for _, r := range join(numbers) {
			n, _ := slices.BinarySearch(left, r.end)
			if n == 0 || left[0] != r.first || left[n-1] != r.end-1 || r.end-r.first > longest {
				t.Fatalf("%v: %v", left, r)
			}
			left = left[n:]
		}
		if len(left) > 0 {
			t.Fatalf("%v are not read", left)
		}
	}
}

// TestParts reads random parts at once, and what is not wanted of the file is not there.
func TestParts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 1))
	for round := range 300 {
		o := newObject(rnd, 1+round%2, 1+rnd.IntN(400*PageSize))
		if round%3 == 0 {
			o.Number = 0
		}
		c := New(Options{MaxBytes: int64(rnd.IntN(3)) * 1000 * PageSize}, nil)
		for range 3 {
			var parts []index.Range
			var memory Extent
			for at := int64(0); at < o.Size; at += rnd.Int64N(60 * PageSize) {
				parts = append(parts, index.Range{Start: at, End: min(at+1+rnd.Int64N(3*PageSize), o.Size)})
				memory.Add(parts[len(parts)-1])
			}
			v, err := c.Read(t.Context(), o.File, Chunks, parts, o.fetch)
			if err != nil {
				t.Fatal(err)
			}
			held := int64(0)
			for _, n := range numbersOf(parts) {
				held += PageSize
				if got := v.At(n*PageSize, 1); len(got) != 1 {
					t.Fatalf("page %d is not there", n)
				}
			}
			if held != memory.Bytes {
				t.Fatalf("%d bytes, want %d", memory.Bytes, held)
			}
			rnd.Shuffle(len(parts), func(i, k int) { parts[i], parts[k] = parts[k], parts[i] })
			for _, p := range parts {
				if got := v.At(p.Start, p.End-p.Start); !bytes.Equal(got, o.data[p.Start:p.End]) {
					t.Fatalf("%v: %d bytes that differ", p, len(got))
				}
			}
			if got := v.At(o.Size, 10); len(got) != 0 {
				t.Fatalf("%d bytes behind the end", len(got))
			}
		}
	}
}

// TestWholeIndex: an index that is small is read as a whole, and one of another size is not taken for it.
func TestWholeIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 1))
	o := newObject(rnd, 0, WholeIndex)
	c := New(Options{MaxBytes: 4000 * PageSize}, nil)
	o.check(t, c, 5*PageSize, 10)
	o.check(t, c, 0, o.Size)
	if n := o.reads.Load(); n != 1 {
		t.Fatalf("%d reads of a small index, want 1", n)
	}
	o = newObject(rnd, 0, PageSize+10)
	right := o.Size
	o.Size -= 5 // as a wrong meta.json says
	c = New(Options{MaxBytes: 4000 * PageSize}, nil)
	o.check(t, c, 0, o.Size)
	o.Size = right
	o.check(t, c, 0, o.Size)
}
