package bucketindex

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

// MaxParts is into how many parts the output of a compaction is split at most.
const MaxParts = 1024

// Origin is what Hearth's compactor says of a block that it made: extensions.hearth of its meta.json
// (docs/format/split-blocks.md). It belongs to the block of its ID: other compactors copy extensions to the blocks that
// they make, where it says nothing.
type Origin struct {
	ID ulid.ULID `json:"id"`
	// Sources are the blocks that were not made of others, and whose samples the block has: those of its part. Sorted.
	Sources []ulid.ULID `json:"sources"`
	// Replaces are the blocks that it was made of. Sorted.
	Replaces []ulid.ULID `json:"replaces"`
	// Shard and Of say which part of a split output it is: it has the series with StableHash % Of == Shard. Of is a power
	// of two; 1 is a whole output.
	Shard int `json:"shard"`
	Of    int `json:"of"`
	// Empty are the parts of the same output that have no series, so that no block was written for them. Sorted.
	Empty []int `json:"empty,omitempty"`
	// Removed are the names of external labels that the blocks that it was made of have, and it does not. Sorted.
	Removed []string `json:"removed,omitempty"`
	// Producers are the values of the replica label of Sources. Sorted.
	Producers []string `json:"producers,omitempty"`
}

// Validate says what is wrong with the origin of block id.
func (o *Origin) Validate(id ulid.ULID) error {
	switch {
	case o.ID != id:
		return fmt.Errorf("origin of %s", o.ID)
	case o.Of < 1 || o.Of > MaxParts || bits.OnesCount(uint(o.Of)) != 1 || o.Shard < 0 || o.Shard >= o.Of:
		return fmt.Errorf("part %d of %d", o.Shard, o.Of)
	case len(o.Sources) == 0 || !ascending(o.Sources, ulid.ULID.Compare) || !ascending(o.Replaces, ulid.ULID.Compare):
		return errors.New("its sources and what it replaces must be in order")
	case !ascending(o.Removed, strings.Compare) || !ascending(o.Producers, strings.Compare):
		return errors.New("its names must be in order")
	case !ascending(o.Empty, cmp.Compare) || slices.ContainsFunc(o.Empty, func(e int) bool {
		return e < 0 || e >= o.Of || e == o.Shard
	}):
		return fmt.Errorf("empty parts %v of %d", o.Empty, o.Of)
	}
	return nil
}

func ascending[T any](s []T, compare func(a, b T) int) bool {
	for i := 1; i < len(s); i++ {
		if compare(s[i-1], s[i]) >= 0 {
			return false
		}
	}
	return true
}

// origin appends that of b.
func (e *encoder) origin(b []byte, m *Block, same bool) []byte {
	o := m.Origin
	b = binary.AppendUvarint(b, uint64(o.Shard))
	b = binary.AppendUvarint(b, uint64(o.Of))
	b = binary.AppendUvarint(b, uint64(len(o.Empty)))
	for _, part := range o.Empty {
		b = binary.AppendUvarint(b, uint64(part))
	}
	for _, names := range [][]string{o.Removed, o.Producers} {
		b = binary.AppendUvarint(b, uint64(len(names)))
		for _, name := range names {
			b = binary.AppendUvarint(b, e.str(name))
		}
	}
	lists := [][]ulid.ULID{o.Replaces, o.Sources}
	if same {
		lists = lists[:1]
	}
	for _, ids := range lists {
		b = binary.AppendUvarint(b, uint64(len(ids)))
		for _, id := range ids {
			b = append(b, id[:]...)
		}
	}
	return b
}

// origin reads that of b.
func (d *decoder) origin(b *Block, same bool) {
	o := &Origin{ID: b.ULID, Shard: d.small(), Of: d.small()}
	for range d.count(1, 8) {
		o.Empty = append(o.Empty, d.small())
	}
	for _, names := range []*[]string{&o.Removed, &o.Producers} {
		for range d.count(1, 16) {
			*names = append(*names, d.str())
		}
	}
	lists := []*[]ulid.ULID{&o.Replaces, &o.Sources}
	if same {
		lists = lists[:1]
		d.memory += 16 * uint64(len(b.Compaction.Sources))
		o.Sources = slices.Clone(b.Compaction.Sources)
	}
	for _, ids := range lists {
		n := d.count(16, 16)
		*ids = make([]ulid.ULID, n)
		for i := range *ids {
			(*ids)[i] = d.id()
		}
	}
	if d.err == nil {
		if err := o.Validate(b.ULID); err != nil {
			d.fail("block %s: %w", b.ULID, err)
		}
	}
	b.Origin = o
}

// small is a number of parts.
func (d *decoder) small() int {
	v := d.uvarint()
	if v > MaxParts {
		d.fail("part %d", v)
		return 0
	}
	return int(v)
}
