package rewrite

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// DeletionsOf are what requests for series delete of a source whose external labels are added. Selectors see a series
// as queries do: with the external labels, which win over its own.
func DeletionsOf(requests []*block.Request, added labels.Labels) (out []Deletion) {
	for _, e := range requests {
		for _, ms := range e.Series.Matchers() {
			if rest, ok := series.Resolve(ms, added); ok {
				out = append(out, Deletion{Matchers: rest, RequestID: e.ID.String(),
					Intervals: []Interval{{e.Series.MinTime, e.Series.MaxTime}}})
			}
		}
	}
	return out
}

// Hidden are samples that a read of one source does not find.
type Hidden struct {
	Deletions []Deletion
	// Resolution is that of the source in ms. A window of which a part is hidden is hidden.
	Resolution int64
	// MinTime and MaxTime are the range of the read in ms, both included.
	MinTime, MaxTime int64
}

// Times are the times of the hidden samples of the series whose own labels are ls.
func (h *Hidden) Times(ls labels.Labels) Times {
	return Times{intervals(h.Deletions, ls.Get, h.Resolution), h.MinTime, h.MaxTime}
}

// Times are those of the hidden samples of one series.
type Times struct {
	all        []Interval
	mint, maxt int64 // of the read
}

// Hide reports whether the read finds nothing of a chunk with samples from mint to maxt.
func (t Times) Hide(mint, maxt int64) bool {
	return len(t.all) > 0 && covers(t.all, max(mint, t.mint), min(maxt, t.maxt))
}

// covers reports whether one of the intervals, which are in order, has all times of [mint, maxt].
func covers(all []Interval, mint, maxt int64) bool {
	hit := meets(all, mint, maxt)
	return len(hit) > 0 && hit[0].Mint <= mint && hit[0].Maxt >= maxt
}

// Hide returns set, which it owns, without the hidden samples. Chunks that have none stay as they are. A chunk that
// cannot be decoded, and may have some, is left out with a warning. A series of which no chunk is left is left out; one
// that came without chunks stays.
func Hide(set series.Set, h Hidden) series.Set {
	if len(h.Deletions) == 0 {
		return set
	}
	return &hidingSet{Set: set, hidden: h, faults: series.Faults{From: "deletion of series"}}
}

type hidingSet struct {
	series.Set
	hidden Hidden
	at     series.Series
	cutter merge.Cutter
	made   []merge.Chunk
	faults series.Faults
}

// Next implements series.Set.
func (s *hidingSet) Next() bool {
	for s.Set.Next() {
		s.at = s.Set.At()
		times := s.hidden.Times(s.at.Labels)
		if len(times.all) == 0 || len(s.at.Chunks) == 0 {
			return true
		}
		if s.cut(times); len(s.at.Chunks) > 0 {
			return true
		}
	}
	return false
}

// At implements series.Set.
func (s *hidingSet) At() series.Series { return s.at }

// Warnings implements series.Set.
func (s *hidingSet) Warnings() series.Warnings {
	return append(slices.Clip(s.Set.Warnings()), s.faults.Warnings()...)
}

// cut takes the hidden samples out of the current series. Its chunks are another list, since those of the set may be
// used by others.
func (s *hidingSet) cut(times Times) {
	left := make([]series.Chunk, 0, len(s.at.Chunks))
	for _, c := range s.at.Chunks {
		hit := meets(times.all, c.MinTime, c.MaxTime)
		switch {
		case len(hit) == 0:
			left = append(left, c)
			continue
		case times.Hide(c.MinTime, c.MaxTime):
			continue
		}
		var err error
		if left, err = s.cutChunk(left, c, func(t int64) bool { return !has(hit, t) }); err != nil {
			s.faults.Add("chunks that cannot be decoded", func() string {
				return fmt.Sprintf("one of %s: %v", s.at.Labels, err)
			})
		}
	}
	s.at.Chunks = left
}

// cutChunk appends what is left of a chunk to dst.
func (s *hidingSet) cutChunk(dst []series.Chunk, c series.Chunk, keep func(t int64) bool) (out []series.Chunk,
	err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = dst, errs.E(errs.Invalid, "panic in the chunk from %d to %d: %v", c.MinTime, c.MaxTime, p)
		}
	}()
	if c.Aggr != nil {
		rest, mint, maxt, err := cutParts(c.Aggr, c.MinTime, c.MaxTime, keep)
		if err != nil || !slices.ContainsFunc(rest[:], func(e series.Encoded) bool {
			return e.Encoding != chunkenc.EncNone
		}) {
			return dst, err
		}
		return append(dst, series.Chunk{MinTime: mint, MaxTime: maxt, Aggr: rest}), nil
	}
	s.made, err = s.cutter.Cut(s.made[:0], &merge.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime,
		Encoding: byte(c.Raw.Encoding), Data: c.Raw.Data}, keep)
	if err != nil {
		return dst, err
	}
	for _, m := range s.made {
		dst = append(dst, series.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime,
			Raw: series.Encoded{Encoding: chunkenc.Encoding(m.Encoding), Data: m.Data}})
	}
	return dst, nil
}
