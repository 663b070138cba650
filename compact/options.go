package compact

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/relabel"
)

// Options adjust a Compactor. Start from DefaultOptions.
type Options struct {
	// Dir is for what a job needs on local disk. It may be lost at any time, and is emptied at the start.
	Dir string
	// Instance is the Hearth instance id, which names the heartbeat object of this process.
	Instance string
	// BucketID is the uuid of the bucket, part of what the names of outputs are made of. known is false until the bucket
	// has said it; no job runs until then.
	BucketID func() (uuid string, known bool)

	// Interval is how often the bucket is looked at for work. CleanInterval is how often what was marked is deleted, and
	// blocks beyond retention are marked.
	Interval, CleanInterval time.Duration
	// ProgressInterval is how often it is counted what is left to be done, with all that follows from it; 0 = never.
	ProgressInterval time.Duration
	// DeleteDelay is how long a block stays after it was marked for deletion; 0 = it is deleted with the next pass.
	DeleteDelay time.Duration
	// ConsistencyDelay is the age from which a block is compacted, for buckets that show objects late.
	ConsistencyDelay time.Duration
	// Window, when set, limits the work to blocks that overlap [mint, maxt] (ms), asked anew at each look.
	Window func(now time.Time) (mint, maxt int64)
	// Relabel, when set, limits the work to the blocks that these rules keep (block.Chosen). They do not see the labels
	// in ReplicaLabels and ReplicaLabel, so that replicas stay together.
	Relabel []*relabel.Config

	// TenantLabel and ReplicaLabel are the external labels of blocks that name the tenant, and tell the copies of one ring
	// apart.
	TenantLabel, ReplicaLabel string
	// Jobs decides what is compacted, and how.
	Jobs JobOptions
	// Retention is how long blocks are kept.
	Retention RetentionOptions
	// Owns reports whether this process is to do the work that key names; nil = all of it.
	Owns func(key []byte) bool
	// Refuse says that no request may change anything.
	Refuse bool

	// SharedNames leaves out the metrics thanos_blocks_meta_*, which a store gateway in the same process has too.
	SharedNames bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// JobOptions say what is compacted, and how.
type JobOptions struct {
	// Off leaves all blocks as they are: no job runs.
	Off bool
	// Concurrency is how many jobs run at once. Memory is what one of them may use for what it merges, in bytes.
	Concurrency int
	Memory      int64
	// BlockFiles is how many files of a block are sent to the bucket at a time.
	BlockFiles int
	// Hash puts the SHA-256 of each file into meta.json.
	Hash bool
	// Downsample makes blocks of 5m and 1h.
	Downsample bool
	// ReplicaLabels are external labels that tell HA pairs apart: blocks that differ in nothing else are merged into one
	// without them. Penalty merges their samples as a querier does (HA pairs scrape at different times); else samples of
	// equal times are one, and all others stay.
	ReplicaLabels []string
	Penalty       bool
	// MaxIndexSize is how large the index of a block may become, in bytes. An output that would be larger is split.
	MaxIndexSize int64
	// MaxLevel is the largest range that is made: 1 = 2h, 2 = 8h, 3 = 2d, 4 = 14d; 0 = none: blocks are only downsampled.
	MaxLevel int
	// Retry is the wait before a job that failed is tried again. It doubles with each failure up to 32 times as much.
	Retry time.Duration
}

// DefaultOptions are the options of a compactor below ./data.
func DefaultOptions() Options {
	return Options{
		Dir: "./data", Interval: 5 * time.Minute, CleanInterval: 5 * time.Minute,
		ProgressInterval: 5 * time.Minute,
		DeleteDelay:      48 * time.Hour, ConsistencyDelay: 30 * time.Minute,
		TenantLabel: "tenant_id", ReplicaLabel: "receive_replica",
		Jobs: JobOptions{
			Concurrency: 1, Memory: 256 << 20, BlockFiles: 1, Downsample: true, MaxIndexSize: 64 << 30, MaxLevel: 4,
			Retry: time.Minute,
		},
		Retention: RetentionOptions{Wait: 24 * time.Hour},
	}
}

// Validate reports all that is wrong with o.
func (o Options) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("compact: "+format, args...)) }
	if o.Dir == "" {
		fault("no data directory")
	}
	if o.Instance == "" {
		fault("no instance id")
	}
	if o.BucketID == nil {
		fault("nobody says which bucket it is")
	}
	for _, d := range []struct {
		what string
		is   time.Duration
	}{{"interval", o.Interval}, {"clean interval", o.CleanInterval}, {"retry", o.Jobs.Retry}} {
		if d.is <= 0 {
			fault("%s %s: must be positive", d.what, d.is)
		}
	}
	if o.DeleteDelay < 0 || o.ConsistencyDelay < 0 || o.ProgressInterval < 0 {
		fault("a delay or the progress interval is negative")
	}
	if o.Jobs.Concurrency < 1 || o.Jobs.BlockFiles < 1 || o.Jobs.Memory < minMemory || o.Jobs.MaxIndexSize < 1 {
		fault("concurrency %d, files of a block at a time %d, memory %d (at least %d), index size %d", o.Jobs.Concurrency,
			o.Jobs.BlockFiles, o.Jobs.Memory, minMemory, o.Jobs.MaxIndexSize)
	}
	if o.Jobs.MaxLevel < 0 || o.Jobs.MaxLevel > 4 {
		fault("largest compaction level %d: must be 0 (nothing is merged) to 4 (14d)", o.Jobs.MaxLevel)
	}
	if o.Jobs.Penalty && len(o.Jobs.ReplicaLabels) == 0 {
		fault("deduplication function penalty needs a replica label")
	}
	return errors.Join(append(faults, o.Retention.validate(o.Jobs.Downsample))...)
}

// minMemory is what a job needs at least, in bytes.
const minMemory = 16 << 20
