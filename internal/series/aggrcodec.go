package series

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// EncAggregates is the encoding byte of a downsampled chunk in a block, as Thanos writes it. Prometheus knows no such
// encoding. AppendAggregates writes its data.
const EncAggregates = chunkenc.Encoding(0xff)

// EveryAggregate keeps all aggregates of a downsampled chunk (DecodeAggregates).
var EveryAggregate = [NumAggregates]bool{true, true, true, true, true}

// AppendAggregates appends the data of a downsampled chunk to dst: for each aggregate, in the order of the constants,
// the length of its data as an unsigned varint, then its encoding byte and the data. The length counts neither itself
// nor the encoding byte. For an absent aggregate there is only the length 0. The result shares no memory with c.
func AppendAggregates(dst []byte, c *AggrChunks) []byte {
	for _, e := range c {
		if e.Encoding == chunkenc.EncNone || len(e.Data) == 0 {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(e.Data)))
		dst = append(dst, byte(e.Encoding))
		dst = append(dst, e.Data...)
	}
	return dst
}

// DecodeAggregates reads what AppendAggregates wrote. It checks all aggregates, and returns those that keep names. The
// data of the result share the memory of b. Bytes after the last aggregate are ignored. Errors have the kind Invalid.
func DecodeAggregates(b []byte, keep [NumAggregates]bool) (*AggrChunks, error) {
	out := new(AggrChunks)
	for a := range out {
		n, lead := binary.Uvarint(b)
		if lead <= 0 || n > 0 && n >= uint64(len(b)-lead) {
			return nil, errs.E(errs.Invalid, "aggregate %d is cut off", a)
		}
		b = b[lead:]
		if n == 0 {
			continue
		}
		enc := chunkenc.Encoding(b[0])
		if !chunkenc.IsValidEncoding(enc) {
			return nil, errs.E(errs.Invalid, "aggregate %d has encoding %d", a, enc)
		}
		if keep[a] {
			out[a] = Encoded{Encoding: enc, Data: b[1 : n+1 : n+1]}
		}
		b = b[n+1:]
	}
	return out, nil
}
