package merge

import (
	"bufio"
	"io"
	"os"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// pageSize is the unit in which spooled bytes that are on disk are read again.
const pageSize = 8 << 10

// spool collects bytes in memory, or in a file, to be read again in any order.
type spool struct {
	whole []byte
	file  *os.File
	out   *bufio.Writer
	size  int64
}

// newSpool makes a spool. Its bytes go to a temporary file in dir if onDisk is set.
func newSpool(dir string, onDisk bool) (*spool, error) {
	if !onDisk {
		return &spool{}, nil
	}
	f, err := scratchFile(dir)
	if err != nil {
		return nil, err
	}
	return &spool{file: f, out: bufio.NewWriterSize(f, 64<<10)}, nil
}

// scratchFile makes a file that has no name any more: it goes when it is closed, and when the process ends.
func scratchFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "merge-*.tmp")
	if err != nil {
		return nil, errs.E(errs.Internal, "scratch file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, errs.E(errs.Internal, "scratch file: %w", err)
	}
	return f, nil
}

func (s *spool) write(b []byte) error {
	s.size += int64(len(b))
	if s.out == nil {
		s.whole = append(s.whole, b...)
		return nil
	}
	_, err := s.out.Write(b)
	return errs.Wrap(errs.Internal, err)
}

// done ends writing. What is on disk is read through at most memory bytes.
func (s *spool) done(memory int64) (*paged, error) {
	p := &paged{whole: s.whole, file: s.file, size: s.size}
	if s.out == nil {
		return p, nil
	}
	if err := s.out.Flush(); err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	s.out = nil
	p.pages = make([]page, max(memory/pageSize, 8))
	return p, nil
}

// close frees what the spool holds, if done did not hand it on.
func (s *spool) close() {
	if s != nil && s.file != nil {
		s.file.Close()
	}
}

// paged are bytes that are read in any order. Those on disk are read by pages, of which each has one place in memory.
type paged struct {
	whole []byte
	file  *os.File
	size  int64
	pages []page
	long  []byte // what bytes returns, if it is not within one page
	err   error  // the first fault of the disk; zeros were returned instead
}

type page struct {
	number int64 // plus one; 0 = none
	data   []byte
}

// bytes are n bytes at off, which must be within size. They are valid until the next call.
func (p *paged) bytes(off int64, n int) []byte {
	if p.file == nil {
		return p.whole[off : off+int64(n)]
	}
	at := int(off % pageSize)
	if at+n <= pageSize {
		return p.page(off / pageSize)[at : at+n]
	}
	if cap(p.long) < n {
		p.long = make([]byte, n)
	}
	out := p.long[:0]
	for len(out) < n {
		at := (off + int64(len(out))) % pageSize
		b := p.page((off + int64(len(out))) / pageSize)[at:]
		out = append(out, b[:min(len(b), n-len(out))]...)
	}
	return out
}

func (p *paged) page(number int64) []byte {
	at := &p.pages[number%int64(len(p.pages))]
	if at.number == number+1 {
		return at.data
	}
	if at.data == nil {
		at.data = make([]byte, pageSize)
	}
	at.number = number + 1
	n, err := p.file.ReadAt(at.data, number*pageSize)
	if err != nil && (err != io.EOF || int64(n) < min(pageSize, p.size-number*pageSize)) && p.err == nil {
		p.err = errs.E(errs.Internal, "read scratch file: %w", err)
	}
	clear(at.data[n:])
	return at.data
}

func (p *paged) close() {
	if p != nil && p.file != nil {
		p.file.Close()
	}
}
