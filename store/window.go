package store

import (
	"math"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
)

// span is a range of time in ms, both ends included. It is empty if mint is above maxt.
type span struct{ mint, maxt int64 }

var always = span{math.MinInt64, math.MaxInt64}

func (s span) and(o span) span { return span{max(s.mint, o.mint), min(s.maxt, o.maxt)} }

// has reports whether all of a block's time is in s.
func (s span) has(p *planned) bool { return s.mint <= p.meta.MinTime && p.meta.MaxTime-1 <= s.maxt }

// window is Options.Window, at the time now.
func (o Options) window(now time.Time) span {
	if o.Window == nil {
		return always
	}
	mint, maxt := o.Window(now)
	return span{mint, maxt}
}

// planWindow is the range of which a plan has the blocks. It ends later than the window at present: a window that moves
// with the clock reaches further blocks before the next sync.
func (o Options) planWindow(now time.Time) span {
	w := o.window(now)
	w.maxt = max(w.maxt, o.window(now.Add(2*o.SyncInterval)).maxt)
	return w
}

// window is the range of time that is served of s at present, of Options.Window. Nothing else may be said to be served:
// if syncs have failed for so long that the window has left what s was planned for, less of it is.
func (g *Gateway) window(s *snapshot) span { return g.opts.window(g.opts.Now()).and(s.window) }

// clamped is r within the window. ok is false if nothing is left of it.
func (g *Gateway) clamped(s *snapshot, r *series.Request) (in *series.Request, ok bool) {
	w := g.window(s).and(span{r.MinTime, r.MaxTime})
	out := *r
	out.MinTime, out.MaxTime = w.mint, w.maxt
	return &out, w.mint <= w.maxt
}
