package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// maxRounds bounds how often the jobs of a simulation lead to others. Each range and each resolution takes one.
const maxRounds = 32

// Todo is how much is left to be done with a bucket if nothing else comes, and how many blocks that takes.
type Todo struct {
	Compactions, CompactionBlocks int
	// DownsampleBlocks are blocks that are downsampled alone.
	DownsampleBlocks int
}

// Simulate does the jobs of first, a plan of b, and those that follow, in thought.
func Simulate(b Bucket, s *Settings, now time.Time, first Plan) (out Todo) {
	for jobs := first.Jobs; len(jobs) > 0; {
		for _, j := range jobs {
			switch j.Kind {
			case Downsample:
				out.DownsampleBlocks++
				continue
			case Erase:
				continue
			}
			out.Compactions++
			out.CompactionBlocks += len(j.Inputs)
		}
		if out.Compactions+out.DownsampleBlocks > maxRounds*(len(b.View.Metas)+1) {
			break // jobs that lead to themselves would be a fault
		}
		b = b.after(jobs, s)
		jobs = Make(b, s, now).Jobs
	}
	return out
}

// after is what b has of the streams of jobs when these were done.
func (b Bucket) after(jobs []Job, s *Settings) Bucket {
	keys, removed, active := keyCache{}, s.removes(), map[string]bool{}
	for _, j := range jobs {
		active[keys.of(j.Inputs[0].Thanos.Labels, removed)] = true
	}
	out := b
	out.Erase = nil
	out.Metas, out.View.Metas = nil, map[ulid.ULID]*block.Meta{}
	out.View.Deletions = maps.Clone(b.View.Deletions)
	for id, m := range b.View.Metas {
		if active[keys.of(m.Thanos.Labels, removed)] {
			out.View.Metas[id] = m
		}
	}
	for _, m := range b.Metas {
		if active[keys.of(m.Thanos.Labels, removed)] {
			out.Metas = append(out.Metas, m)
		}
	}
	for i := range jobs {
		for _, o := range jobs[i].Outputs {
			m := guess(&jobs[i], o)
			out.View.Metas[o.ID] = m
			out.Metas = append(out.Metas, m)
		}
	}
	slices.SortFunc(out.Metas, block.ByTime)
	return out
}

// guess is the meta.json of an output, as far as it can be known before.
func guess(j *Job, o Output) *block.Meta {
	m := j.Meta(o, nil)
	n := uint64(j.Parts / j.Part.Of) // the parts of each resolution
	index, rest := int64(0), int64(0)
	for _, in := range j.Inputs {
		m.Stats.NumSeries = max(m.Stats.NumSeries, in.Stats.NumSeries/n)
		m.Stats.NumSamples += in.Stats.NumSamples / n
		for _, f := range in.Thanos.Files {
			if f.RelPath == block.IndexName {
				index = max(index, f.SizeBytes/int64(n))
			} else {
				rest += f.SizeBytes / int64(n)
			}
		}
	}
	m.Thanos.Files = []block.File{
		{RelPath: block.SegmentPath(0), SizeBytes: rest}, {RelPath: block.IndexName, SizeBytes: index},
	}
	return m
}
