package cache

import (
	"slices"
	"sort"

	"github.com/prometheus/prometheus/tsdb/index"
)

// View is what Read returns: parts of a file. Its bytes are shared, and nobody may change them. One goroutine uses it.
type View struct {
	pieces []piece // in order; no two overlap
	at     int     // of the piece that was used last
}

// piece is what a file has from start on.
type piece struct {
	start int64
	data  []byte
}

func (p piece) end() int64 { return p.start + int64(len(p.data)) }

// At returns the bytes [off, off+n) of the file, fewer if the file ends before or if they were not read. Bytes that lie
// in several pages are copied.
func (v *View) At(off, n int64) []byte {
	i := v.find(off)
	if i == len(v.pieces) || v.pieces[i].start > off {
		return nil
	}
	v.at = i
	p := v.pieces[i]
	from := off - p.start
	if to := from + n; to <= int64(len(p.data)) {
		return p.data[from:to:to]
	}
	here := p.data[from:]
	if i+1 == len(v.pieces) || v.pieces[i+1].start != p.end() {
		return slices.Clip(here)
	}
	out := append(make([]byte, 0, n), here...)
	for i++; int64(len(out)) < n && i < len(v.pieces) && v.pieces[i].start == off+int64(len(out)); i++ {
		next := v.pieces[i].data
		out = append(out, next[:min(int64(len(next)), n-int64(len(out)))]...)
	}
	return out
}

// find is the first piece that ends behind off: most often the one that was used last, or the next one.
func (v *View) find(off int64) int {
	for i := v.at; i < min(v.at+2, len(v.pieces)); i++ {
		if v.pieces[i].end() > off && (i == 0 || v.pieces[i-1].end() <= off) {
			return i
		}
	}
	return sort.Search(len(v.pieces), func(i int) bool { return v.pieces[i].end() > off })
}

// Extent counts the memory that parts of a file take while they are used: the pages that they lie in. Parts are added
// in order.
type Extent struct {
	Bytes int64
	next  int64 // the number of the first page that is not counted
}

// Add counts a part.
func (e *Extent) Add(part index.Range) {
	first, end := max(part.Start/PageSize, e.next), (part.End+PageSize-1)/PageSize
	if end > first {
		e.Bytes += (end - first) * PageSize
		e.next = end
	}
}

// numbersOf are the pages that parts lie in, in order. Parts are in order of their starts.
func numbersOf(parts []index.Range) (numbers []int64) {
	next := int64(0)
	for _, p := range parts {
		for i := max(p.Start/PageSize, next); i*PageSize < p.End; i++ {
			numbers = append(numbers, i)
			next = i + 1
		}
	}
	return numbers
}

// run is one range read: the pages [first, end) of a file.
type run struct{ first, end int64 }

const (
	// nearGap is how many unwanted pages are read rather than making another range read: about what a request costs, in
	// time and CPU (design 004).
	nearGap = 128 << 10 / PageSize
	// farGap is how many are read where requests are many, as a read that goes far takes longer to begin than to be sent,
	// and farGaps is how many of these all gaps of a Read may have together.
	farGap  = 512 << 10 / PageSize
	farGaps = 6 << 20 / PageSize
	// longest bounds a range read.
	longest = 8 << 20 / PageSize
)

// join makes few range reads of pages, whose numbers are in order. Near gaps are read, too, and so are far ones, the
// smallest first, until these have farGaps pages.
func join(numbers []int64) (runs []run) {
	for _, n := range numbers {
		if k := len(runs) - 1; k >= 0 && n-runs[k].end <= nearGap && n-runs[k].first < longest {
			runs[k].end = n + 1
			continue
		}
		runs = append(runs, run{n, n + 1})
	}
	if len(runs) < 2 {
		return runs
	}
	gap := func(i int) int64 { return runs[i].first - runs[i-1].end } // before run i
	var far []int
	for i := 1; i < len(runs); i++ {
		if gap(i) <= farGap {
			far = append(far, i)
		}
	}
	slices.SortStableFunc(far, func(i, k int) int { return int(gap(i) - gap(k)) })
	joined := make([]bool, len(runs))
	left := int64(farGaps)
	for _, i := range far {
		if left -= gap(i); left < 0 {
			break
		}
		joined[i] = true
	}
	out := runs[:1]
	for i, r := range runs[1:] {
		if k := len(out) - 1; joined[i+1] && r.end-out[k].first <= longest {
			out[k].end = r.end
		} else {
			out = append(out, r)
		}
	}
	return out
}
