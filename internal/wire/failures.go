package wire

import (
	"encoding/binary"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// failuresVersion is the first byte of a response, described in docs/format/write-frame.md.
const failuresVersion = 1

// minFailure is the fewest bytes of a failure: six numbers.
const minFailure = 6

// AppendFailures appends the response to a shard: what of it was not stored. Failure.Series is the position in the sent
// shard's Series, which is the index in the receiver's Batch.
func AppendFailures(dst []byte, failures []Failure) []byte {
	dst = append(dst, failuresVersion)
	dst = binary.AppendUvarint(dst, uint64(len(failures)))
	for i := range failures {
		f := &failures[i]
		dst = binary.AppendVarint(dst, int64(f.Series))
		dst = append(dst, byte(f.Kind))
		dst = binary.AppendVarint(dst, int64(f.Samples))
		dst = binary.AppendVarint(dst, int64(f.Histograms))
		dst = binary.AppendVarint(dst, int64(f.Exemplars))
		dst = appendText(dst, f.Reason)
	}
	return dst
}

// DecodeFailures reads what AppendFailures wrote; nil if there are none. Damage is an error of kind Internal: then it
// is not known what was stored. A kind that this process does not know reads as Internal.
func DecodeFailures(b []byte) ([]Failure, error) {
	if len(b) == 0 || b[0] != failuresVersion {
		return nil, errs.E(errs.Internal, "write answer of version %d, this process reads version %d",
			first(b), failuresVersion)
	}
	r := reader{buf: b, pos: 1}
	n := r.count(minFailure)
	var failures []Failure
	for range n {
		f := Failure{Series: int(r.varint()), Kind: knownKind(r.byte())}
		f.Samples, f.Histograms, f.Exemplars = int(r.varint()), int(r.varint()), int(r.varint())
		f.Reason = string(r.bytes())
		failures = append(failures, f)
	}
	if r.failed || r.pos != len(b) {
		return nil, errs.E(errs.Internal, "write answer of %d bytes is damaged near byte %d", len(b), r.pos)
	}
	return failures, nil
}

// knownKind is the kind of number n.
func knownKind(n byte) errs.Kind {
	if k := errs.Kind(n); k.String() != errs.Internal.String() {
		return k
	}
	return errs.Internal
}
