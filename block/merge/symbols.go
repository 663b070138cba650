package merge

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// symbolSampling is how many symbols there are for each one whose place is kept in memory.
const symbolSampling = 16

// table is a sorted table of symbols, in the form that it has in an index: the length of each, and its bytes.
type table struct {
	list    *paged
	offsets []uint64 // in list, of one of symbolSampling symbols
	count   int
	next    uint32 // the symbol at nextOff
	nextOff int64
}

// Len implements Symbols.
func (t *table) Len() int { return t.count }

// At implements Symbols. The string is valid until the next call if the table is on disk.
func (t *table) At(i uint32) string {
	off, skip := t.nextOff, i-t.next
	if i < t.next || skip > symbolSampling {
		off, skip = int64(t.offsets[i/symbolSampling]), i%symbolSampling
	}
	for range skip {
		n, lead := t.length(off)
		off += int64(lead) + int64(n)
	}
	n, lead := t.length(off)
	t.next, t.nextOff = i+1, off+int64(lead)+int64(n)
	b := t.list.bytes(off+int64(lead), int(n))
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// length is the length of the symbol at off, and of the number that says so.
func (t *table) length(off int64) (n uint64, lead int) {
	return binary.Uvarint(t.list.bytes(off, int(min(binary.MaxVarintLen32, t.list.size-off))))
}

// refs are, for each symbol of an input, its number in the merged table. nil says that the numbers are the same.
type refs struct {
	list *paged
}

// of is the number of a symbol in the merged table.
func (r *refs) of(symbol uint32) uint32 {
	if r == nil {
		return symbol
	}
	return binary.LittleEndian.Uint32(r.list.bytes(4*int64(symbol), 4))
}

// symbolStream is an input's symbols while they are merged.
type symbolStream struct {
	scan     *indexScan
	input    int
	text     []byte
	out      *spool
	read     uint32
	identity bool
}

type symbolHeap []*symbolStream

func (h symbolHeap) Len() int           { return len(h) }
func (h symbolHeap) Less(i, j int) bool { return bytes.Compare(h[i].text, h[j].text) < 0 }
func (h symbolHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *symbolHeap) Push(x any)        { *h = append(*h, x.(*symbolStream)) }
func (h *symbolHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// mergeSymbols reads the symbols of all inputs and returns their union, and for each input where its symbols are in it.
// What does not fit into memory bytes is kept in scratch files in dir. fault names the block of an input in an error.
func mergeSymbols(scans []*indexScan, dir string, memory int64,
	fault func(input int, err error) error) (t *table, maps []*refs, err error) {
	var worst int64
	for _, s := range scans {
		worst += 4*int64(s.symbols) + int64(s.toc.Series-s.toc.Symbols)
	}
	onDisk := worst > memory
	list, err := newSpool(dir, onDisk)
	if err != nil {
		return nil, nil, err
	}
	t = &table{}
	h := make(symbolHeap, 0, len(scans))
	streams := make([]*symbolStream, len(scans))
	defer func() {
		if err != nil {
			list.close()
			for _, s := range streams {
				if s != nil {
					s.out.close()
				}
			}
		}
	}()
	for i, scan := range scans {
		s := &symbolStream{scan: scan, input: i, identity: true}
		streams[i] = s
		if s.out, err = newSpool(dir, onDisk); err != nil {
			return nil, nil, err
		}
		if s.text, err = scan.nextSymbol(); err != nil {
			return nil, nil, fault(i, err)
		}
		if s.text != nil {
			h = append(h, s)
		}
	}
	heap.Init(&h)
	if err := t.union(&h, list, fault); err != nil {
		return nil, nil, err
	}
	share := memory / int64(len(scans)+1)
	if t.list, err = list.done(share); err != nil {
		return nil, nil, err
	}
	maps = make([]*refs, len(scans))
	for i, s := range streams {
		if s.identity {
			s.out.close()
			continue
		}
		p, err := s.out.done(share)
		if err != nil {
			return nil, nil, err
		}
		maps[i] = &refs{p}
	}
	return t, maps, nil
}

// union writes the merged table into list, and the maps into the spools of the streams.
func (t *table) union(h *symbolHeap, list *spool, fault func(int, error) error) error {
	var entry, number []byte
	for h.Len() > 0 {
		text := (*h)[0].text
		if uint64(t.count) >= 1<<32-1 {
			return errs.E(errs.TooLarge, "more than %d symbols", t.count)
		}
		if t.count%symbolSampling == 0 {
			t.offsets = append(t.offsets, uint64(list.size))
		}
		entry = binary.AppendUvarint(entry[:0], uint64(len(text)))
		entry = append(entry, text...)
		if err := list.write(entry); err != nil {
			return err
		}
		number = binary.LittleEndian.AppendUint32(number[:0], uint32(t.count))
		text = entry[len(entry)-len(text):]
		for h.Len() > 0 && bytes.Equal((*h)[0].text, text) {
			s := (*h)[0]
			if err := s.out.write(number); err != nil {
				return err
			}
			s.identity = s.identity && s.read == uint32(t.count)
			s.read++
			var err error
			if s.text, err = s.scan.nextSymbol(); err != nil {
				return fault(s.input, err)
			}
			if s.text == nil {
				heap.Pop(h)
			} else {
				heap.Fix(h, 0)
			}
		}
		t.count++
	}
	return nil
}
