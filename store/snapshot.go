package store

import (
	"errors"
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

// snapshot is what requests plan with between two syncs, or two states of the ring. It does not change.
type snapshot struct {
	view   block.View
	window span // blocks outside of it are left out (Options.Window)
	// contents are those of view, if the bucket has no id.
	contents series.Contents
	blocks   map[ulid.ULID]*bucketBlock // all that can be read
	planned  map[ulid.ULID]*planned     // all that requests may need, or others may ask for
	made     *sourceIndex               // of planned
	tenants  map[tenant.ID]*tenantBlocks
	owners   owners
	// unread are blocks whose meta.json the bucket did not deliver, or whose meta.json is faulty. Any tenant may own them,
	// unless the layout of the bucket says whose they are: then that tenant has them.
	unread []missing
	info   series.Info
	// sound says that each block could be read.
	sound bool
}

// tenantBlocks is one tenant's part of a snapshot.
type tenantBlocks struct {
	streams []*stream // ordered by external labels
	added   []labels.Labels
	missing []missing
	unread  []missing // see snapshot
}

// stream is the blocks of one set of external labels.
type stream struct {
	external labels.Labels
	// class is the place in tenantBlocks.added of the external labels without those of tenant and replica. Hearth's
	// callers see them on every series.
	class int
	// needed are the blocks that a complete answer needs. also are blocks that it does not need any more: replaced or
	// marked for deletion.
	needed, also timeline
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

// uploading is for how long after a block was made a faulty meta.json is taken for one that is being written: Thanos
// writes the objects of a FILESYSTEM bucket in place. Until then the process that uploads the block still has it.
const uploading = 10 * time.Minute

// unreadOf adds to the tenants the unread blocks whose directory says whose they are. It returns the others.
func (s *snapshot) unreadOf(all []missing) (others []missing) {
	for _, m := range all {
		var of block.OfTenant
		if errors.As(m.err, &of) {
			t := s.tenant(of.Tenant)
			t.unread = append(t.unread, m)
		} else {
			others = append(others, m)
		}
	}
	return others
}

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

// warnings name the blocks that should have answered r. A caller that hears which blocks were served learns there of
// those that are known and cannot be opened.
func (s *snapshot) warnings(r *series.Request) (out series.Warnings) {
	all := s.unread
	if t := s.tenants[r.Tenant]; t != nil {
		all = slices.Concat(all, t.unread)
		if s.owners.alone() || asksOf(r.Blocks).plain() {
			all = append(all, t.missing...)
		}
	}
	for _, m := range all {
		if m.mint <= r.MaxTime && m.maxt > r.MinTime {
			out = append(out, m.warning())
		}
	}
	return out
}

// assemble puts together what is known of each tenant: its families, and the blocks that cannot be read.
func (s *snapshot) assemble(families map[familyKey]*family, unread []missing, opts Options) {
	s.tenants = map[tenant.ID]*tenantBlocks{}
	s.info = series.Info{Instance: opts.Instance, Role: series.RoleStore, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	s.unread = s.unreadOf(unread)
	for _, f := range families {
		if len(f.blocks) == 0 {
			continue
		}
		s.info.MinTime, s.info.MaxTime = min(s.info.MinTime, f.span.mint), max(s.info.MaxTime, f.span.maxt)
		t := s.tenant(f.tenant)
		t.missing = append(t.missing, f.missing...)
		for _, st := range f.streams {
			own := *st // its class is of this snapshot
			t.streams = append(t.streams, &own)
			if !st.external.IsEmpty() {
				s.info.Labels = append(s.info.Labels, st.external)
			}
		}
	}
	for _, t := range s.tenants {
		slices.SortFunc(t.streams, func(a, b *stream) int { return labels.Compare(a.external, b.external) })
		slices.SortFunc(t.missing, func(a, b missing) int { return a.id.Compare(b.id) })
		classes := map[string]int{}
		for _, st := range t.streams {
			st.class = t.class(classes, st.external, opts)
		}
	}
	slices.SortFunc(s.info.Labels, labels.Compare)
	s.info.Tenants = slices.Sorted(maps.Keys(s.tenants))
}

func (s *snapshot) tenant(id tenant.ID) *tenantBlocks {
	if s.tenants[id] == nil {
		s.tenants[id] = &tenantBlocks{}
	}
	return s.tenants[id]
}

// class returns the place in t.added of the labels that external adds to series. classes are those that were given.
func (t *tenantBlocks) class(classes map[string]int, external labels.Labels, opts Options) int {
	added := labels.NewBuilder(external).Del(opts.TenantLabel, opts.ReplicaLabel).Labels()
	key := added.String()
	at, ok := classes[key]
	if !ok {
		at, t.added = len(t.added), append(t.added, added)
		classes[key] = at
	}
	return at
}
