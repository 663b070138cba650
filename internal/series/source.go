package series

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Source is anything that series can be selected from. It is safe for concurrent use. Errors carry an errs.Kind:
// Limited and TooLarge are final, Unavailable means that the source did not answer and the result is incomplete.
type Source interface {
	// Select returns the series that r asks for. Errors come by Set.Err; Close ends the work, also before the end.
	Select(ctx context.Context, r *Request) Set
	// LabelNames returns the sorted names of labels on series that r's range and matchers select.
	LabelNames(ctx context.Context, r *Request) ([]string, Warnings, error)
	// LabelValues returns the sorted values of label name on series that r's range and matchers select.
	LabelValues(ctx context.Context, name string, r *Request) ([]string, Warnings, error)
	// Info says what the source holds now. It is cheap: callers ask every few seconds.
	Info(ctx context.Context) (Info, error)
}

// ExemplarSource is a Source that also keeps exemplars.
type ExemplarSource interface {
	// Exemplars returns the exemplars of tenant id within [mint, maxt] (ms, inclusive) whose series match any of the
	// matcher sets, in label order.
	Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult,
		Warnings, error)
}

// MetadataSource is a Source that also knows what senders said of metric families.
type MetadataSource interface {
	// Metadata returns tenant id's metadata by family; family "" means all, limit 0 any number of families.
	Metadata(ctx context.Context, id tenant.ID, family string, limit int) (map[string][]metadata.Metadata, Warnings, error)
}

// Request is what is asked of a Source. A Source may return more chunks than the time range needs, never fewer, and may
// ignore Hints, Shard only if it says so in Info. It must honour everything else. It must not change the Request:
// sources that hand Matchers to Prometheus's index copy them before, since that sorts them in place.
type Request struct {
	// Tenant is whose series. A query over several tenants is several requests.
	Tenant tenant.ID
	// MinTime and MaxTime are Unix ms, both inclusive.
	MinTime, MaxTime int64
	Matchers         []*labels.Matcher
	// WithoutLabels are label names removed from every series; the result is sorted without them, and series that
	// become equal are one series.
	WithoutLabels []string
	// Aggregates are what of a downsampled chunk is wanted; empty = all of them. Raw chunks are always whole.
	Aggregates []Aggregate
	// MaxResolution is the coarsest resolution in ms that may be returned; 0 = raw only.
	MaxResolution int64
	// SkipChunks asks for labels only.
	SkipChunks bool
	// Limit bounds the number of series, or label names or values; 0 = all.
	Limit int
	Shard Shard
	Hints Hints
}

// Shard selects the series whose labels' StableHash modulo Count is Index; Count 0 means all.
type Shard struct{ Index, Count uint64 }

// Hints say what the selection is for; a source may use them to do less. Times are ms.
type Hints struct {
	Step, Range int64
	Func        string
	Grouping    []string
	By          bool
}

// Info is what a Source says of itself.
type Info struct {
	// Instance is the Hearth instance id, "" for a foreign store. Two sources with one instance id and role are one.
	Instance string
	// Role is the Thanos component name: receive, store, sidecar, query, rule.
	Role string
	// MinTime and MaxTime (ms, inclusive) bound what it holds, for all tenants; MinTime > MaxTime means nothing.
	MinTime, MaxTime int64
	// Since is when the data of this incarnation began (ring.Incarnation); zero when not known.
	Since time.Time
	// Blocks are those that a store gateway answers for; zero for every other source.
	Blocks Holding
	// Tenants are all tenants it holds data of, sorted; nil when the source does not say, and must then be asked.
	Tenants []tenant.ID
	// Labels are the external label sets of its streams, as Thanos shows them. Empty when it has none.
	Labels []labels.Labels
	// ReplicationFactor is the RF it knows its ring to have; 0 when not known.
	ReplicationFactor int
}

// Identity is whose data an answer is from: a receiver, with the disk that it has now.
type Identity struct {
	// Instance is the Hearth instance id, "" when it is not known.
	Instance string
	// Since is when the data on its disk began (ring.Incarnation): a receiver that lost its disk has another one.
	Since time.Time
}

// Identified is a Source that holds data of its own. Its identity does not change while the process lives.
type Identified interface {
	Identity() Identity
}

// Covers reports whether the source can hold samples of tenant id in [mint, maxt].
func (i Info) Covers(id tenant.ID, mint, maxt int64) bool {
	if i.MinTime > maxt || i.MaxTime < mint {
		return false
	}
	if i.Tenants == nil {
		return true
	}
	_, found := slices.BinarySearch(i.Tenants, id)
	return found
}

// Warnings are texts for the person who asked: an answer with any of them may be incomplete.
type Warnings []string

// Set iterates over the series of a Select. It is not safe for concurrent use.
type Set interface {
	// Next advances; false at the end and after an error.
	Next() bool
	// At is the current series. It is valid until Close, and must not be changed.
	At() Series
	// Err is the error that ended the set early, with an errs.Kind.
	Err() error
	// Warnings are complete once Next has returned false.
	Warnings() Warnings
	// Close frees what the set holds. It is idempotent. Strings and chunk bytes that came from the set must not be used
	// afterwards.
	Close() error
}

// Series is one series with its chunks, or without them for Request.SkipChunks.
type Series struct {
	Labels labels.Labels
	// Chunks are in (MinTime, MaxTime) order; they may overlap, and equal chunks may occur twice (replicas).
	Chunks []Chunk
}

// Chunk is an encoded run of samples, raw or aggregated. MinTime and MaxTime are of its first and last sample, ms.
type Chunk struct {
	MinTime, MaxTime int64
	// Raw is set for a raw chunk, Aggr for a downsampled one.
	Raw  Encoded
	Aggr *AggrChunks
}

// Encoded is chunk bytes as the TSDB writes them.
type Encoded struct {
	Encoding chunkenc.Encoding // EncNone = absent
	Data     []byte
}

// Aggregate is a kind of downsampled chunk. The numbers are Thanos's, minus one.
type Aggregate uint8

// The aggregates, in the order in which a downsampled chunk stores them.
const (
	Count Aggregate = iota
	Sum
	Min
	Max
	Counter
	NumAggregates
)

// AggrChunks is a downsampled chunk: one optional encoded chunk per Aggregate.
type AggrChunks [NumAggregates]Encoded
