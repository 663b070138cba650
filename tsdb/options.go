package tsdb

import (
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options configure a DB. Start from DefaultOptions.
type Options struct {
	// Dir holds one directory per tenant, each a plain Prometheus TSDB. It is created when absent.
	Dir string
	// BlockDuration is the length of a block; blocks are aligned to it.
	BlockDuration time.Duration
	// Retention is how long a local block is kept after its newest sample. A block that is not Shipped stays longer.
	Retention time.Duration
	// MaxBytes is how many bytes of the disk one tenant's blocks, head and logs may take. At the next cut the oldest
	// blocks beyond it are deleted, whatever Retention says. A block that is not Shipped stays. 0 = no bound.
	MaxBytes int64
	// Window (W) is how far behind the wall clock a sample may be.
	Window time.Duration
	// Future (F) is how far ahead of the wall clock a sample may be.
	Future time.Duration
	// MaxExemplars is the size of each tenant's exemplar ring; 0 keeps none. About 150 bytes each once used.
	MaxExemplars int64
	// Limits are the tenants' limits; nil = none. A window, a retention or a number of exemplars in them wins over the
	// options here.
	Limits tenant.LimitsOf
	// Share is the part of a tenant's series that this receiver stores, 0 to 1. Limits on numbers of series are for the
	// whole cluster, and this receiver keeps to its part of them. nil = 1. It must answer from memory.
	Share func(tenant.ID) float64
	// MaxTenants is how many tenants there may be. A write for one more is refused (Limited). 0 = no bound.
	MaxTenants int
	// MaxMetadata is the number of metric families per tenant whose metadata is kept; 0 keeps none.
	MaxMetadata int
	// OutOfOrderCap is how many samples an out-of-order chunk holds; 0 = the library's 32.
	OutOfOrderCap int64
	// Adopt takes over directories that Hearth did not make, if they have thanos.shipper.json or wal/, as those of a
	// Thanos receiver do. Without it they are left alone, and their tenants cannot be written to.
	Adopt bool
	// NoLock takes no lock on Dir, for file systems without locks. You must then make sure that no other process uses
	// Dir.
	NoLock bool
	// StripeSize is the number of locks over a tenant's series, a power of two; 0 = by the number of tenants. A lock
	// takes 250 bytes. Few locks make an almost empty tenant cheap; BenchmarkAppend shows what a large tenant loses by
	// that.
	StripeSize int
	// WALCompression is for new records of the WAL and the WBL; records of any compression are read. None takes 1.5
	// times the disk that Snappy takes.
	WALCompression compression.Type
	// Shipped reports whether a block is safe in the bucket; nil means that there is no bucket, and Retention alone
	// decides. It must answer from memory.
	Shipped func(tenant.ID, ulid.ULID) bool
	// Settled reports whether a block has been in the bucket long enough for those who serve the bucket to know it; nil
	// = every block that is Shipped. A block that is older than Retention when it is shipped would be served by nobody
	// otherwise, until somebody looks at the bucket. It must answer from memory.
	Settled func(tenant.ID, ulid.ULID) bool
	// IdleTimeout is the time without a write after which a tenant is cut and, once its blocks are shipped, closed; 0 =
	// never.
	IdleTimeout time.Duration
	// OpenConcurrency is the number of tenants opened at a time. Each replays its WAL, which needs memory and a CPU.
	OpenConcurrency int
	// CutConcurrency is the number of heads cut at a time by the scheduler and by Cut.
	CutConcurrency int
	// Tick is how often the scheduler looks at every tenant.
	Tick time.Duration
	// RetryBroken is the time after which a tenant that could not be opened, or whose log could not be written, is
	// opened again. It doubles with each attempt, up to 2 minutes. A request for the tenant may have it opened sooner.
	RetryBroken time.Duration
	// TenantMetrics names the library metrics that are exposed per tenant (label tenant).
	TenantMetrics []string
	// MinFree is how many bytes of the disk stay free. With less, writes are refused (Exhausted), so that heads can
	// still be cut and logs repaired. 0 chooses by the size of the disk: a twentieth, from 640 MiB to 1 GiB, but at most
	// a quarter.
	MinFree int64
	// Instance, Role and Since are what Info says of this process.
	Instance, Role string
	Since          time.Time
	// Now is the wall clock.
	Now func() time.Time
}

// DefaultOptions are the options of a receiver that keeps its data in ./data.
func DefaultOptions() Options {
	return Options{
		Dir:             "./data",
		BlockDuration:   2 * time.Hour,
		Retention:       15 * 24 * time.Hour,
		Window:          3 * time.Hour,
		Future:          10 * time.Minute,
		MaxExemplars:    100,
		MaxMetadata:     10_000,
		WALCompression:  compression.Snappy,
		IdleTimeout:     6 * time.Hour,
		OpenConcurrency: 4,
		CutConcurrency:  2,
		Tick:            15 * time.Second,
		RetryBroken:     30 * time.Second,
		TenantMetrics:   defaultTenantMetrics,
		Role:            series.RoleReceive,
		Now:             time.Now,
	}
}

// Validate reports every fault of o.
func (o Options) Validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(o.Dir == "", "tsdb directory: must not be empty")
	fault(o.BlockDuration < time.Second, "block duration %s: must be at least 1s", o.BlockDuration)
	fault(o.Retention <= 0, "retention %s: must be positive", o.Retention)
	fault(o.MaxBytes < 0, "max bytes %d: must not be negative", o.MaxBytes)
	fault(o.OutOfOrderCap < 0 || o.OutOfOrderCap > 255,
		"out-of-order chunk of %d samples: must be 0 to 255", o.OutOfOrderCap)
	fault(o.Window <= 0, "out-of-order window %s: must be positive", o.Window)
	fault(o.Future < 0, "future window %s: must not be negative", o.Future)
	fault(o.MaxTenants < 0, "max tenants %d: must not be negative", o.MaxTenants)
	fault(o.MaxExemplars < 0, "max exemplars %d: must not be negative", o.MaxExemplars)
	fault(o.MaxMetadata < 0, "max metadata %d: must not be negative", o.MaxMetadata)
	fault(o.StripeSize < 0 || o.StripeSize&(o.StripeSize-1) != 0,
		"stripe size %d: must be a power of two", o.StripeSize)
	fault(o.IdleTimeout < 0, "idle timeout %s: must not be negative", o.IdleTimeout)
	fault(o.OpenConcurrency < 1, "open concurrency %d: must be at least 1", o.OpenConcurrency)
	fault(o.CutConcurrency < 1, "cut concurrency %d: must be at least 1", o.CutConcurrency)
	fault(o.Tick <= 0, "tick %s: must be positive", o.Tick)
	fault(o.RetryBroken <= 0, "retry of broken tenants %s: must be positive", o.RetryBroken)
	fault(o.MinFree < 0, "minimum of free disk %d: must not be negative", o.MinFree)
	fault(o.Now == nil, "clock: must be set")
	return errors.Join(faults...)
}
