package plan

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// stream is the blocks whose samples end up in the same blocks: of one tenant and resolution, equal in all external
// labels but those of replicas and HA pairs.
type stream struct {
	tenant     string
	labels     map[string]string // without those of replicas and HA pairs
	key        string            // stands for labels
	resolution int64
	blocks     []*block.Meta // in order of MinTime, then of id
	units      []*unit
	finer      []*stream // the same at finer resolutions
}

// unit is blocks that overlap in time, directly or by others between them.
type unit struct {
	mint, maxt int64
	blocks     []*block.Meta
	noCompact  bool // one of them is not to be compacted
	failed     bool // the compaction of one failed
	erase      bool // samples are to be deleted of one first
	waits      string
	busy       bool // a job has it
}

// removes are the labels that the outputs of a bucket lack.
func (s *Settings) removes() []string {
	names := slices.Clone(s.DedupLabels)
	if s.Owner.ReplicaLabel != "" {
		names = append(names, s.Owner.ReplicaLabel)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool {
		return name == s.Owner.TenantLabel // it tells tenants apart, whatever a flag says
	})
}

// streams groups blocks. Keys are made once for each set of labels, which many blocks share.
func streams(metas []*block.Meta, s *Settings) []*stream {
	removed, all := s.removes(), map[place]*stream{}
	keys := keyCache{}
	for _, m := range metas {
		key := keys.of(m.Thanos.Labels, removed)
		at := place{key, m.Thanos.Downsample.Resolution}
		st := all[at]
		if st == nil {
			labels := maps.Clone(m.Thanos.Labels)
			maps.DeleteFunc(labels, func(name, _ string) bool { return slices.Contains(removed, name) })
			st = &stream{tenant: s.tenantOf(m), labels: labels, key: key, resolution: at.resolution}
			all[at] = st
		}
		st.blocks = append(st.blocks, m)
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *stream) int {
		return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.resolution, b.resolution))
	})
}

// tenantOf is whose m is, "" if nobody's.
func (s *Settings) tenantOf(m *block.Meta) string { return m.Thanos.Labels[s.Owner.TenantLabel] }

// keyCache has the key of each set of labels, by the map itself: blocks of a view share their maps.
type keyCache map[uintptr]string

// of is the key of labels without those that are removed.
func (c keyCache) of(labels map[string]string, removed []string) string {
	at := reflect.ValueOf(labels).Pointer()
	key, ok := c[at]
	if ok {
		return key
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if slices.Contains(removed, name) {
			continue
		}
		for _, s := range []string{name, labels[name]} {
			b.WriteString(strconv.Itoa(len(s)))
			b.WriteByte(':')
			b.WriteString(s)
		}
	}
	c[at] = b.String()
	return c[at]
}

// split makes the units of a stream, in order.
func (st *stream) split(noCompact map[ulid.ULID]block.NoCompactMark, erase map[ulid.ULID]ulid.ULID) {
	for _, m := range st.blocks {
		var u *unit
		if n := len(st.units); n > 0 && m.MinTime < st.units[n-1].maxt {
			u = st.units[n-1]
		} else {
			u = &unit{mint: m.MinTime, maxt: m.MaxTime}
			st.units = append(st.units, u)
		}
		u.maxt = max(u.maxt, m.MaxTime)
		u.blocks = append(u.blocks, m)
		_, marked := noCompact[m.ULID]
		u.noCompact = u.noCompact || marked
		u.failed = u.failed || m.Compaction.Failed
		if _, waits := erase[m.ULID]; waits {
			u.erase, u.waits = true, "samples that operators asked to delete are erased first"
		}
	}
}

// windows cuts units into those that lie wholly in each aligned window of a length. Units that reach over a border
// are left out.
func windows(units []*unit, length int64) (out [][]*unit) {
	for i := 0; i < len(units); {
		begin := floor(units[i].mint, length)
		if units[i].maxt > begin+length {
			i++
			continue
		}
		first := i
		for i < len(units) && units[i].maxt <= begin+length {
			i++
		}
		out = append(out, units[first:i])
	}
	return out
}

// floor is the largest multiple of length that is not above t.
func floor(t, length int64) int64 {
	begin := t - t%length
	if begin > t {
		begin -= length
	}
	return begin
}

// run is the first run of at least two units between those that are not to be compacted.
func run(units []*unit) []*unit {
	first := 0
	for i, u := range units {
		if !u.noCompact {
			continue
		}
		if i-first > 1 {
			return units[first:i]
		}
		first = i + 1
	}
	if len(units)-first > 1 {
		return units[first:]
	}
	return nil
}

// classes divides blocks by the parts of all series that they may have: as finely as no block is in two of them.
func classes(blocks []*block.Meta) map[block.Part][]*block.Meta {
	of := block.MaxParts
	for _, m := range blocks {
		of = min(of, m.Part().Of)
	}
	out := map[block.Part][]*block.Meta{}
	for _, m := range blocks {
		p := block.Part{Shard: m.Part().Shard % of, Of: of}
		out[p] = append(out[p], m)
	}
	return out
}

// inParts are the parts of classes, in order.
func inParts(classes map[block.Part][]*block.Meta) []block.Part {
	return slices.SortedFunc(maps.Keys(classes), func(a, b block.Part) int { return cmp.Compare(a.Shard, b.Shard) })
}
