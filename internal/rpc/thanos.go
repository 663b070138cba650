package rpc

import (
	"context"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Thanos callers know tenants and replicas only as labels. For them each stream of each granted tenant is a store of
// its own. Its external labels are labels of its series, and replace labels of the same name.

// stream is one tenant's stream of a source.
type stream struct {
	tenant tenant.ID
	series.Stream
}

// streams returns the streams of src that g grants. A tenant that is granted by name has its stream whether or not src
// claims to hold the tenant: a querier does not know what an endpoint holds that is down, and reports it when it is
// queried.
func (st *Store) streams(ctx context.Context, src series.Source, g grant) ([]stream, error) {
	if !g.all {
		return st.streamsFor(src, g.tenants), nil
	}
	info, err := src.Info(ctx)
	if err != nil {
		return nil, err
	}
	return st.streamsFor(src, g.among(info.Tenants)), nil
}

// streamsFor are the streams of some tenants in a source.
func (st *Store) streamsFor(src series.Source, ids []tenant.ID) []stream {
	var out []stream
	streamer, many := src.(series.Streamer)
	for _, id := range ids {
		if !many {
			out = append(out, stream{id, series.Stream{External: st.external(id), Source: src}})
			continue
		}
		for _, s := range streamer.Streams(id) {
			out = append(out, stream{id, s})
		}
	}
	return out
}

// orEverything is matchers, or one that matches each series: a source is not asked for series without a matcher.
func orEverything(matchers []*labels.Matcher) []*labels.Matcher {
	if len(matchers) == 0 {
		return []*labels.Matcher{series.Everything}
	}
	return matchers
}

// sharder decides which series belong to a Thanos query shard; nil means all of them.
type sharder struct {
	index, total uint64
	by           bool
	names        []string
	buf          []byte
}

func newSharder(in *thanospb.ShardInfo) (*sharder, error) {
	if in.GetTotalShards() < 1 {
		return nil, nil
	}
	if in.ShardIndex < 0 || in.ShardIndex >= in.TotalShards {
		return nil, errs.E(errs.Invalid, "shard %d of %d does not exist", in.ShardIndex, in.TotalShards)
	}
	return &sharder{index: uint64(in.ShardIndex), total: uint64(in.TotalShards), by: in.By, names: in.Labels}, nil
}

// has reports whether the shard has the series. The hash is Thanos's: of the labels named, or of those not named, each
// as name 0xff value 0xff.
func (s *sharder) has(ls labels.Labels) bool {
	if s == nil {
		return true
	}
	s.buf = s.buf[:0]
	ls.Range(func(l labels.Label) {
		if slices.Contains(s.names, l.Name) == s.by {
			s.buf = append(append(append(append(s.buf, l.Name...), 0xff), l.Value...), 0xff)
		}
	})
	return xxhash.Sum64(s.buf)%s.total == s.index
}

// plain reports whether the shard is series.Shard's: a hash of all labels.
func (s *sharder) plain() bool { return s != nil && !s.by && len(s.names) == 0 }

// partialSet is a set whose error becomes a warning, for callers that want partial responses, unless absorb keeps it
// as an error.
type partialSet struct{ series.Set }

func (f partialSet) Err() error { return absorb(f.Set.Err(), true, new(series.Warnings)) }

func (f partialSet) Warnings() series.Warnings {
	warnings := slices.Clip(f.Set.Warnings())
	_ = absorb(f.Set.Err(), true, &warnings) // Err has it
	return warnings
}
