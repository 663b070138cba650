package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/relabel"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/store/cache"
)

// Options adjust a Gateway. Start from DefaultOptions.
type Options struct {
	// Dir keeps an index-header and the meta.json of each block. It may be lost at any time; then it is built anew.
	Dir string
	// Instance is the Hearth instance id for Info; "" is none.
	Instance string
	// SyncInterval is how often the bucket is looked at for blocks that came and went.
	SyncInterval time.Duration
	// StartTimeout is how long Open waits for the first sync; after it Open returns and the sync goes on.
	StartTimeout time.Duration
	// BlockConcurrency is how many index-headers are opened at once.
	BlockConcurrency int
	// HeaderIdleTimeout is how long an open index-header may be unused before it is closed; 0 = it stays open.
	HeaderIdleTimeout time.Duration
	// RetryAfter is how long a block with a faulty index is left alone.
	RetryAfter time.Duration
	// IgnoreDeletionMarksDelay is the age from which a deletion mark hides its block. It must be shorter than the
	// compactor's delete delay (48h), so that blocks are let go before their objects are.
	IgnoreDeletionMarksDelay time.Duration
	// Window, when set, limits what is served to the times from mint to maxt (ms, both included): to chunks that have
	// samples of them, of blocks that overlap them. It is asked anew at each sync and request, and must not move back.
	Window func(now time.Time) (mint, maxt int64)
	// Sharing, when set, divides the blocks among the gateways of the bucket. nil = this gateway serves all of them.
	Sharing *Sharing

	// BucketID returns the id of the bucket, "" if it has none. known is false while the bucket has not said it. It must
	// answer from memory. nil = it has none.
	BucketID func() (id string, known bool)

	// Announced reports whether samples of a new block were announced by the receiver that shipped it, when they arrived
	// there. It must answer from memory. nil = those of none.
	Announced func(m *block.Meta) bool

	// Relabel, when set, limits what is served to the blocks that these rules keep (block.Chosen).
	Relabel []*relabel.Config
	// ConsistencyDelay is the age from which a block is served, for buckets that show objects late.
	ConsistencyDelay time.Duration

	// Mimir says that the bucket is in the layout of Mimir and Cortex: the directory of a block says whose it is.
	Mimir bool
	// TenantLabel is the external label that names a block's tenant; a block without it is the default tenant's.
	TenantLabel string
	// ReplicaLabel is the external label that tells replicas of one ring apart. It is not added to series.
	ReplicaLabel string

	// SeriesMaxConcurrency is how many blocks all requests together read from at once.
	SeriesMaxConcurrency int
	// MaxOpenRequests is how many selects and label requests may be open; beyond it they are refused as Exhausted.
	MaxOpenRequests int
	// MaxRequestBytes is how much one request may read from the bucket or the index cache; beyond it the request fails as
	// Limited.
	MaxRequestBytes int64
	// MaxRequestSeries bounds the series that one request selects, and MaxRequestSamples their samples, 120 for each
	// chunk; a series of two blocks counts twice. Beyond them the request fails as Limited. 0 is no bound.
	MaxRequestSeries, MaxRequestSamples int64
	// Memory is what open requests share with the rest of the process; nil = 2 GiB of their own. A request that does
	// not fit waits MemoryWait and then fails as Exhausted.
	Memory     *memory.Budget
	MemoryWait time.Duration
	// ReadTimeout is how long the bucket may send nothing of what is read for a request; then that request fails as
	// Unavailable.
	ReadTimeout time.Duration
	// Cache keeps parts of blocks and what was made of them, in memory and on shared servers.
	Cache cache.Options
	// RelabelBytes bounds the memory for sorting series whose labels are dropped or added.
	RelabelBytes int64

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DefaultOptions are the options of a gateway below ./data.
func DefaultOptions() Options {
	return Options{
		Dir:                      "./data",
		SyncInterval:             time.Minute,
		StartTimeout:             5 * time.Second,
		BlockConcurrency:         20,
		HeaderIdleTimeout:        5 * time.Minute,
		RetryAfter:               10 * time.Minute,
		IgnoreDeletionMarksDelay: 24 * time.Hour,
		TenantLabel:              "tenant_id",
		ReplicaLabel:             "receive_replica",
		SeriesMaxConcurrency:     20,
		MaxOpenRequests:          1000,
		MaxRequestBytes:          1 << 30,
		MemoryWait:               10 * time.Second,
		ReadTimeout:              10 * time.Second,
		Cache:                    cache.Options{MaxBytes: cache.DefaultBytes},
		RelabelBytes:             256 << 20,
	}
}

// Chosen reports whether the gateway was given a part of the bucket.
func (o Options) Chosen() bool { return o.Window != nil || len(o.Relabel) > 0 }

// filters choose the blocks that are served at the time now, of those that the rules choose (Relabel). Superseded
// blocks go after them. Each decides about a block alone.
func (o Options) filters(now time.Time) (all []block.Filter) {
	if o.Window != nil {
		w := o.planWindow(now)
		all = append(all, block.Within(w.mint, w.maxt))
	}
	if o.ConsistencyDelay > 0 {
		all = append(all, block.UploadedBefore(now.Add(-o.ConsistencyDelay)))
	}
	return append(all, block.NotDeleted(o.TenantLabel, now), block.NotMarkedBefore(now.Add(-o.IgnoreDeletionMarksDelay)))
}

// Validate reports all that is wrong with o.
func (o Options) Validate() error {
	var faults []error
	positive := func(what string, v int64) {
		if v <= 0 {
			faults = append(faults, fmt.Errorf("store: %s %d: must be positive", what, v))
		}
	}
	if o.Dir == "" {
		faults = append(faults, errors.New("store: no data directory"))
	}
	if o.TenantLabel == "" {
		faults = append(faults, errors.New("store: no tenant label"))
	}
	if err := o.Sharing.validate(); err != nil {
		faults = append(faults, err)
	}
	if o.Sharing != nil && o.Chosen() {
		faults = append(faults, errors.New("store: a gateway of a part of the bucket cannot share that part with others"))
	}
	positive("sync interval", int64(o.SyncInterval))
	positive("block concurrency", int64(o.BlockConcurrency))
	positive("series concurrency", int64(o.SeriesMaxConcurrency))
	positive("read timeout", int64(o.ReadTimeout))
	positive("open requests", int64(o.MaxOpenRequests))
	positive("bytes per request", o.MaxRequestBytes)
	if o.MaxRequestSeries < 0 || o.MaxRequestSamples < 0 {
		faults = append(faults, errors.New("store: a limit of series or samples is negative"))
	}
	if o.IgnoreDeletionMarksDelay < 0 || o.Cache.MaxBytes < 0 || o.StartTimeout < 0 || o.RetryAfter < 0 ||
		o.MemoryWait < 0 || o.HeaderIdleTimeout < 0 || o.ConsistencyDelay < 0 {
		faults = append(faults, errors.New("store: a delay or size is negative"))
	}
	return errors.Join(faults...)
}
