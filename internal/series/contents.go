package series

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/oklog/ulid/v2"
)

// Contents stands for a bucket that has no id. Its elements are digests of the sets of blocks that a gateway found in
// the bucket, one for each change, the present set first. Ids of blocks are unique, so gateways that found the same
// set of blocks read the same blocks, wherever they read them. "" says nothing: it stands for no bucket, or for an
// empty one, since nobody can tell empty buckets from each other.
type Contents string

const (
	digestBytes = 16
	// MostContents is how many sets are remembered. Gateways look at a bucket at different times, so one that looks less
	// often is behind by a few sets.
	MostContents = 64
	// MaxContentsBytes is the length of the longest Contents.
	MaxContentsBytes = MostContents * digestBytes
)

// After returns the contents of a bucket in which the set d was found, where c was before.
func (c Contents) After(d Digest) Contents {
	if d.Blocks == 0 {
		return ""
	}
	var now [digestBytes]byte
	binary.BigEndian.PutUint64(now[:], d.Sums[0])
	binary.BigEndian.PutUint64(now[8:], d.Sums[1])
	if c.Now() == Contents(now[:]) {
		return c
	}
	return (Contents(now[:]) + c)[:min(len(c)+digestBytes, MaxContentsBytes)]
}

// Now is the present set alone.
func (c Contents) Now() Contents { return c[:min(len(c), digestBytes)] }

// Know reports whether a gateway with the contents c has found all that another one with the contents of last found,
// since the present set of that one is, or was, its own.
func (c Contents) Know(of Contents) bool {
	for now := of.Now(); len(c) >= digestBytes && now != ""; c = c[digestBytes:] {
		if c.Now() == now {
			return true
		}
	}
	return false
}

// String is the present set as hex digits.
func (c Contents) String() string { return hex.EncodeToString([]byte(c.Now())) }

// ContentsOf is what String wrote; "" if it is something else.
func ContentsOf(text string) Contents {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != digestBytes {
		return ""
	}
	return Contents(b)
}

// ValidContents reports whether bytes from another process are contents.
func ValidContents(b []byte) bool { return len(b) <= MaxContentsBytes && len(b)%digestBytes == 0 }

// DigestOfSet returns the digest of the keys of a set of blocks.
func DigestOfSet[V any](set map[ulid.ULID]V) (d Digest) {
	for id := range set {
		d.add(id)
	}
	return d
}
