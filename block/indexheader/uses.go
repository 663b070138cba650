package indexheader

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/atomicfile"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Use is a block whose index-header is open, and when somebody asked for it last, in ms since 1970.
type Use struct {
	ID ulid.ULID
	At int64
}

const (
	usesMagic   = 0x48494855 // HIHU
	usesVersion = 1
	usesLead    = 4 + 1 + 4
	useLen      = len(ulid.ULID{}) + 8
)

// encodeUses is the content of the file (docs/format/bucket.md).
func encodeUses(all []Use) []byte {
	b := binary.BigEndian.AppendUint32(nil, usesMagic)
	b = append(b, usesVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
	for _, u := range all {
		b = append(b, u.ID[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(u.At))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, block.Castagnoli))
}

// decodeUses reads what encodeUses wrote. Errors are of kind Invalid, or Unsupported for another version.
func decodeUses(b []byte) ([]Use, error) {
	if len(b) < usesLead+crc32.Size || binary.BigEndian.Uint32(b) != usesMagic {
		return nil, errs.E(errs.Invalid, "%d bytes are no list of index-headers", len(b))
	}
	if b[4] != usesVersion {
		return nil, errs.E(errs.Unsupported, "version %d of a list of index-headers", b[4])
	}
	body, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	entries := body[usesLead:]
	if n := binary.BigEndian.Uint32(b[5:]); uint64(n)*uint64(useLen) != uint64(len(entries)) ||
		crc32.Checksum(body, block.Castagnoli) != sum {
		return nil, errs.E(errs.Invalid, "list of index-headers: %d entries in %d bytes, or the checksum", n, len(b))
	}
	all := make([]Use, 0, len(entries)/useLen)
	for ; len(entries) > 0; entries = entries[useLen:] {
		id := ulid.ULID(entries[:len(ulid.ULID{})])
		all = append(all, Use{id, int64(binary.BigEndian.Uint64(entries[len(id):]))})
	}
	return all, nil
}

// WriteUses replaces the list at path, whose directory is made. Errors are of kind Internal.
func WriteUses(path string, all []Use) error {
	err := os.MkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		err = atomicfile.Write(path, encodeUses(all), 0o666)
	}
	return errs.Wrap(errs.Internal, err)
}

// ReadUses reads the list at path. None is an empty one. Errors are of kind Invalid, Unsupported or Internal.
func ReadUses(path string) ([]Use, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	return decodeUses(b)
}
