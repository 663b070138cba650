package sourcetest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Memory is a source in memory, for tests of packages that read sources. Set its fields before use.
type Memory struct {
	// Data are the series by tenant, in any order.
	Data map[tenant.ID][]Series
	// About is the result of Info. When its MaxTime is 0, Info fills in the time range and the tenants from Data.
	About series.Info
	// ChunkSamples is the largest number of samples per chunk; 0 means 120.
	ChunkSamples int
	// Fail, when set, is called by every method. If it returns an error, the method fails with it. Select yields FailAfter
	// series before that.
	Fail      func() error
	FailAfter int
}

// Select implements series.Source.
func (m *Memory) Select(ctx context.Context, r *series.Request) series.Set {
	if err := ctx.Err(); err != nil {
		return series.Failed(err)
	}
	out := m.find(r)
	err := m.failure()
	if err != nil {
		out = out[:min(len(out), m.FailAfter)]
	}
	set := series.Relabel(&memorySet{Set: series.List(out), err: err}, labels.EmptyLabels(), r.WithoutLabels, 0)
	return series.Limit(set, r.Limit)
}

func (m *Memory) failure() error {
	if m.Fail == nil {
		return nil
	}
	return m.Fail()
}

// memorySet ends with err.
type memorySet struct {
	series.Set
	err error
}

func (s *memorySet) Err() error { return s.err }

// find returns the series that r selects, sorted by labels.
func (m *Memory) find(r *series.Request) []series.Series {
	var out []series.Series
	for _, in := range m.Data[r.Tenant] {
		if !matches(in.Labels, r.Matchers) {
			continue
		}
		chunks := slices.DeleteFunc(Encode(in.Samples, m.ChunkSamples), func(c series.Chunk) bool {
			return c.MinTime > r.MaxTime || c.MaxTime < r.MinTime
		})
		if len(chunks) == 0 {
			continue
		}
		if r.SkipChunks {
			chunks = nil
		}
		out = append(out, series.Series{Labels: in.Labels, Chunks: chunks})
	}
	slices.SortFunc(out, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return out
}

// LabelNames implements series.Source.
func (m *Memory) LabelNames(_ context.Context, r *series.Request) ([]string, series.Warnings, error) {
	found := map[string]bool{}
	for _, s := range m.find(r) {
		s.Labels.Range(func(l labels.Label) { found[l.Name] = true })
	}
	return series.SortedUnique(slices.Collect(maps.Keys(found)), r.Limit), nil, m.failure()
}

// LabelValues implements series.Source.
func (m *Memory) LabelValues(_ context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	found := map[string]bool{}
	for _, s := range m.find(r) {
		if v := s.Labels.Get(name); v != "" {
			found[v] = true
		}
	}
	return series.SortedUnique(slices.Collect(maps.Keys(found)), r.Limit), nil, m.failure()
}

// Info implements series.Source.
func (m *Memory) Info(context.Context) (series.Info, error) {
	info := m.About
	if info.MaxTime == 0 {
		info.MinTime, info.MaxTime = math.MaxInt64, math.MinInt64
		for _, all := range m.Data {
			for _, s := range all {
				if n := len(s.Samples); n > 0 {
					info.MinTime, info.MaxTime = min(info.MinTime, s.Samples[0].T), max(info.MaxTime, s.Samples[n-1].T)
				}
			}
		}
		info.Tenants = slices.Sorted(maps.Keys(m.Data))
	}
	return info, m.failure()
}

// Encode makes chunks of at most size samples each; 0 = 120. A new chunk also begins where the type of the samples
// changes. Encode panics when a sample cannot be encoded: the test is wrong then.
func Encode(samples []Sample, size int) []series.Chunk {
	if size == 0 {
		size = 120
	}
	var out []series.Chunk
	for from := 0; from < len(samples); {
		to := from + 1
		for to < len(samples) && to-from < size && kind(samples[to]) == kind(samples[from]) {
			to++
		}
		out = append(out, encode(samples[from:to])...)
		from = to
	}
	return out
}

// kind is the encoding for a sample of the type of s.
func kind(s Sample) chunkenc.Encoding {
	switch {
	case s.H != nil:
		return chunkenc.EncHistogram
	case s.FH != nil:
		return chunkenc.EncFloatHistogram
	}
	return chunkenc.EncXOR
}

// encode makes a chunk of samples of one kind. It makes several where histograms do not fit into one, as after a
// counter reset.
func encode(samples []Sample) (out []series.Chunk) {
	var chunk chunkenc.Chunk
	var app chunkenc.Appender
	for _, s := range samples {
		if chunk == nil {
			chunk, app = start(kind(s))
			out = append(out, series.Chunk{MinTime: s.T})
		}
		var next chunkenc.Chunk
		var recoded bool
		var err error
		switch {
		case s.H != nil:
			next, recoded, app, err = app.AppendHistogram(nil, 0, s.T, s.H.Copy(), false)
		case s.FH != nil:
			next, recoded, app, err = app.AppendFloatHistogram(nil, 0, s.T, s.FH.Copy(), false)
		default:
			app.Append(0, s.T, s.V)
		}
		if err != nil {
			panic(fmt.Sprintf("BUG: sample at %d: %v", s.T, err))
		}
		if next != nil {
			chunk = next
			if !recoded {
				out = append(out, series.Chunk{MinTime: s.T})
			}
		}
		last := &out[len(out)-1]
		last.MaxTime, last.Raw = s.T, series.Encoded{Encoding: chunk.Encoding(), Data: chunk.Bytes()}
	}
	return out
}

func start(e chunkenc.Encoding) (chunkenc.Chunk, chunkenc.Appender) {
	chunk, err := chunkenc.NewEmptyChunk(e)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	app, err := chunk.Appender()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return chunk, app
}
