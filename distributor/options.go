package distributor

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options configure a Distributor. Use DefaultOptions as a start: zero values are refused unless said otherwise.
type Options struct {
	// Resolver finds the tenant of a request. The zero value reads the well-known headers.
	Resolver tenant.Resolver
	// Limits are what the tenants may send; nil = there are none.
	Limits tenant.LimitsOf
	// Distributors is how many live processes take writes, this one included. It is asked for each request. A tenant's
	// samples_per_second are divided by it, as senders are expected to spread their requests evenly. nil = one.
	Distributors func() int

	// SplitLabel is a label that names the tenant of a series and is taken off it; "" = none. A series without it belongs
	// to the tenant of the request.
	SplitLabel string
	// Relabel are rules that every series passes before anything else is done with it. A request whose series they all
	// drop is a success. nil = none. SetRelabel changes them.
	Relabel []*relabel.Config

	// Refusal is why a tenant takes no writes at all, such as one that is to be deleted; nil = it takes some. It is asked
	// for each request and tenant. Without it members refuse by themselves.
	Refusal func(tenant.ID) error

	// HA is for tenants whose samples come from HA pairs.
	HA HAOptions

	// WriteTimeout bounds one write to one member, and so how long a client waits for its answer. It should be below the
	// senders' remote-write timeout (30s by default).
	WriteTimeout time.Duration
	// ThanosRF2 acknowledges a write with replication factor 2 after one replica has it, as Thanos does. Without it both
	// replicas must have the write. With it acknowledged samples are lost when that one replica is lost.
	ThanosRF2 bool

	// MaxBody and MaxDecoded bound one request's body in bytes, as sent and decompressed.
	MaxBody, MaxDecoded int64
	// MaxRequests and MaxRequestBytes bound the requests being worked on, from the end of their bodies on, and the memory
	// that requests take: bodies as they come and decompressed, and the series that they are decoded to. A further request
	// is refused with 503, and a request that alone takes more than MaxRequestBytes with 413. RequestMemory gives a good
	// value.
	MaxRequests     int
	MaxRequestBytes int64

	// KnownSeries is how many series a cache holds. It saves most of the decoding of series that are sent again. Each
	// takes about 100 bytes.
	KnownSeries int

	// MemberConcurrency is how many writes of one tenant to one member run at a time. All tenants together may have 8
	// times as many.
	MemberConcurrency int
	// MemberBatches and MemberBytes bound what is kept in memory for one member after the requests were answered: shards
	// queued, being written and waiting for a further try. Over them the oldest shard of the tenant that takes most of
	// them is dropped.
	MemberBatches int
	MemberBytes   int64

	// RetryAge is how long a shard of an acknowledged write that a member lacks is tried again before it is dropped.
	RetryAge time.Duration
	// RetryMin and RetryMax bound the time between two tries; it doubles with each failure.
	RetryMin, RetryMax time.Duration
}

// DefaultOptions are good for a cluster of any size.
func DefaultOptions() Options {
	return Options{
		HA:                DefaultHAOptions(),
		WriteTimeout:      10 * time.Second,
		MaxBody:           32 << 20,
		MaxDecoded:        128 << 20,
		MaxRequests:       512,
		MaxRequestBytes:   512 << 20,
		KnownSeries:       4 << 20,
		MemberConcurrency: 8,
		MemberBatches:     2048,
		MemberBytes:       128 << 20,
		RetryAge:          5 * time.Minute,
		RetryMin:          100 * time.Millisecond,
		RetryMax:          5 * time.Second,
	}
}

// Validate reports every fault of o.
func (o Options) Validate() error {
	var faults []error
	positive := func(name string, value int64) {
		if value <= 0 {
			faults = append(faults, fmt.Errorf("%s %d: must be positive", name, value))
		}
	}
	duration := func(name string, value time.Duration) {
		if value <= 0 {
			faults = append(faults, fmt.Errorf("%s %s: must be positive", name, value))
		}
	}
	duration("write timeout", o.WriteTimeout)
	positive("maximum body", o.MaxBody)
	positive("maximum decoded body", o.MaxDecoded)
	positive("maximum requests", int64(o.MaxRequests))
	positive("maximum request bytes", o.MaxRequestBytes)
	positive("known series", int64(o.KnownSeries))
	positive("member concurrency", int64(o.MemberConcurrency))
	positive("member batches", int64(o.MemberBatches))
	positive("member bytes", o.MemberBytes)
	duration("retry age", o.RetryAge)
	duration("retry minimum", o.RetryMin)
	if o.RetryMax < o.RetryMin {
		faults = append(faults, fmt.Errorf("retry maximum %s: is below the minimum %s", o.RetryMax, o.RetryMin))
	}
	if l := o.SplitLabel; l != "" && (l == "__name__" || !model.UTF8Validation.IsValidLabelName(l)) {
		faults = append(faults, fmt.Errorf("label %q cannot name the tenant of series", o.SplitLabel))
	}
	return errors.Join(append(faults, o.HA.Validate())...)
}
