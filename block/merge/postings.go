package merge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/bits"
	"os"
	"slices"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxLabelNames bounds the distinct label names of a block. Each has memory of its own.
const maxLabelNames = 1 << 20

// allSeries is the key of the list of all series. It comes first.
const allSeries = -1

// postings collects which series have a label, and yields the lists in order of name and value. It is an external
// merge sort: lists are sorted in memory, written to a run when the memory is used up, and runs are merged at the end.
// Series come in order of their references, so the list of a label is the concatenation of its lists in the runs.
type postings struct {
	dir    string
	memory int64 // bytes for what was not written yet
	used   int64
	names  map[int64]*nameLists
	last   []*nameLists // of the labels of the last series
	all    *nameLists
	runs   []*os.File
	spare  []uint64
}

// nameLists are the values and series of one label name: the value in the upper 32 bits.
type nameLists struct {
	name    int64 // its symbol, or allSeries
	entries []uint64
}

func newPostings(dir string, memory int64) *postings {
	p := &postings{dir: dir, memory: memory, names: map[int64]*nameLists{}}
	p.all = p.of(allSeries)
	return p
}

func (p *postings) of(name int64) *nameLists {
	n, ok := p.names[name]
	if !ok {
		n = &nameLists{name: name}
		p.names[name] = n
		p.used += 128
	}
	return n
}

// add takes a series: its symbols, and its reference, which is larger than those before.
func (p *postings) add(symbols []uint32, ref uint32) error {
	p.put(p.all, uint64(ref))
	for i := 0; i < len(symbols); i += 2 {
		at := i / 2
		if at == len(p.last) {
			p.last = append(p.last, nil)
		}
		n := p.last[at]
		if n == nil || n.name != int64(symbols[i]) { // the names of a series are mostly those of the one before
			if n = p.of(int64(symbols[i])); len(p.names) > maxLabelNames {
				return errs.E(errs.TooLarge, "a block of more than %d label names", maxLabelNames)
			}
			p.last[at] = n
		}
		p.put(n, uint64(symbols[i+1])<<32|uint64(ref))
	}
	if p.used > p.memory/3*2 { // the rest is for sorting
		return p.spill()
	}
	return nil
}

func (p *postings) put(n *nameLists, entry uint64) {
	before := cap(n.entries)
	n.entries = append(n.entries, entry)
	p.used += 8 * int64(cap(n.entries)-before)
}

// sorted are the names that have entries, in order, each with its entries sorted by value.
func (p *postings) sorted() []*nameLists {
	var all []*nameLists
	for _, n := range p.names {
		if len(n.entries) > 0 {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b *nameLists) int { return int(a.name - b.name) })
	for _, n := range all {
		n.entries, p.spare = sortByValue(n.entries, p.spare)
	}
	return all
}

// radixBits is how many bits of the value one pass of sortByValue looks at.
const radixBits = 11

// sortByValue sorts entries by their upper 32 bits; those that are equal keep their order. spare is memory, and so is
// the second result.
func sortByValue(entries, spare []uint64) (sorted, rest []uint64) {
	least, most, inOrder := uint64(math.MaxUint64), uint64(0), true
	before := uint64(0)
	for _, e := range entries {
		v := e >> 32
		least, most = min(least, v), max(most, v)
		inOrder = inOrder && before <= v
		before = v
	}
	if inOrder {
		return entries, spare
	}
	spare = slices.Grow(spare[:0], len(entries))[:len(entries)]
	for shift := 0; shift < bits.Len64(most-least); shift += radixBits {
		var counts [1 << radixBits]int
		for _, e := range entries {
			counts[(e>>32-least)>>shift&(1<<radixBits-1)]++
		}
		at := 0
		for i, n := range counts {
			counts[i], at = at, at+n
		}
		for _, e := range entries {
			digit := (e>>32 - least) >> shift & (1<<radixBits - 1)
			spare[counts[digit]] = e
			counts[digit]++
		}
		entries, spare = spare, entries
	}
	return entries, spare
}

// spill writes what is in memory to a run. A run is a list of groups, each of them numbers of variable length: the
// name plus one, the value, the number of series, and the distances between their references.
func (p *postings) spill() error {
	f, err := scratchFile(p.dir)
	if err != nil {
		return err
	}
	p.runs = append(p.runs, f)
	w := bufio.NewWriterSize(f, 256<<10)
	var buf []byte
	for _, n := range p.sorted() {
		for from := 0; from < len(n.entries); {
			to := endOfValue(n.entries, from)
			buf = binary.AppendUvarint(buf[:0], uint64(n.name+1))
			buf = binary.AppendUvarint(buf, n.entries[from]>>32)
			buf = binary.AppendUvarint(buf, uint64(to-from))
			last := uint32(0)
			for _, e := range n.entries[from:to] {
				buf = binary.AppendUvarint(buf, uint64(uint32(e)-last))
				last = uint32(e)
				if len(buf) > 64<<10 {
					if _, err := w.Write(buf); err != nil {
						return errs.Wrap(errs.Internal, err)
					}
					buf = buf[:0]
				}
			}
			if _, err := w.Write(buf); err != nil {
				return errs.Wrap(errs.Internal, err)
			}
			from = to
		}
		n.entries = n.entries[:0]
	}
	p.forget()
	return errs.Wrap(errs.Internal, w.Flush())
}

// forget frees the memory of entries, since the next run may need it for other names.
func (p *postings) forget() {
	p.used = 128 * int64(len(p.names))
	for _, n := range p.names {
		n.entries = nil
	}
	p.spare = nil
}

// endOfValue is the end of the entries that have the value of the one at from.
func endOfValue(entries []uint64, from int) int {
	to := from + 1
	for to < len(entries) && entries[to]>>32 == entries[from]>>32 {
		to++
	}
	return to
}

// list is one list of postings that is yielded: the series that have a label.
type list struct {
	name  int64 // symbol, or allSeries
	value uint32
	count uint64
	// each calls f with the references, in order. It must be called once.
	each func(f func(ref uint32)) error
}

// lists calls f with all lists, in order of name and value.
func (p *postings) lists(f func(list) error) error {
	if len(p.runs) == 0 {
		return p.inMemory(f)
	}
	if p.used > 128*int64(len(p.names)) {
		if err := p.spill(); err != nil {
			return err
		}
	}
	readers := make([]*runReader, 0, len(p.runs))
	for _, file := range p.runs {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return errs.Wrap(errs.Internal, err)
		}
		r := &runReader{r: bufio.NewReaderSize(file, int(min(max(p.memory/int64(len(p.runs)), 8<<10), 256<<10)))}
		if err := r.next(); err != nil {
			return err
		}
		readers = append(readers, r)
	}
	for {
		least := -1
		for i, r := range readers {
			if !r.ended && (least < 0 || r.before(readers[least])) {
				least = i
			}
		}
		if least < 0 {
			return nil
		}
		l := list{name: readers[least].name, value: readers[least].value}
		var with []*runReader
		for _, r := range readers[least:] {
			if !r.ended && r.name == l.name && r.value == l.value {
				with = append(with, r)
				l.count += r.count
			}
		}
		l.each = func(f func(uint32)) error {
			for _, r := range with {
				if err := r.each(f); err != nil {
					return err
				}
			}
			return nil
		}
		if err := f(l); err != nil {
			return err
		}
		for _, r := range with {
			if err := r.next(); err != nil {
				return err
			}
		}
	}
}

func (p *postings) inMemory(f func(list) error) error {
	for _, n := range p.sorted() {
		for from := 0; from < len(n.entries); {
			to := endOfValue(n.entries, from)
			group := n.entries[from:to]
			err := f(list{name: n.name, value: uint32(group[0] >> 32), count: uint64(len(group)),
				each: func(f func(uint32)) error {
					for _, e := range group {
						f(uint32(e))
					}
					return nil
				}})
			if err != nil {
				return err
			}
			from = to
		}
	}
	return nil
}

func (p *postings) close() {
	for _, f := range p.runs {
		f.Close()
	}
	p.runs = nil
}

// runReader is at one group of a run.
type runReader struct {
	r     *bufio.Reader
	name  int64
	value uint32
	count uint64
	ended bool
}

func (r *runReader) before(other *runReader) bool {
	return r.name < other.name || r.name == other.name && r.value < other.value
}

// next reads the head of the next group.
func (r *runReader) next() error {
	name, err := binary.ReadUvarint(r.r)
	if errors.Is(err, io.EOF) {
		r.ended = true
		return nil
	}
	value, verr := binary.ReadUvarint(r.r)
	count, cerr := binary.ReadUvarint(r.r)
	r.name, r.value, r.count = int64(name)-1, uint32(value), count
	return errs.Wrap(errs.Internal, errors.Join(err, verr, cerr))
}

// each reads the references of the group.
func (r *runReader) each(f func(uint32)) error {
	ref := uint64(0)
	for range r.count {
		d, err := binary.ReadUvarint(r.r)
		if err != nil {
			return errs.Wrap(errs.Internal, err)
		}
		ref += d
		f(uint32(ref))
	}
	return nil
}
