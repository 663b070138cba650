package sidecar

import (
	"bytes"
	"slices"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
)

// frameLabels makes the labels of series from those of frames.
type frameLabels struct {
	added []labels.Label // sorted by name
	drop  []string       // sorted
	b     labels.ScratchBuilder
}

func newFrameLabels(added labels.Labels, drop []string) frameLabels {
	f := frameLabels{drop: drop, b: labels.NewScratchBuilder(32)}
	added.Range(func(l labels.Label) { f.added = append(f.added, l) })
	return f
}

// lastAdded is the last name that is added, "" for none.
func (f *frameLabels) lastAdded() string {
	if len(f.added) == 0 {
		return ""
	}
	return f.added[len(f.added)-1].Name
}

// of returns the labels of a frame without those to drop, as names and values in turn, and the same with those to add.
// own shares the memory of in.
func (f *frameLabels) of(in [][]byte) (own [][]byte, all labels.Labels) {
	own = in[:0]
	f.b.Reset()
	add, drop := f.added, f.drop
	for i := 0; i < len(in); i += 2 {
		name, value := in[i], in[i+1]
		for len(drop) > 0 && drop[0] < string(name) {
			drop = drop[1:]
		}
		if len(drop) > 0 && drop[0] == string(name) {
			continue
		}
		for len(add) > 0 && add[0].Name < string(name) {
			f.b.Add(add[0].Name, add[0].Value)
			add = add[1:]
		}
		own = append(own, name, value)
		f.b.Add(text(name), text(value)) // Labels copies them
	}
	for _, l := range add {
		f.b.Add(l.Name, l.Value)
	}
	return own, f.b.Labels()
}

// text is b as a string that shares its memory.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// constantOrder puts series in order that were in order before all of them got the same labels, under names that none
// of them had.
//
// That changes the order of two series only if one has all labels of the other and more, and the first one more sorts
// before the last name that is added. {a="1"} is before {a="1", b="1"}, and with c added {a="1", b="1", c="x"} is
// before {a="1", c="x"}. So a series is held back while series follow that begin with all of its labels and go on with
// such a name. These are its direct successors. No more series are held than a series has labels.
type constantOrder struct {
	last  string // the last name that is added; "" = none is, and the order is right
	held  []heldSeries
	ready []series.Series // in their final order
}

type heldSeries struct {
	own [][]byte // names and values in turn, without what was added
	series.Series
}

// add takes the next series, whose own labels are own.
func (o *constantOrder) add(own [][]byte, s series.Series) {
	for len(o.held) > 0 && !o.waits(o.held[len(o.held)-1].own, own) {
		o.release()
	}
	if len(own) > 0 && string(own[len(own)-2]) >= o.last || o.last == "" {
		o.ready = append(o.ready, s) // what follows its labels sorts behind what was added
		return
	}
	o.held = append(o.held, heldSeries{own, s})
}

// waits reports whether a series with the labels of held comes behind one with those of next.
func (o *constantOrder) waits(held, next [][]byte) bool {
	return len(next) > len(held) && slices.EqualFunc(held, next[:len(held)], bytes.Equal) &&
		string(next[len(held)]) < o.last
}

func (o *constantOrder) release() {
	top := len(o.held) - 1
	o.ready = append(o.ready, o.held[top].Series)
	o.held = o.held[:top]
}

// take returns the next series that is known to be the first of all that are left. ended says that none follows.
func (o *constantOrder) take(ended bool) (series.Series, bool) {
	for ended && len(o.held) > 0 {
		o.release()
	}
	if len(o.ready) == 0 {
		return series.Series{}, false
	}
	next := o.ready[0]
	o.ready[0] = series.Series{}
	if o.ready = o.ready[1:]; len(o.ready) == 0 {
		o.ready = nil
	}
	return next, true
}
