package blocks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/oklog/ulid/v2"
)

// Plan says what a bucket holds. Start from DefaultPlan.
type Plan struct {
	// Seed makes the ids of blocks and the values of samples.
	Seed uint64
	// Blocks is how many small blocks there are; they are spread evenly over Tenants, back in time from End.
	Blocks  int
	Tenants int
	// Shape is the series of each small block.
	Shape Shape
	// Window is the time range of a small block.
	Window time.Duration
	// Interval is the time between two samples of a series.
	Interval time.Duration
	// End is where the newest blocks end. It must be a multiple of Window.
	End time.Time
	// Large is one more tenant with one block of each resolution; nil = none.
	Large *Large
}

// Large is a block that a compactor left, once raw and once for each downsampled resolution.
type Large struct {
	Shape    Shape
	Range    time.Duration
	Interval time.Duration
}

// LargeTenant owns the large blocks of a Plan. The tenants of small blocks are called by Tenant.
const LargeTenant = "large"

// DefaultPlan is 10,000 blocks of 200 series, two hours each, of 50 tenants.
func DefaultPlan() Plan {
	return Plan{
		Seed: 1, Blocks: 10_000, Tenants: 50, Shape: Shape{Metrics: 10, Namespaces: 4, Pods: 5},
		Window: 2 * time.Hour, Interval: time.Minute, End: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	}
}

// SeriesPerNamespace is how many series a namespace of LargeOf has.
const SeriesPerNamespace = largeMetrics * largePods

const largeMetrics, largePods = 20, 50

// LargeOf is 14 days of a number of series, a multiple of SeriesPerNamespace.
func LargeOf(series int) *Large {
	return &Large{Shape: Shape{Metrics: largeMetrics, Namespaces: series / SeriesPerNamespace, Pods: largePods},
		Range: 14 * 24 * time.Hour, Interval: 4 * time.Hour}
}

// Validate reports all that is wrong with p.
func (p Plan) Validate() error {
	var faults []error
	if p.Blocks < 0 || p.Tenants < 1 || p.Blocks%p.Tenants != 0 {
		faults = append(faults, fmt.Errorf("%d blocks of %d tenants: must be a multiple", p.Blocks, p.Tenants))
	}
	if p.Window <= 0 || p.End.UnixMilli()%max(1, p.Window.Milliseconds()) != 0 {
		faults = append(faults, fmt.Errorf("end %s: must be a multiple of %s", p.End, p.Window))
	}
	check := func(what string, s Shape, length, interval time.Duration) {
		if s.Metrics < 1 || s.Namespaces < 1 || s.Pods < 1 || s.Namespaces > 9999 || s.Pods > 999 || s.Metrics > 999 {
			faults = append(faults, fmt.Errorf("%s: metrics and pods must be 1 to 999, namespaces 1 to 9999", what))
		}
		if interval < time.Millisecond || interval > length {
			faults = append(faults, fmt.Errorf("%s: interval %s in blocks of %s", what, interval, length))
		}
	}
	check("small blocks", p.Shape, p.Window, p.Interval)
	if p.Large != nil {
		check("large block", p.Large.Shape, p.Large.Range, p.Large.Interval)
	}
	return errors.Join(faults...)
}

// Tenant is the name of tenant i.
func Tenant(i int) string { return fmt.Sprintf("tenant-%02d", i) }

// windows is how many small blocks each tenant has.
func (p Plan) windows() int { return p.Blocks / p.Tenants }

// span is a time range in ms, maxt excluded.
type span struct{ mint, maxt int64 }

// window is the time range of small block i of each tenant, counted from the oldest.
func (p Plan) window(i int) span {
	w := p.Window.Milliseconds()
	mint := p.End.UnixMilli() - int64(p.windows()-i)*w
	return span{mint, mint + w}
}

// Range is from the first to the last sample of all small blocks, in ms, both included.
func (p Plan) Range() (mint, maxt int64) {
	return p.window(0).mint, p.End.UnixMilli() - 1
}

// LastDay is the last day of Range, or all of it if that is less.
func (p Plan) LastDay() (mint, maxt int64) {
	mint, maxt = p.Range()
	return max(mint, maxt+1-24*time.Hour.Milliseconds()), maxt
}

// id of a block that ends at maxt; parts tell apart the blocks that end together.
func (p Plan) id(maxt int64, parts ...uint64) ulid.ULID {
	seed := uint64(maxt)
	for _, part := range parts {
		seed = seed*1_000_003 + part
	}
	r := rand.New(rand.NewPCG(p.Seed, seed))
	var id ulid.ULID
	if err := id.SetTime(uint64(maxt)); err != nil {
		panic("BUG: time of a block before 1970: " + err.Error())
	}
	var entropy [16]byte
	binary.BigEndian.PutUint64(entropy[:], r.Uint64())
	binary.BigEndian.PutUint64(entropy[8:], r.Uint64())
	copy(id[6:], entropy[:])
	return id
}
