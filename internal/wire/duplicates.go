package wire

import (
	"slices"
	"sync"
	"unsafe"
)

// A store compares a sample with what it has stored, not with others of the same transaction: of two values that a
// series has for one time it would keep one, and say nothing. So a series that a request names several times becomes
// one series with all the samples, which a store judges together. Senders do name series several times: Prometheus
// sends each sample as a series of its own, so that one that catches up has many samples of a series in a request.

// MergeDuplicates makes one series of those that b has several times, at the place of the first. kept are the places of
// the series that are left; nil = b has each series once, and all stand where they stood. An error is what the Budget
// of b refuses. Then b cannot be used.
func (b *Batch) MergeDuplicates() (kept []int32, err error) {
	s := duplicateFinders.Get().(*duplicateFinder)
	defer s.put()
	if !s.repeats(b.Series) || !s.group(b.Series) {
		return nil, nil
	}
	if !b.reserveMerged(s) {
		return nil, b.refused
	}
	for to, from := range s.kept {
		one := b.Series[from]
		if s.next[from] != 0 {
			b.mergeGroup(&one, s, from)
		}
		b.Series[to] = one
	}
	clear(b.Series[len(s.kept):])
	b.Series = b.Series[:len(s.kept)]
	return slices.Clone(s.kept), nil
}

// merged is b after MergeDuplicates.
func (b *Batch) merged() (*Batch, error) {
	if _, err := b.MergeDuplicates(); err != nil {
		b.Release()
		return nil, err
	}
	return b, nil
}

// reserveMerged makes space for what the groups of s bring together.
func (b *Batch) reserveMerged(s *duplicateFinder) bool {
	var samples, histograms, exemplars int
	for _, i := range s.kept {
		if s.next[i] == 0 {
			continue
		}
		for at := i; ; at = s.next[at] - 1 {
			one := &b.Series[at]
			samples += len(one.Samples)
			histograms += len(one.Histograms)
			exemplars += len(one.Exemplars)
			if s.next[at] == 0 {
				break
			}
		}
	}
	bytes := samples*int(unsafe.Sizeof(Sample{})) + histograms*int(unsafe.Sizeof(Histogram{})) +
		exemplars*int(unsafe.Sizeof(Exemplar{}))
	if b.refused = b.budget.ask(bytes); b.refused != nil {
		return false
	}
	b.samples = slices.Grow(b.samples, samples)
	b.histograms = slices.Grow(b.histograms, histograms)
	b.exemplars = slices.Grow(b.exemplars, exemplars)
	return true
}

// mergeGroup gives one, the first of a group, what all of the group have, in their order.
func (b *Batch) mergeGroup(one *Series, s *duplicateFinder, first int32) {
	at := b.mark()
	for i := first; ; i = s.next[i] - 1 {
		// What came to an earlier place is behind this one: its series is still as it was.
		b.samples = append(b.samples, b.Series[i].Samples...)
		b.histograms = append(b.histograms, b.Series[i].Histograms...)
		b.exemplars = append(b.exemplars, b.Series[i].Exemplars...)
		if s.next[i] == 0 {
			break
		}
	}
	one.Samples = since(b.samples, at.samples)
	one.Histograms = since(b.histograms, at.histograms)
	one.Exemplars = since(b.exemplars, at.exemplars)
}

// duplicateFinder finds series that a batch has several times.
type duplicateFinder struct {
	bits  []uint64 // of repeats
	table []uint32 // a power of two, probed linearly from Key.Lo; 0 = empty
	kept  []int32  // the first of each group
	next  []int32  // by series: the place of the next one of its group, plus one; 0 = none
	last  []int32  // by series that is a first: the last one of its group
}

var duplicateFinders = sync.Pool{New: func() any { return new(duplicateFinder) }}

func (f *duplicateFinder) put() {
	f.bits, f.table, f.kept, f.next, f.last = reuse(f.bits), reuse(f.table), reuse(f.kept), reuse(f.next), reuse(f.last)
	duplicateFinders.Put(f)
}

// empty makes a table without entries, for n series.
func (f *duplicateFinder) empty(n int) (table []uint32, mask uint64) {
	size := 16
	for size < 2*n {
		size *= 2
	}
	f.table = slices.Grow(f.table[:0], size)[:size]
	clear(f.table)
	return f.table, uint64(size - 1)
}

// repeats reports whether two of series may be one. It sets five bits of a word for each, and looks whether they were
// set. This is a Bloom filter of blocks: it does not branch, fits into the nearest cache, and is wrong for about one
// batch in twenty (BenchmarkUnite).
func (f *duplicateFinder) repeats(series []Series) bool {
	if len(series) < 2 {
		return false
	}
	size := 16
	for size < len(series) {
		size *= 2
	}
	f.bits = slices.Grow(f.bits[:0], size)[:size]
	clear(f.bits)
	words, mask, found := f.bits, uint64(size-1), uint64(1)
	for i := range series {
		k := &series[i].Key
		h := k.Hi
		set := uint64(1)<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63) | 1<<(h>>24&63)
		word := &words[k.Lo&mask]
		missing := set &^ *word
		*word |= set
		found &= (missing | -missing) >> 63 // 0 as soon as none is missing
	}
	return found == 0
}

// group finds out which of series are one, and reports whether any are.
func (f *duplicateFinder) group(series []Series) bool {
	n := len(series)
	table, mask := f.empty(n)
	f.kept = slices.Grow(f.kept[:0], n)
	f.next, f.last = slices.Grow(f.next[:0], n)[:n], slices.Grow(f.last[:0], n)[:n]
	clear(f.next)
	for i := range series {
		k := series[i].Key
		for at := k.Lo & mask; ; at = (at + 1) & mask {
			first := int32(table[at]) - 1
			if first < 0 {
				table[at] = uint32(i + 1)
				f.kept = append(f.kept, int32(i))
				f.last[i] = int32(i)
				break
			}
			if series[first].Key == k {
				f.next[f.last[first]] = int32(i + 1)
				f.last[first] = int32(i)
				break
			}
		}
	}
	return len(f.kept) < n
}
