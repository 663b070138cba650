package repair

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// A log is a row of files (segments) of pages of 32 KiB. A record is one fragment or several: type, length, checksum,
// data. No fragment crosses the end of a page, and zeros fill the rest of a page. A damaged fragment does not tell
// where the next one begins, but the next page begins with one.
//
// The TSDB repairs a log by deleting everything after the first damage. That is right for a log whose end was torn
// when the machine crashed. With a bad sector in the middle it would delete everything that was written since. So,
// before the TSDB opens the log, exactly what cannot be read is taken out here. Samples whose series got its labels
// in the damaged part are lost as well.

const (
	logPage   = 32 << 10
	logHeader = 7 // type, length, checksum

	kindMask, compressedMask = 0b111, 0b11111 // of a fragment's first byte: its kind, and that with its compression

	noFragment, wholeRecord, firstPart, middlePart, lastPart = 0, 1, 2, 3, 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// salvage takes damage out of the logs in tenant directory dir if anything good comes after it. It returns how many
// bytes it took out.
func salvage(dir string, now time.Time) (lost int64, err error) {
	logs := []string{filepath.Join(dir, "wal"), filepath.Join(dir, wlog.WblDirName)}
	checkpoints, err := checkpointsOf(logs[0])
	if err != nil {
		return 0, err
	}
	for _, log := range append(checkpoints, logs...) {
		n, err := salvageLog(dir, log, now)
		if err != nil {
			return lost, fmt.Errorf("%s: %w", filepath.Base(log), err)
		}
		lost += n
	}
	return lost, nil
}

// checkpointsOf returns the directories of a log's checkpoints.
func checkpointsOf(log string) (dirs []string, err error) {
	entries, err := os.ReadDir(log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "checkpoint.") {
			dirs = append(dirs, filepath.Join(log, e.Name()))
		}
	}
	return dirs, err
}

func salvageLog(dir, log string, now time.Time) (lost int64, err error) {
	segments, err := segmentsOf(log)
	if err != nil {
		return 0, err
	}
	var damaged []string
	behind := false
	for _, segment := range segments {
		s, err := scanSegment(segment, io.Discard)
		if err != nil {
			return 0, err
		}
		behind = behind || s.behind || len(damaged) > 0 && s.good
		if s.lost > 0 {
			damaged = append(damaged, segment)
		}
	}
	if !behind {
		return 0, nil
	}
	for _, segment := range damaged {
		n, err := mendSegment(dir, segment, now)
		if err != nil {
			return lost, err
		}
		lost += n
	}
	return lost, nil
}

// segmentsOf returns the paths of a log's segments in order.
func segmentsOf(log string) ([]string, error) {
	entries, err := os.ReadDir(log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil && e.Type().IsRegular() {
			out = append(out, filepath.Join(log, e.Name()))
		}
	}
	slices.Sort(out) // names have leading zeros
	return out, err
}

// mendSegment replaces a segment by what is good of it, and keeps the segment as it was in the directory damaged.
func mendSegment(dir, segment string, now time.Time) (lost int64, err error) {
	tmp := filepath.Join(dir, "salvage.tmp")
	f, err := os.Create(tmp)
	if err != nil {
		return 0, err
	}
	s, err := scanSegment(segment, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, errors.Join(err, os.Remove(tmp))
	}
	name, err := filepath.Rel(dir, segment)
	if err != nil {
		return 0, err
	}
	when, what := now.UTC().Format("20060102T150405Z"), strings.ReplaceAll(name, string(filepath.Separator), "-")
	kept := filepath.Join(dir, tenantdir.DamagedName, when+"-"+what)
	if err := os.MkdirAll(filepath.Dir(kept), 0o777); err != nil {
		return 0, err
	}
	if err := os.Link(segment, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	return s.lost, fileutil.Rename(tmp, segment)
}

// scanned is what a scan finds in a segment.
type scanned struct {
	lost   int64 // bytes that cannot be read, or that belong to a record of which a part is lost
	good   bool  // there is a whole record
	behind bool  // there is a whole record behind the first damage
}

// scanSegment writes what is good of a segment to w, page by page: each record keeps its page, since a snapshot says
// at which page the replay goes on.
func scanSegment(path string, w io.Writer) (scanned, error) {
	f, err := os.Open(path)
	if err != nil {
		return scanned{}, err
	}
	defer f.Close()
	s := segmentScan{w: w}
	page := make([]byte, logPage)
	for {
		n, err := io.ReadFull(f, page)
		if n > 0 {
			s.page(page[:n])
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			s.end()
			return s.scanned, s.err
		case err != nil:
			return s.scanned, err
		case s.err != nil:
			return s.scanned, s.err
		}
	}
}

// segmentScan copies pages. It holds pages back while it does not know whether the record that they end with is whole.
type segmentScan struct {
	scanned
	w   io.Writer
	err error // of w

	pending bool     // a record has begun, and has not ended
	begun   [][]byte // the pages with parts of it, the first one with other records before it; without the current page
	cut     int      // where the record begins in its first page
	parts   int      // bytes of it so far
}

// page takes the next page. The last one of a file may be short.
func (s *segmentScan) page(in []byte) {
	out := make([]byte, 0, len(in))
	size := len(in)
	for len(in) > 0 {
		kind, n := fragment(in)
		if kind == noFragment {
			break
		}
		if n == 0 { // damaged: where the next fragment of this page begins is not known
			out = s.drop(out)
			s.lost += int64(len(in))
			break
		}
		starts := kind == wholeRecord || kind == firstPart
		if starts && s.pending { // the record before has no end
			out = s.drop(out)
		}
		switch {
		case !starts && !s.pending: // the beginning of its record is lost
			s.lost += int64(n)
			in = in[n:]
			continue
		case kind == firstPart:
			s.pending, s.cut, s.parts = true, len(out), 0
		}
		out = append(out, in[:n]...)
		s.parts += n
		if in = in[n:]; kind == wholeRecord || kind == lastPart {
			s.pending, s.good = false, true
			s.behind = s.behind || s.lost > 0
			s.flush()
		}
	}
	out = append(out, make([]byte, size-len(out))...)
	if s.pending {
		s.begun = append(s.begun, out)
		return
	}
	s.write(out)
}

// drop takes the record that has not ended out of the pages. out is the current page so far; drop returns it without
// the record.
func (s *segmentScan) drop(out []byte) []byte {
	if !s.pending {
		return out
	}
	s.pending = false
	s.lost += int64(s.parts)
	if len(s.begun) == 0 {
		return out[:s.cut]
	}
	clear(s.begun[0][s.cut:])
	for _, page := range s.begun[1:] { // these hold nothing else
		clear(page)
	}
	s.flush()
	return out[:0]
}

// flush writes the pages that were held back.
func (s *segmentScan) flush() {
	for _, page := range s.begun {
		s.write(page)
	}
	s.begun = s.begun[:0]
}

func (s *segmentScan) write(page []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(page)
	}
}

func (s *segmentScan) end() {
	s.drop(nil)
	s.flush()
}

// fragment returns the kind and the size of the fragment at the beginning of page, which may be the rest of one. Kind
// noFragment means that there is none, size 0 that it is damaged.
func fragment(page []byte) (kind byte, size int) {
	kind = page[0] & kindMask
	if kind == noFragment && len(bytes.Trim(page, "\x00")) == 0 {
		return noFragment, 0
	}
	if kind < wholeRecord || kind > lastPart || page[0]&^compressedMask != 0 || len(page) < logHeader {
		return wholeRecord, 0
	}
	size = logHeader + int(binary.BigEndian.Uint16(page[1:]))
	if size > len(page) || crc32.Checksum(page[logHeader:size], castagnoli) != binary.BigEndian.Uint32(page[3:]) {
		return kind, 0
	}
	return kind, size
}
