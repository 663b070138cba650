package merge

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/internal/xor"
)

// floatRun are the decoded samples of one chunk of floats, and what the union took of them.
type floatRun struct {
	from, to int  // in floatUnion.in
	next     int  // the first sample that the union has not seen
	first    int  // the place of the first sample in the union
	last     int  // the place of the last one
	same     bool // all samples that were seen are in the union with their values
}

// floatUnion unites chunks of floats, by the rule of series.Iterator, and finds chunks of inputs that the union has as
// they are: replicas mostly differ in where their chunks begin. It keeps its memory for the next stretch.
type floatUnion struct {
	in     xor.Samples // of all runs
	runs   []floatRun
	active []int // runs that have begun and not ended
	outT   []int64
	outV   []float64
}

func (f *floatUnion) reset() {
	f.in.Reset()
	f.runs = f.runs[:0]
	f.active, f.outT, f.outV = f.active[:0], f.outT[:0], f.outV[:0]
}

// add decodes a chunk. It is false for one whose times are not in order, or not those that the index says, and for one
// that is damaged.
func (f *floatUnion) add(c *Chunk) bool {
	from := len(f.in.T)
	if f.in.Append(c.Data) != nil {
		return false
	}
	t := f.in.T[from:]
	for i := 1; i < len(t); i++ {
		if t[i] <= t[i-1] {
			return false
		}
	}
	n := from + len(t)
	if n == from || t[0] != c.MinTime || t[len(t)-1] != c.MaxTime {
		return false
	}
	f.runs = append(f.runs, floatRun{from: from, to: n, next: from, same: true})
	return true
}

// unite makes the union of all runs, which are in order of their first samples.
func (f *floatUnion) unite() {
	for opened := 0; opened < len(f.runs) || len(f.active) > 0; {
		t := int64(math.MaxInt64)
		for _, r := range f.active {
			t = min(t, f.in.T[f.runs[r].next])
		}
		for opened < len(f.runs) && (len(f.active) == 0 || f.in.T[f.runs[opened].from] <= t) {
			t = min(t, f.in.T[f.runs[opened].from])
			f.active = append(f.active, opened)
			opened++
		}
		f.step(t)
	}
}

// step takes the sample of time t, which at least one of the active runs has.
func (f *floatUnion) step(t int64) {
	place := len(f.outT)
	var v float64
	found := false
	for _, i := range f.active {
		if r := &f.runs[i]; f.in.T[r.next] == t && (!found || preferred(f.in.V[r.next], v)) {
			v, found = f.in.V[r.next], true
		}
	}
	f.outT, f.outV = append(f.outT, t), append(f.outV, v)
	kept := f.active[:0]
	for _, i := range f.active {
		r := &f.runs[i]
		if f.in.T[r.next] == t {
			if r.next == r.from {
				r.first = place
			}
			r.last = place
			r.same = r.same && math.Float64bits(f.in.V[r.next]) == math.Float64bits(v)
			r.next++
		}
		if r.next < r.to {
			kept = append(kept, i)
		}
	}
	f.active = kept
}

// preferred reports whether a is taken rather than b, of two values for one time.
func preferred(a, b float64) bool {
	ab, bb := math.Float64bits(a), math.Float64bits(b)
	if as, bs := ab == value.StaleNaN, bb == value.StaleNaN; as != bs {
		return bs
	}
	return ab > bb
}

// whole reports whether the union has all samples of run i, and no others between them.
func (f *floatUnion) whole(i int) bool {
	r := &f.runs[i]
	return r.same && r.last-r.first == r.to-r.from-1
}

// fewSamples is how many samples, at least, a chunk has that is copied, and are encoded anew before one. Without it a
// merge could leave many small chunks.
const fewSamples = samplesPerChunk / 2

// write calls keep with the runs that the union has as they are, and encode with the samples between them, in order of
// time. The longest of the runs that begin at a time is taken.
func (f *floatUnion) write(keep func(run int), encode func(t []int64, v []float64)) {
	pending := 0 // the first sample that was not written
	starts := f.active[:0]
	for i := range f.runs {
		if f.whole(i) {
			starts = append(starts, i)
		}
	}
	slices.SortFunc(starts, func(a, b int) int {
		ra, rb := &f.runs[a], &f.runs[b]
		if ra.first != rb.first {
			return ra.first - rb.first
		}
		if la, lb := ra.to-ra.from, rb.to-rb.from; la != lb {
			return lb - la
		}
		return a - b
	})
	for _, i := range starts {
		r := &f.runs[i]
		short := r.to-r.from < fewSamples && r.last+1 < len(f.outT)
		if short || r.first != pending && r.first-pending < fewSamples {
			continue // also where it begins before pending
		}
		if r.first > pending {
			encode(f.outT[pending:r.first], f.outV[pending:r.first])
		}
		keep(i)
		pending = r.last + 1
	}
	if pending < len(f.outT) {
		encode(f.outT[pending:], f.outV[pending:])
	}
}
