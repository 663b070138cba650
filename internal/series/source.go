package series

import (
	"context"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Source is anything that series can be selected from. It is safe for concurrent use. Errors have an errs.Kind: after
// Limited and TooLarge the same request fails again; Unavailable means that the source did not respond, so the result
// is incomplete.
type Source interface {
	// Select returns the series that r asks for. Set.Err has its errors. Set.Close ends the work early; without it the
	// source keeps memory and goroutines.
	Select(ctx context.Context, r *Request) Set
	// LabelNames returns the sorted names of the labels of series that the range and matchers of r select.
	LabelNames(ctx context.Context, r *Request) ([]string, Warnings, error)
	// LabelValues returns the sorted values of label name of series that the range and matchers of r select.
	LabelValues(ctx context.Context, name string, r *Request) ([]string, Warnings, error)
	// Info says what the source holds now. It must be cheap, because callers call it every few seconds.
	Info(ctx context.Context) (Info, error)
}

// ExemplarSource is a Source that also keeps exemplars.
type ExemplarSource interface {
	// Exemplars returns the exemplars of tenant id within [mint, maxt] (ms, inclusive) whose series match at least one of
	// the matcher sets, in label order.
	Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult,
		Warnings, error)
}

// MetadataSource is a Source that also keeps the metadata of metric families, as senders wrote it.
type MetadataSource interface {
	// Metadata returns the metadata of tenant id by family. Family "" means all families. limit bounds the number of
	// families; 0 means all.
	Metadata(ctx context.Context, id tenant.ID, family string, limit int) (map[string][]metadata.Metadata, Warnings, error)
}

// Request says which series a caller wants from a Source. A Source may return more chunks than the time range needs,
// never fewer, and it may ignore Hints. It must honour everything else.
//
// It must not change the Request, which other sources read at the same time. The index of Prometheus sorts matchers in
// place, so a source passes it a copy of Matchers.
type Request struct {
	// Tenant is the tenant that the series belong to. A query over several tenants makes several requests.
	Tenant tenant.ID
	// MinTime and MaxTime are Unix ms, both inclusive.
	MinTime, MaxTime int64
	Matchers         []*labels.Matcher
	// WithoutLabels are names of labels that are removed from every series. The result is sorted without them, and series
	// that become equal become one series.
	WithoutLabels []string
	// Aggregates are the wanted aggregates of downsampled chunks; empty = all of them. Raw chunks are always whole.
	Aggregates []Aggregate
	// MaxResolution is the coarsest resolution in ms that may be returned; 0 = raw only.
	MaxResolution int64
	// SkipChunks asks for labels only.
	SkipChunks bool
	// Limit bounds the number of series, or label names or values; 0 = all.
	Limit  int
	Shard  Shard
	Hints  Hints
	Blocks BlockRequest
}

// BlockRequest says which blocks of its bucket a store gateway shall serve, of those that the tenant, the range and the
// resolution need. The zero value asks for all blocks that the gateway owns. Sources without blocks ignore it.
type BlockRequest struct {
	// View is the newest state of the bucket that the caller heard of. A gateway that is behind loads it first, for a
	// bounded time, and then responds from the newest state that it has.
	View View
	// Primary asks only for blocks of which this gateway is the first live owner, so that each block is read once though
	// all gateways are asked. Only does not depend on it.
	Primary bool
	// Only, if it is not nil, asks for exactly these blocks, owned by the gateway or not. The gateway serves those that it
	// has, also those that its view does not need any more, and says which in its Coverage. At most MaxOnlyBlocks.
	Only []ulid.ULID
	// Matchers, on the external labels of a block and its id (block.IDLabel), choose among the blocks that are served to a
	// caller that asks neither for Primary nor for Only. Callers of Thanos's StoreAPI have them; Hearth's own do not.
	Matchers []*labels.Matcher
}

// MaxOnlyBlocks is how many blocks BlockRequest.Only may name. As many can be named in a Coverage.
const MaxOnlyBlocks = 1000

// Shard selects the series whose labels' StableHash modulo Count is Index; Count 0 means all.
type Shard struct{ Index, Count uint64 }

// Has reports whether a series with labels ls is in the shard.
func (s Shard) Has(ls labels.Labels) bool {
	return s.Count == 0 || labels.StableHash(ls)%s.Count == s.Index
}

// Hints say what the selection is for, in the words of storage.SelectHints. A source may use them to do less work.
// Times are ms.
type Hints struct {
	Step, Range int64
	Func        string
	Grouping    []string
	By          bool
}

// Info describes a Source.
type Info struct {
	// Instance is the Hearth instance id, "" for a foreign store. Two sources with the same instance id and role are the
	// same source, and only one of them is asked.
	Instance string
	// Role is the name of the component, one of the Role constants, or a name that a foreign store gives itself.
	Role string
	// MinTime and MaxTime (ms, inclusive) bound the samples that it holds, of all tenants. MinTime > MaxTime means that it
	// holds none.
	MinTime, MaxTime int64
	// Since is the time when the data of this incarnation began (ring.Incarnation); zero when not known.
	Since time.Time
	// Blocks are the blocks that a store gateway serves; zero for every other source.
	Blocks Holding
	// Tenants are all tenants that it holds data of, sorted. nil means that the source does not say. It must then be asked
	// for every tenant.
	Tenants []tenant.ID
	// Labels are the external label sets of its streams, as Thanos shows them; empty when it has none.
	Labels []labels.Labels
	// ReplicationFactor is the RF of its ring; 0 when not known.
	ReplicationFactor int
}

// Identity says whose data a response has: those of a receiver, with the disk that it has now.
type Identity struct {
	// Instance is the Hearth instance id, "" when it is not known.
	Instance string
	// Since is the time when the data on its disk began (ring.Incarnation). A receiver that lost its disk has another one.
	Since time.Time
}

// Identified is a Source that holds data of its own. Its identity does not change while the process runs.
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

// Warnings are texts for the person who sent the query. An answer with warnings may be incomplete.
type Warnings []string

// Set iterates over the series of a Select. It is not safe for concurrent use.
type Set interface {
	// Next moves to the next series. It is false at the end and after an error.
	Next() bool
	// At is the current series. It is valid until Close. The caller must not change it.
	At() Series
	// Err is the error that ended the set early, with an errs.Kind.
	Err() error
	// Warnings returns the warnings so far. They are complete once Next has returned false.
	Warnings() Warnings
	// Close frees what the set holds. A second Close does nothing. After Close the caller must not use strings or chunk
	// bytes of the set: their memory may have been reused or unmapped.
	Close() error
}

// Series is one series with its chunks, or without them for Request.SkipChunks.
type Series struct {
	Labels labels.Labels
	// Chunks are in (MinTime, MaxTime) order. They may overlap, and chunks of replicas may be equal.
	Chunks []Chunk
}

// ChunkBytes is the number of bytes in the chunks of s.
func (s Series) ChunkBytes() (n int) {
	for i := range s.Chunks {
		n += len(s.Chunks[i].Raw.Data)
		if aggr := s.Chunks[i].Aggr; aggr != nil {
			for a := range aggr {
				n += len(aggr[a].Data)
			}
		}
	}
	return n
}

// Chunk is an encoded run of samples, raw or downsampled. MinTime and MaxTime are the times of its first and last
// sample in ms.
type Chunk struct {
	MinTime, MaxTime int64
	// Raw is set for a raw chunk, Aggr for a downsampled one.
	Raw  Encoded
	Aggr *AggrChunks
}

// Encoded is the bytes of a chunk as the TSDB writes them.
type Encoded struct {
	Encoding chunkenc.Encoding // EncNone = absent
	Data     []byte
}

// Aggregate is one of the values that a downsampled chunk has for each window. The numbers are those of Thanos's Aggr
// minus one.
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
