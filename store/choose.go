package store

import (
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/series"
)

// maxOthers is how many blocks that it left to others a response names.
const maxOthers = series.MaxOnlyBlocks

// piece is the part of a block that answers a request. nil windows mean the whole block.
type piece struct {
	b       *bucketBlock
	windows []window
}

// chosen are the pieces of streams that are replicas of each other, which are read here.
type chosen struct {
	*group
	pieces []piece
}

// choice is what one request reads here, and what it leaves to others.
type choice struct {
	groups []chosen    // also those of which nothing is read here
	needed []ulid.ULID // all blocks that a complete answer needs
	served []ulid.ULID // those of them that are read here
	others []*planned  // the rest
	named  []ulid.ULID // what is read besides, since the request names it
}

// asks says which blocks a request asks of this gateway.
type asks struct {
	primary bool
	only    map[ulid.ULID]bool // nil = it names none
}

func asksOf(r series.BlockRequest) asks {
	a := asks{primary: r.Primary}
	if r.Only != nil {
		a.only = make(map[ulid.ULID]bool, len(r.Only))
		for _, id := range r.Only {
			a.only[id] = true
		}
	}
	return a
}

// plain reports whether the caller knows nothing of blocks: a querier of Thanos, or an older one. It gets all that is
// served here, and a warning for what should be and is not.
func (a asks) plain() bool { return !a.primary && a.only == nil }

func (a asks) of(p *planned) bool {
	switch {
	case a.only != nil:
		return a.only[p.meta.ULID]
	case a.primary:
		return p.place == first
	}
	return p.place > elsewhere
}

// choose decides what a request reads of tenant t. which returns the pieces of some blocks that it needs.
func (t *tenantBlocks) choose(r *series.Request, v labelView, which picker) (c choice) {
	a := asksOf(r.Blocks)
	for _, gr := range v.groups(t, r.Matchers) {
		read := chosen{group: gr}
		needed := which(gr.streams, r, everyNeeded)
		for _, p := range needed {
			id := p.meta.ULID
			c.needed = append(c.needed, id)
			switch parts := p.parts; {
			case !a.of(p.planned):
				c.others = append(c.others, p.planned)
			case p.b != nil:
				c.served = append(c.served, id)
				read.pieces = append(read.pieces, piece{p.b, p.windows})
			case !a.plain() && p.all && !slices.ContainsFunc(parts, func(p *planned) bool { return p.b == nil }):
				c.served = append(c.served, id)
				for _, part := range parts {
					read.pieces = append(read.pieces, piece{part.b, p.windows})
				}
			default:
				c.others = append(c.others, p.planned)
			}
		}
		switch {
		case a.plain():
			read.pieces = forPlain(gr.streams, r, which)
		case a.only != nil:
			for _, p := range which(gr.streams, r, a.namedAlso) {
				c.named = append(c.named, p.meta.ULID)
				read.pieces = append(read.pieces, piece{p.b, p.windows})
			}
		}
		c.groups = append(c.groups, read)
	}
	return c
}

// forPlain are the pieces for a caller that asks nobody again: of all blocks that are served here, as if those that are
// known to be broken did not exist; and besides, of those that are not needed any more, as others may not know that.
func forPlain(streams []*stream, r *series.Request, which picker) (out []piece) {
	for _, from := range []choosing{soundNeeded, servedAlso} {
		for _, p := range which(streams, r, from) {
			if p.serves() && p.matches(r.Blocks.Matchers) {
				out = append(out, piece{p.b, p.windows})
			}
		}
	}
	return out
}

// plannedPiece is a piece of a block that may be elsewhere.
type plannedPiece struct {
	*planned
	windows []window
}

// picker returns the pieces that answer r, of the blocks that from chooses of streams. The streams are replicas of each
// other.
type picker func(streams []*stream, r *series.Request, from choosing) []plannedPiece

// choosing says which blocks of a stream are considered: those of a timeline that takes is true for.
type choosing func(*stream) (line *timeline, takes func(*planned) bool)

// everyNeeded chooses all blocks that a complete answer may need.
func everyNeeded(st *stream) (*timeline, func(*planned) bool) {
	return &st.needed, func(*planned) bool { return true }
}

// soundNeeded leaves out of these what is known to be broken.
func soundNeeded(st *stream) (*timeline, func(*planned) bool) {
	return &st.needed, func(p *planned) bool { return p.fault == nil }
}

// servedAlso chooses the blocks that are served and not needed any more.
func servedAlso(st *stream) (*timeline, func(*planned) bool) { return &st.also, (*planned).serves }

// namedAlso chooses the blocks that the request names and this view does not need any more. The gateway that needs them
// has the same index and an older listing. It may list the bucket anew before it is asked for them, so that nobody
// would serve them.
func (a asks) namedAlso(st *stream) (*timeline, func(*planned) bool) {
	return &st.also, func(p *planned) bool { return p.b != nil && a.of(p) }
}

// pieces is the picker of a select: each moment is answered at one resolution.
func pieces(streams []*stream, r *series.Request, from choosing) (out []plannedPiece) {
	var extents []extent
	for i, st := range streams {
		line, takes := from(st)
		for p := range line.within(r.MinTime, r.MaxTime) {
			if p.resolution() <= r.MaxResolution && takes(p) {
				out = append(out, plannedPiece{planned: p})
				extents = append(extents, extent{i, p.resolution(), p.meta.MinTime, p.meta.MaxTime})
			}
		}
	}
	if r.MaxResolution <= 0 {
		return out
	}
	for i, ws := range cover(extents, r.MaxResolution, fitting(r)) {
		out[i].windows = ws
	}
	return slices.DeleteFunc(out, func(p plannedPiece) bool { return len(p.windows) == 0 })
}

// wholes is the picker of a request for labels: blocks of all resolutions answer, since they have the same labels, and
// often only the coarse ones are left.
func wholes(streams []*stream, r *series.Request, from choosing) (out []plannedPiece) {
	for _, st := range streams {
		line, takes := from(st)
		for p := range line.within(r.MinTime, r.MaxTime) {
			if takes(p) {
				out = append(out, plannedPiece{planned: p})
			}
		}
	}
	return out
}

// coverage says what a response with choice c covers. h is what the gateway holds. What was named and is read besides
// counts as needed and served, but not where the others are too many to list: no other response has such a digest, so
// the gap would be one without names.
func (c *choice) coverage(h series.Holding, r series.BlockRequest) series.Coverage {
	out := series.Coverage{Holding: h}
	if out.Whole = h.Whole && r.Only == nil; out.Whole {
		return out
	}
	needed, listed := c.needed, len(c.others) <= maxOthers
	if out.Served = c.served; listed {
		needed, out.Served = slices.Concat(needed, c.named), slices.Concat(out.Served, c.named)
	}
	if out.Needed = series.DigestOf(needed...); listed {
		for _, p := range c.others {
			out.Others = append(out.Others, series.Block{ID: p.meta.ULID, Replaces: p.replaces()})
		}
	}
	return out
}
