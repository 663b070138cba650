package plan

import (
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// The resolutions of blocks, in ms.
const (
	Raw     = int64(0)
	FiveMin = int64(5 * time.Minute / time.Millisecond)
	OneHour = int64(time.Hour / time.Millisecond)
)

// resolutions are all resolutions, the finest first.
var resolutions = []int64{Raw, FiveMin, OneHour}

// The least time that a block spans before its samples are also kept at 5 minutes and at 1 hour.
const (
	SpanFiveMin = 40 * time.Hour
	SpanOneHour = 10 * 24 * time.Hour
)

// spanOf is the least time that a block spans before its samples are also kept at a resolution, in ms.
func spanOf(resolution int64) int64 {
	if resolution == OneHour {
		return SpanOneHour.Milliseconds()
	}
	return SpanFiveMin.Milliseconds()
}

// Settings say how a bucket is compacted. All compactors of a bucket should have the same ones. They need not: what
// differs makes other outputs, of which some are removed later as they replace each other.
type Settings struct {
	// Bucket is the uuid of the bucket.
	Bucket string
	// Owner has the names of the labels in which tenants and replicas differ. Without a name of the tenant's label
	// all blocks are nobody's; without one of the replica's nothing is united.
	Owner block.Owner
	// DedupLabels are the labels of HA pairs. Blocks that differ in them are merged, by the algorithm that queriers have
	// for HA pairs if Penalty is set, and else as replicas are.
	DedupLabels []string
	Penalty     bool
	// Ranges are the ranges of time that are compacted to one block, in ms, ascending.
	Ranges []int64
	// ProducerWait is how long after the end of a range blocks of producers are waited for that shipped before.
	ProducerWait time.Duration
	// LateShare and LateWait say when blocks that came late are merged into the block of their range: when their bytes
	// reach this share of its bytes, or when none came for that long.
	LateShare float64
	LateWait  time.Duration
	// MaxIndexSize (bytes) and MaxSeries bound a block; an output that could be larger is split. 0 = no bound.
	MaxIndexSize int64
	MaxSeries    uint64
	// Downsample says that blocks of 5 minutes and 1 hour are made.
	Downsample bool
	// Retention says how long blocks are kept.
	Retention Policy
	// Formats names the versions of everything that turns inputs into bytes. It is part of each output's id.
	Formats string
}

// DefaultSettings are those of a bucket without a name and without owners.
func DefaultSettings() Settings {
	hour := time.Hour.Milliseconds()
	return Settings{
		Ranges:       []int64{2 * hour, 8 * hour, 48 * hour, 14 * 24 * hour},
		ProducerWait: 6 * time.Hour, LateShare: 0.1, LateWait: 24 * time.Hour,
		MaxIndexSize: 64 << 30, MaxSeries: 8_000_000, Downsample: true, Formats: "1",
	}
}

// Bucket is what a plan is made of.
type Bucket struct {
	// View is all that the bucket has. The deletion and other marks in it count.
	View block.View
	// Metas are the blocks of View that this compactor is about, in order of time, as View.Select returns them. It
	// may be a part of View: blocks that are too young, or that rules leave to others, are not in it.
	Metas []*block.Meta
	// SetAside are blocks that are not touched, since a job with them failed.
	SetAside map[ulid.ULID]bool
	// Done are outputs that were made and deleted. They are not made again.
	Done map[ulid.ULID]bool
	// Erase are the blocks that may have samples which operators asked to delete, and what the blocks are called that are
	// made of them without these.
	Erase map[ulid.ULID]ulid.ULID
}
