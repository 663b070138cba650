package bucketindex

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Folder is where the objects of the index are; a content is Folder and its hash.
const Folder = "hearth/index/"

// PointerName is the object that names the content which counts.
const PointerName = Folder + "current"

// pointerVersion is the version of the pointer, which has not changed with that of contents.
const pointerVersion = 1

// MaxPointerSize is the largest pointer that is read, in bytes.
const MaxPointerSize = 4 << 10

// Pointer names a content. It is the only object of an index that changes.
type Pointer struct {
	Version int `json:"version"`
	// Number grows with each new content, and is above 0.
	Number uint64 `json:"number"`
	// Hash is the SHA-256 of the content, in lower-case hex.
	Hash string `json:"hash"`
	// Size is that of the content, in bytes.
	Size int64 `json:"size"`
	// UpdatedAt is when the listing began that found what the content says, in Unix milliseconds by the writer's clock.
	UpdatedAt int64 `json:"updated_at"`
}

// NewPointer names content, which a listing found that began at began.
func NewPointer(content []byte, number uint64, began time.Time) Pointer {
	return Pointer{pointerVersion, number, hashOf(content), int64(len(content)), began.UnixMilli()}
}

// ParsePointer reads a pointer. A faulty one is an error of kind Invalid. If at least its number can be read,
// Number is set, so that a writer that replaces the pointer does not begin anew.
func ParsePointer(b []byte) (Pointer, error) {
	var p Pointer
	if len(b) > MaxPointerSize {
		return p, errs.E(errs.Invalid, "%s is larger than %d bytes", PointerName, MaxPointerSize)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return Pointer{}, errs.E(errs.Invalid, "%s: %w", PointerName, err)
	}
	switch {
	case p.Version != pointerVersion:
		return Pointer{Number: p.Number}, errs.E(errs.Invalid, "%s: version %d, want %d", PointerName, p.Version,
			pointerVersion)
	case p.Number == 0 || !isHash(p.Hash) || p.Size <= 0 || p.Size > MaxSize || p.UpdatedAt <= 0:
		return Pointer{Number: p.Number}, errs.E(errs.Invalid, "%s: number %d, hash %.80q, %d bytes, updated at %d",
			PointerName, p.Number, p.Hash, p.Size, p.UpdatedAt)
	}
	return p, nil
}

// Encode returns the pointer as its object has it.
func (p Pointer) Encode() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic("BUG: a pointer cannot be encoded: " + err.Error())
	}
	return b
}

// Object is the name of the content that p names.
func (p Pointer) Object() string { return Folder + p.Hash }

// Updated is UpdatedAt as a time.
func (p Pointer) Updated() time.Time { return time.UnixMilli(p.UpdatedAt) }

// Check reports, as kind Invalid, that content is not what p names.
func (p Pointer) Check(content []byte) error {
	if int64(len(content)) != p.Size || hashOf(content) != p.Hash {
		return errs.E(errs.Invalid, "%s: %d bytes with the hash %s, want %d", p.Object(), len(content), hashOf(content),
			p.Size)
	}
	return nil
}

// ContentName reports whether name is that of a content, whether or not a pointer names it.
func ContentName(name string) bool {
	hash, ok := strings.CutPrefix(name, Folder)
	return ok && isHash(hash)
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func isHash(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

const (
	fileMagic   = "HBMC"
	fileVersion = 1
)

// EncodeFile returns the local file that keeps content over a restart. p names the index of the bucket that the
// content has taken in; zero is none. The content itself may know more blocks than that one.
func EncodeFile(p Pointer, content []byte) []byte {
	pointer := p.Encode()
	tail := binary.AppendUvarint(nil, uint64(len(pointer)))
	tail = append(append(tail, pointer...), content...)
	sum := sha256.Sum256(tail)
	return append(append(append([]byte(fileMagic), fileVersion), sum[:]...), tail...)
}

// DecodeFile reads what EncodeFile made. A faulty file is an error of kind Invalid.
func DecodeFile(b []byte) (p Pointer, content []byte, err error) {
	head := len(fileMagic) + 1 + sha256.Size
	if len(b) < head || string(b[:len(fileMagic)]) != fileMagic || b[len(fileMagic)] != fileVersion {
		return p, nil, errs.E(errs.Invalid, "it does not begin as a file of metas of version %d", fileVersion)
	}
	tail := b[head:]
	if sum := sha256.Sum256(tail); !bytes.Equal(sum[:], b[head-sha256.Size:head]) {
		return p, nil, errs.E(errs.Invalid, "the checksum is wrong")
	}
	n, w := binary.Uvarint(tail)
	if w <= 0 || n > MaxPointerSize || n > uint64(len(tail)-w) {
		return p, nil, errs.E(errs.Invalid, "a pointer of %d bytes", n)
	}
	tail = tail[w:]
	if err := json.Unmarshal(tail[:n], &p); err != nil {
		return p, nil, errs.E(errs.Invalid, "%w", err)
	}
	if p != (Pointer{}) {
		if p, err = ParsePointer(tail[:n]); err != nil {
			return Pointer{}, nil, err
		}
	}
	return p, tail[n:], nil
}
