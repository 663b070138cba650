package store

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// snapshot holds the blocks that are served between two syncs. It does not change.
type snapshot struct {
	blocks  map[ulid.ULID]*bucketBlock
	tenants map[tenant.ID]*tenantBlocks
	// sources are the ids of blocks whose samples are served: by the block itself, or by a compacted raw one.
	sources map[ulid.ULID]bool
	// unread are blocks whose meta.json the bucket did not deliver, or whose meta.json is faulty. Any tenant may own them.
	unread []missing
	info   series.Info
}

// tenantBlocks is one tenant's part of a snapshot.
type tenantBlocks struct {
	streams []*stream // ordered by external labels
	missing []missing
}

// stream is the blocks of one set of external labels.
type stream struct {
	external labels.Labels
	// added are the external labels without those of tenant and replica. Hearth's callers see them on every series.
	added  labels.Labels
	blocks []*bucketBlock
}

// missing is a block that should be served and cannot be: answers about its time say so.
type missing struct {
	id         ulid.ULID
	mint, maxt int64 // maxt excluded
	err        error
}

func (m missing) warning() string { return fmt.Sprintf("block %s cannot be read: %v", m.id, m.err) }

// latest is how much younger than a block's id its samples may be, in ms. A block is made when its time range is over.
const latest = int64(3 * time.Hour / time.Millisecond)

// uploading is for how long after a block was made a faulty meta.json is taken for one that is being written: buckets
// that are directories show objects before they are whole. Until then the process that uploads the block still has
// it.
const uploading = 10 * time.Minute

// unread lists the blocks of v, seen at now, whose meta.json the bucket did not deliver or whose meta.json is faulty,
// in order. The latter are listed until somebody repairs them or marks them for deletion. A directory without a
// meta.json is no block.
func unread(v block.View, now time.Time) (out []missing) {
	for id, err := range v.Partial {
		_, deleted := v.Deletions[id]
		switch kind := errs.KindOf(err); {
		case kind == errs.Unavailable:
			out = append(out, missing{id, math.MinInt64, math.MaxInt64, err})
		case kind == errs.Invalid && !deleted && now.Sub(id.Timestamp()) >= uploading:
			out = append(out, missing{id, math.MinInt64, int64(id.Time()) + latest, err})
		}
	}
	slices.SortFunc(out, func(a, b missing) int { return a.id.Compare(b.id) })
	return out
}

// warnings name the blocks that should have answered tenant id for [mint, maxt].
func (s *snapshot) warnings(id tenant.ID, mint, maxt int64) (out series.Warnings) {
	all := s.unread
	if t := s.tenants[id]; t != nil {
		all = slices.Concat(all, t.missing)
	}
	for _, m := range all {
		if m.mint <= maxt && m.maxt > mint {
			out = append(out, m.warning())
		}
	}
	return out
}

// newSnapshot groups the blocks, which are in order of time, and the failed ones, of a bucket that looks like v.
func newSnapshot(v block.View, blocks []*bucketBlock, failed map[*block.Meta]failed, opts Options) *snapshot {
	s := &snapshot{
		blocks: map[ulid.ULID]*bucketBlock{}, tenants: map[tenant.ID]*tenantBlocks{}, unread: unread(v, opts.Now()),
		info: series.Info{Instance: opts.Instance, Role: series.RoleStore, MinTime: math.MaxInt64, MaxTime: math.MinInt64},
	}
	byLabels := map[string]*stream{}
	var metas []*block.Meta
	for _, b := range blocks {
		s.blocks[b.meta.ULID] = b
		metas = append(metas, b.meta)
		s.info.MinTime, s.info.MaxTime = min(s.info.MinTime, b.meta.MinTime), max(s.info.MaxTime, b.meta.MaxTime-1)
		key := string(b.tenant) + "\xff" + b.external.String()
		if byLabels[key] == nil {
			added := labels.NewBuilder(b.external).Del(opts.TenantLabel, opts.ReplicaLabel).Labels()
			byLabels[key] = &stream{external: b.external, added: added}
			t := s.tenant(b.tenant)
			t.streams = append(t.streams, byLabels[key])
			if !b.external.IsEmpty() {
				s.info.Labels = append(s.info.Labels, b.external)
			}
		}
		byLabels[key].blocks = append(byLabels[key].blocks, b)
	}
	s.sources = v.SourcesOf(metas)
	for m, f := range failed {
		if f.tenant != "" {
			t := s.tenant(f.tenant)
			t.missing = append(t.missing, missing{m.ULID, m.MinTime, m.MaxTime, f.err})
		}
	}
	for _, t := range s.tenants {
		slices.SortFunc(t.streams, func(a, b *stream) int { return labels.Compare(a.external, b.external) })
		slices.SortFunc(t.missing, func(a, b missing) int { return a.id.Compare(b.id) })
	}
	slices.SortFunc(s.info.Labels, labels.Compare)
	s.info.Tenants = slices.Sorted(maps.Keys(s.tenants))
	return s
}

func (s *snapshot) tenant(id tenant.ID) *tenantBlocks {
	if s.tenants[id] == nil {
		s.tenants[id] = &tenantBlocks{}
	}
	return s.tenants[id]
}

// piece is the part of a block that answers a request. nil windows mean the whole block.
type piece struct {
	b       *bucketBlock
	windows []window
}

// pieces chooses the blocks of streams that are replicas of each other for r.
func pieces(replicas []*stream, r *series.Request) []piece {
	var out []piece
	var extents []extent
	for i, st := range replicas {
		for _, b := range st.blocks {
			m := b.meta
			if m.MinTime > r.MaxTime || m.MaxTime <= r.MinTime || b.resolution() > r.MaxResolution {
				continue
			}
			out = append(out, piece{b: b})
			extents = append(extents, extent{i, b.resolution(), m.MinTime, m.MaxTime})
		}
	}
	if r.MaxResolution <= 0 {
		return out
	}
	for i, ws := range cover(extents, r.MaxResolution, fitting(r)) {
		out[i].windows = ws
	}
	return slices.DeleteFunc(out, func(p piece) bool { return len(p.windows) == 0 })
}
