package merge

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"os"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxIndexSize is 64 GiB: references to series have 32 bits and count 16 bytes.
const maxIndexSize = 64 << 30

// indexWriter writes an index of format version 2, from its beginning to its end. Series are kept in a scratch file
// until all are known, because the symbols that they use come first.
type indexWriter struct {
	dir     string
	memory  int64
	symbols Symbols
	used    *rankedSet
	series  *os.File
	spool   *bufio.Writer
	buf     []byte
	small   [2 * binary.MaxVarintLen64]byte // for numbers
	count   int64

	out     *bufio.Writer
	pos     int64
	toc     index.TOC
	longest int64 // series entry, as a distance to the next one
}

// newIndexWriter makes the writer of an index whose series have symbols of a table. dir is for scratch files.
func newIndexWriter(dir string, symbols Symbols, memory int64) (*indexWriter, error) {
	f, err := scratchFile(dir)
	if err != nil {
		return nil, err
	}
	return &indexWriter{dir: dir, memory: memory, symbols: symbols, used: newRankedSet(symbols.Len()), series: f,
		spool: bufio.NewWriterSize(f, 256<<10)}, nil
}

// add takes the next series. refs are where its chunks are.
func (w *indexWriter) add(s *Series, refs []uint64) error {
	b := binary.AppendUvarint(w.buf[:0], uint64(len(s.Symbols)))
	for _, n := range s.Symbols {
		w.used.add(n)
		b = binary.AppendUvarint(b, uint64(n))
	}
	head := len(b)
	b = binary.AppendUvarint(b, uint64(len(s.Chunks)))
	var maxt int64
	var ref uint64
	for i := range s.Chunks {
		c := &s.Chunks[i]
		if i == 0 {
			b = binary.AppendVarint(b, c.MinTime)
			b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
			b = binary.AppendUvarint(b, refs[0])
		} else {
			b = binary.AppendUvarint(b, uint64(c.MinTime-maxt))
			b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
			b = binary.AppendVarint(b, int64(refs[i]-ref))
		}
		maxt, ref = c.MaxTime, refs[i]
	}
	length := w.small[:]
	n := binary.PutUvarint(length, uint64(head))
	n += binary.PutUvarint(length[n:], uint64(len(b)-head))
	w.buf = b
	w.count++
	if _, err := w.spool.Write(length[:n]); err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	_, err := w.spool.Write(b)
	return errs.Wrap(errs.Internal, err)
}

// finish writes the index to out.
func (w *indexWriter) finish(out io.Writer) error {
	w.out = bufio.NewWriterSize(out, 256<<10)
	head := binary.BigEndian.AppendUint32(nil, index.MagicIndex)
	if err := w.write(append(head, index.FormatV2)); err != nil {
		return err
	}
	w.toc.Symbols = uint64(w.pos)
	if err := w.writeSymbols(); err != nil {
		return err
	}
	w.toc.Series = uint64(w.pos)
	lists := newPostings(w.dir, w.memory)
	defer lists.close()
	if err := w.writeSeries(lists); err != nil {
		return err
	}
	w.series.Close() // frees the disk
	w.toc.LabelIndices, w.toc.Postings = uint64(w.pos), uint64(w.pos)
	if err := w.pad(4); err != nil {
		return err
	}
	entries, err := w.writePostings(lists)
	if err != nil {
		return err
	}
	defer entries.close()
	w.toc.LabelIndicesTable, w.toc.PostingsTable = uint64(w.pos), uint64(w.pos)
	if err := w.copyTable(entries); err != nil {
		return err
	}
	t := &w.toc
	var b []byte
	for _, off := range []uint64{t.Symbols, t.Series, t.LabelIndices, t.LabelIndicesTable, t.Postings, t.PostingsTable} {
		b = binary.BigEndian.AppendUint64(b, off)
	}
	if err := w.write(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, block.Castagnoli))); err != nil {
		return err
	}
	return errs.Wrap(errs.Internal, w.out.Flush())
}

func (w *indexWriter) write(b []byte) error {
	if w.pos += int64(len(b)); w.pos > maxIndexSize {
		return errs.E(errs.TooLarge, "an index of more than %d bytes", int64(maxIndexSize))
	}
	_, err := w.out.Write(b)
	return errs.Wrap(errs.Internal, err)
}

var zeros [block.SeriesAlign]byte

func (w *indexWriter) pad(align int64) error {
	if over := w.pos % align; over != 0 {
		return w.write(zeros[:align-over])
	}
	return nil
}

// writeSymbols writes those symbols that series have.
func (w *indexWriter) writeSymbols() error {
	length, count := uint64(4), w.used.rank()
	w.used.each(func(i uint32) {
		n := uint64(len(w.symbols.At(i)))
		length += n + uint64(uvarintLen(n))
	})
	if length > math.MaxUint32 {
		return errs.E(errs.TooLarge, "symbols of %d bytes in an index", length)
	}
	b := binary.BigEndian.AppendUint32(w.buf[:0], uint32(length))
	b = binary.BigEndian.AppendUint32(b, count)
	crc := crc32.Checksum(b[4:], block.Castagnoli)
	err := w.write(b)
	w.used.each(func(i uint32) {
		if err != nil {
			return
		}
		text := w.symbols.At(i)
		b = binary.AppendUvarint(b[:0], uint64(len(text)))
		b = append(b, text...)
		crc = crc32.Update(crc, block.Castagnoli, b)
		err = w.write(b)
	})
	w.buf = b
	if err != nil {
		return err
	}
	return w.write(binary.BigEndian.AppendUint32(nil, crc))
}

// uvarintLen is the number of bytes of n as an unsigned varint.
func uvarintLen(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

// writeSeries writes the entries of all series, and collects their postings.
func (w *indexWriter) writeSeries(lists *postings) error {
	if err := w.spool.Flush(); err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	if _, err := w.series.Seek(0, io.SeekStart); err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	in := &window{r: w.series, buf: make([]byte, 256<<10)}
	var symbols, before, numbers []uint32
	for range w.count {
		head, rest, err := nextRecord(in)
		if err != nil {
			return errs.E(errs.Internal, "read scratch file: %w", err)
		}
		d := entryDecoder{b: head}
		n := int(d.uvarint())
		symbols, before = before[:0], symbols
		b := binary.AppendUvarint(w.buf[:0], uint64(n/2))
		for i := range n {
			symbol := uint32(d.uvarint())
			if i >= len(before) || before[i] != symbol {
				numbers = append(numbers[:min(i, len(numbers))], w.used.of(symbol))
			} else if i >= len(numbers) {
				numbers = append(numbers, w.used.of(symbol))
			}
			symbols = append(symbols, symbol)
			b = binary.AppendUvarint(b, uint64(numbers[i]))
		}
		b = append(b, rest...)
		w.buf = b
		if err := w.pad(block.SeriesAlign); err != nil {
			return err
		}
		if err := lists.add(symbols, uint32(w.pos/block.SeriesAlign)); err != nil {
			return err
		}
		if err := w.writeEntry(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *indexWriter) writeEntry(b []byte) error {
	from := w.pos
	small := w.small[:]
	if err := w.write(small[:binary.PutUvarint(small, uint64(len(b)))]); err != nil {
		return err
	}
	if err := w.write(b); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(small, crc32.Checksum(b, block.Castagnoli))
	if err := w.write(small[:crc32.Size]); err != nil {
		return err
	}
	w.longest = max(w.longest, (w.pos-from+block.SeriesAlign-1)/block.SeriesAlign*block.SeriesAlign)
	return nil
}

// nextRecord is the next series in the scratch file: its symbols, and its chunks as an index has them.
func nextRecord(in *window) (symbols, chunks []byte, err error) {
	b, err := in.upTo(2 * binary.MaxVarintLen64)
	if err != nil {
		return nil, nil, err
	}
	n, lead := binary.Uvarint(b)
	m, more := binary.Uvarint(b[max(lead, 0):])
	if lead <= 0 || more <= 0 {
		return nil, nil, io.ErrUnexpectedEOF
	}
	in.skip(lead + more)
	if b, err = in.need(int(n + m)); err != nil {
		return nil, nil, err
	}
	in.skip(len(b))
	return b[:n], b[n:], nil
}

// tableEntries is the postings offset table, without its length and checksum.
type tableEntries struct {
	file  *os.File
	count uint32
	size  int64
}

func (t *tableEntries) close() { t.file.Close() }

// writePostings writes all lists, and the entries of the postings offset table to a scratch file.
func (w *indexWriter) writePostings(lists *postings) (t *tableEntries, err error) {
	f, err := scratchFile(w.dir)
	if err != nil {
		return nil, err
	}
	t = &tableEntries{file: f}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	entries := bufio.NewWriterSize(f, 256<<10)
	name, text := int64(allSeries), ""
	err = lists.lists(func(l list) error {
		if l.name != name {
			name, text = l.name, string([]byte(w.symbols.At(uint32(l.name))))
		}
		value := ""
		if l.name != allSeries {
			value = w.symbols.At(l.value)
		}
		b := append(w.buf[:0], 2)
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(b, value...)
		b = binary.AppendUvarint(b, uint64(w.pos))
		w.buf = b
		t.count++
		t.size += int64(len(b))
		if _, err := entries.Write(b); err != nil {
			return errs.Wrap(errs.Internal, err)
		}
		return w.writeList(l)
	})
	if err != nil {
		return nil, err
	}
	return t, errs.Wrap(errs.Internal, entries.Flush())
}

// writeList writes one list: its length, the number of series, their references and a checksum.
func (w *indexWriter) writeList(l list) error {
	if l.count > (math.MaxUint32-4)/4 {
		return errs.E(errs.TooLarge, "a label of %d series", l.count)
	}
	b := binary.BigEndian.AppendUint32(w.buf[:0], uint32(4+4*l.count))
	b = binary.BigEndian.AppendUint32(b, uint32(l.count))
	crc, done := uint32(0), 4
	flush := func() error {
		crc = crc32.Update(crc, block.Castagnoli, b[done:])
		err := w.write(b)
		b, done = b[:0], 0
		return err
	}
	var err error
	if eerr := l.each(func(ref uint32) {
		if b = binary.BigEndian.AppendUint32(b, ref); len(b) >= 64<<10 && err == nil {
			err = flush()
		}
	}); eerr != nil {
		return eerr
	}
	if err == nil {
		err = flush()
	}
	if err == nil {
		err = w.write(binary.BigEndian.AppendUint32(b, crc))
	}
	w.buf = b[:0]
	return err
}

// copyTable writes the postings offset table.
func (w *indexWriter) copyTable(t *tableEntries) error {
	if t.size+4 > math.MaxUint32 {
		return errs.E(errs.TooLarge, "a postings offset table of %d bytes", t.size)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(t.size+4))
	b = binary.BigEndian.AppendUint32(b, t.count)
	if err := w.write(b); err != nil {
		return err
	}
	crc := crc32.Checksum(b[4:], block.Castagnoli)
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	chunk := make([]byte, 256<<10)
	for left := t.size; left > 0; {
		part := chunk[:min(left, int64(len(chunk)))]
		if _, err := io.ReadFull(t.file, part); err != nil {
			return errs.E(errs.Internal, "read scratch file: %w", err)
		}
		crc = crc32.Update(crc, block.Castagnoli, part)
		if err := w.write(part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	return w.write(binary.BigEndian.AppendUint32(nil, crc))
}

func (w *indexWriter) close() { w.series.Close() }

// rankedSet is a set of numbers that tells the place of each among them.
type rankedSet struct {
	words []uint64
	ranks []uint32 // of the first number of each word
}

func newRankedSet(n int) *rankedSet { return &rankedSet{words: make([]uint64, (n+63)/64)} }

func (s *rankedSet) add(i uint32) { s.words[i/64] |= 1 << (i % 64) }

// rank makes of usable, and returns how many numbers there are.
func (s *rankedSet) rank() uint32 {
	s.ranks = make([]uint32, len(s.words))
	n := uint32(0)
	for i, w := range s.words {
		s.ranks[i] = n
		n += uint32(bits.OnesCount64(w))
	}
	return n
}

// of is how many numbers of the set are smaller than i.
func (s *rankedSet) of(i uint32) uint32 {
	return s.ranks[i/64] + uint32(bits.OnesCount64(s.words[i/64]&(1<<(i%64)-1)))
}

// each calls f with all numbers, in order.
func (s *rankedSet) each(f func(uint32)) {
	for i, w := range s.words {
		for ; w != 0; w &= w - 1 {
			f(uint32(i*64 + bits.TrailingZeros64(w)))
		}
	}
}
