package gossip

import (
	"fmt"
	"slices"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/grafana/dskit/kv/memberlist"
	dring "github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
)

// ringValue is the gossiped value of one role: dskit's descriptor with dskit's merge. Two things differ. A process
// that changes the value sees the tombstones in it: an entry that replaces a tombstone must be newer, so a member
// that was forgotten while its clock was ahead could not come back otherwise. And the number of entries is bounded.
type ringValue struct{ *dring.Desc }

// newRingValue returns the value in, or an empty one if in is nil. The caller owns it.
func newRingValue(in any) ringValue {
	if r, ok := in.(ringValue); ok {
		return r
	}
	return ringValue{dring.NewDesc()}
}

// Merge takes the newer entries of other into r and returns what changed, nil for nothing. It may change other.
func (r ringValue) Merge(other memberlist.Mergeable, localCAS bool) (memberlist.Mergeable, error) {
	if other == nil {
		return nil, nil
	}
	o, ok := other.(ringValue)
	if !ok {
		return nil, fmt.Errorf("merge of a ring with a %T", other)
	}
	free := maxMembers - len(r.Ingesters) // the number of members that may still be added
	for id := range o.Ingesters {
		if _, known := r.Ingesters[id]; known {
			continue
		}
		if free--; free < 0 {
			delete(o.Ingesters, id)
		}
	}
	change, err := r.Desc.Merge(o.Desc, localCAS)
	if change == nil || err != nil {
		return nil, err
	}
	return ringValue{change.(*dring.Desc)}, nil
}

// RemoveTombstones drops the members that left before limit. With the zero limit the store asks to hide tombstones
// from readers. None is hidden: see ringValue.
func (r ringValue) RemoveTombstones(limit time.Time) (total, removed int) {
	if !limit.IsZero() {
		return r.Desc.RemoveTombstones(limit)
	}
	for _, e := range r.Ingesters {
		if e.State == dring.LEFT {
			total++
		}
	}
	return total, 0
}

// Clone is a deep copy.
func (r ringValue) Clone() memberlist.Mergeable { return ringValue{r.Desc.Clone().(*dring.Desc)} }

// ringCodec writes rings as dskit does.
type ringCodec struct{ refused prometheus.Counter } // may be nil

// CodecID names the form on the wire.
func (ringCodec) CodecID() string { return dring.GetCodec().CodecID() }

// Decode is the inverse of Encode. It leaves out the entries that are over a bound.
func (c ringCodec) Decode(b []byte) (any, error) {
	b, err := decodeSnappy("ring", b, maxRing)
	if err != nil {
		return nil, err
	}
	in, out := dring.NewDesc(), dring.NewDesc()
	if err := proto.Unmarshal(b, in); err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	now := time.Now().Unix()
	for id, e := range in.Ingesters {
		e.Id, e.Versions = id, nil
		slices.Sort(e.Tokens)
		e.Tokens = slices.Compact(e.Tokens)
		in.Ingesters[id] = e
	}
	count(c.refused, take(out.Ingesters, in.Ingesters, maxMembers, func(id string, e dring.InstanceDesc) bool {
		return validEntry(id, &e, now)
	}))
	return ringValue{out}, nil
}

// Encode writes a ringValue.
func (ringCodec) Encode(v any) ([]byte, error) {
	r, ok := v.(ringValue)
	if !ok {
		return nil, fmt.Errorf("encode a %T as a ring", v)
	}
	b, err := proto.Marshal(r.Desc)
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, b), nil
}

// count adds n to c, which may be nil.
func count(c prometheus.Counter, n int) {
	if c != nil && n > 0 {
		c.Add(float64(n))
	}
}
