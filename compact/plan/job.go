package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
)

// Kind is what a job is for.
type Kind string

// The kinds of jobs.
const (
	Unite      Kind = "unite"      // replicas of the smallest range become one
	Compact    Kind = "compact"    // blocks become one of a larger range, or late blocks become part of theirs
	Downsample Kind = "downsample" // one block is kept at coarser resolutions, too
	Erase      Kind = "erase"      // one block is made anew without samples that operators asked to delete
)

// Job makes outputs of inputs.
type Job struct {
	Kind Kind
	// Tenant is the value of the tenant's label, "" if the blocks have none.
	Tenant string
	// Stream are the external labels of the outputs. Nobody may change them.
	Stream map[string]string
	// Resolution is that of the inputs, in ms.
	Resolution int64
	// MinTime and MaxTime are the bounds of all inputs in ms, MaxTime excluded.
	MinTime, MaxTime int64
	// Inputs are sorted by MinTime, then by id.
	Inputs []*block.Meta
	// Part is the part of all series that the inputs and outputs together have. Parts is into how many parts all series
	// are split; the outputs of one resolution are those parts that Part contains.
	Part  block.Part
	Parts int
	// Outputs are in order of resolution, the coarsest first, then of parts. That is the order in which their meta.json
	// files are written: a block must not replace others before the coarser ones that were made with it are there.
	Outputs []Output
	// Removed are the names of labels that inputs have and outputs do not. Dedup are those of them that tell HA pairs
	// apart, if the inputs are to be merged by the algorithm for these.
	Removed, Dedup []string
	// Reason is for people.
	Reason string

	window int64 // the range that the job completes, in ms; it orders jobs
}

// Output is a block that a job makes, unless it has no series.
type Output struct {
	ID         ulid.ULID
	Resolution int64
	Part       block.Part
}

// idFormat is the version of what an id is made of.
const idFormat = "hearth job 1"

// identify sets the ids of the outputs. An id has the time of the newest input, and the first 10 bytes of a hash of
// all that can change a byte of the output (docs/format/split-blocks.md).
func (j *Job) identify(s *Settings) {
	var b []byte
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	list := func(all []string) {
		b = binary.AppendUvarint(b, uint64(len(all)))
		for _, s := range all {
			text(s)
		}
	}
	text(idFormat)
	text(s.Bucket)
	text(s.Formats)
	names := slices.Sorted(maps.Keys(j.Stream))
	list(names)
	for _, name := range names {
		text(j.Stream[name])
	}
	list(j.Removed)
	list(j.Dedup)
	ids := j.inputIDs()
	b = binary.AppendUvarint(b, uint64(len(ids)))
	newest := uint64(0)
	for _, id := range ids {
		b = append(b, id[:]...)
		newest = max(newest, id.Time())
	}
	for i := range j.Outputs {
		o := &j.Outputs[i]
		own := binary.AppendUvarint(slices.Clip(b), uint64(o.Resolution))
		own = binary.AppendUvarint(own, uint64(o.Part.Shard))
		own = binary.AppendUvarint(own, uint64(o.Part.Of))
		sum := sha256.Sum256(own)
		_ = o.ID.SetTime(newest) // it is the time of an id
		_ = o.ID.SetEntropy(sum[:10])
	}
}

// inputIDs are the ids of the inputs, in order.
func (j *Job) inputIDs() []ulid.ULID {
	ids := make([]ulid.ULID, len(j.Inputs))
	for i, m := range j.Inputs {
		ids[i] = m.ULID
	}
	slices.SortFunc(ids, ulid.ULID.Compare)
	return ids
}

// Key says whose job it is: compactors that share a bucket divide jobs by it. One of them erases what is to be deleted
// of a tenant, since it keeps for each tenant which blocks are done.
func (j *Job) Key() []byte {
	if j.Kind == Erase {
		return []byte("erase " + j.Tenant)
	}
	return j.Outputs[0].ID[:]
}

// Owned are the jobs of which owns says that they are this compactor's. A nil owns is a compactor that is alone.
func Owned(jobs []Job, owns func(key []byte) bool) []Job {
	if owns == nil {
		return jobs
	}
	return slices.DeleteFunc(slices.Clone(jobs), func(j Job) bool { return !owns(j.Key()) })
}

// Meta is the meta.json of output o, without what is known only when it was written: stats, files, index stats. empty
// are the parts of this output that have no series, sorted, nil if all have some.
func (j *Job) Meta(o Output, empty []int) *block.Meta {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: o.ID, MinTime: j.MinTime, MaxTime: j.MaxTime, Version: 1}}
	c := &m.Compaction
	outOfOrder := true
	for _, in := range j.Inputs {
		c.Level = max(c.Level, in.Compaction.Level)
		c.Sources = append(c.Sources, in.Compaction.Sources...)
		c.Parents = append(c.Parents, tsdb.BlockDesc{ULID: in.ULID, MinTime: in.MinTime, MaxTime: in.MaxTime})
		outOfOrder = outOfOrder && in.Compaction.FromOutOfOrder()
	}
	c.Sources = block.InOrder(c.Sources)
	c.Level++
	if outOfOrder {
		c.SetOutOfOrder()
	}
	if o.Part.Of > 1 {
		c.Sources = []ulid.ULID{o.ID} // a reader of Thanos hides blocks by it, and must not hide a part
	}
	m.Thanos = block.Thanos{
		Version: 1, Labels: j.Stream, Downsample: block.Downsample{Resolution: o.Resolution}, Source: block.SourceCompactor,
	}
	m.Origin = j.origin(o, empty)
	return m
}

func (j *Job) origin(o Output, empty []int) *block.Origin {
	out := &block.Origin{
		ID: o.ID, Sources: j.sources(o.Part), Replaces: j.inputIDs(), Shard: o.Part.Shard, Of: o.Part.Of, Empty: empty,
		Removed: slices.Clone(j.Removed),
	}
	for _, in := range j.Inputs {
		if in.Origin != nil {
			out.Removed = append(out.Removed, in.Origin.Removed...)
		}
		out.Producers = append(out.Producers, producers(in, j.Removed)...)
	}
	for _, names := range []*[]string{&out.Removed, &out.Producers} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	return out
}

// sources are those of the inputs that have all series of a part, or say that there are none. An output must not name
// the sources of an input that is another part: that part's samples are not in it.
func (j *Job) sources(part block.Part) (all []ulid.ULID) {
	for _, m := range j.Inputs {
		if part.CoveredBy(m.Vouches()) {
			all = append(all, m.Sources()...)
		}
	}
	return block.InOrder(all)
}

// producers are who made the sources of m: those that a compaction wrote down, else the values of the removed labels,
// joined. A block that a receiver shipped and a tool rewrote has these labels still.
func producers(m *block.Meta, removed []string) []string {
	if m.Origin != nil && len(m.Origin.Producers) > 0 {
		return m.Origin.Producers
	}
	value := ""
	for _, name := range removed {
		if v, ok := m.Thanos.Labels[name]; ok {
			value += "," + v
		}
	}
	if value == "" {
		return nil
	}
	return []string{value[1:]}
}

// order sorts jobs: those of the smallest ranges first, the oldest first, and tenants in turn.
func order(jobs []Job) {
	slices.SortFunc(jobs, func(a, b Job) int {
		return cmp.Or(cmp.Compare(a.window, b.window), cmp.Compare(a.MinTime, b.MinTime),
			cmp.Compare(a.Part.Shard, b.Part.Shard), a.Outputs[0].ID.Compare(b.Outputs[0].ID))
	})
	turn, next := make(map[ulid.ULID]int, len(jobs)), map[string]int{}
	for i := range jobs {
		turn[jobs[i].Outputs[0].ID] = next[jobs[i].Tenant]
		next[jobs[i].Tenant]++
	}
	slices.SortStableFunc(jobs, func(a, b Job) int {
		return cmp.Compare(turn[a.Outputs[0].ID], turn[b.Outputs[0].ID])
	})
}
