package deletion

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// State is what a request means at a time.
type State string

// A request is Waiting until it is due, and Due from then on, for ever. From Waiting it can become Undone; from Due it
// becomes Renewed when an operator lets the tenant be made anew.
const (
	// Waiting: the tenant takes no writes, and is still read.
	Waiting State = "waiting"
	// Held: an undo, or what renews the tenant, is there and cannot be read. As Waiting, and never due.
	Held State = "held"
	// Undone: the request has no effect any more.
	Undone State = "undone"
	// Due: the tenant takes no writes, is not read, and what there is of it is deleted.
	Due State = "due"
	// Renewed: what was made of the tenant before a time is deleted. It takes writes again.
	Renewed State = "renewed"
	// Ended: a request for series was due, and has no effect any more.
	Ended State = "ended"
)

// Entry is a request with what was said of it later.
type Entry struct {
	Request
	Undo, Renewal *Change // nil = there is none
	Fault         error   // why Undo or Renewal, of which there is one, cannot be read
}

// State is what the request means at now.
func (e *Entry) State(now time.Time) State {
	state, _ := e.state(now)
	return state
}

// state also returns before which time (Unix ms) what was made is deleted: never, except in Due and Renewed.
func (e *Entry) state(now time.Time) (State, int64) {
	const never = math.MinInt64
	renewed := e.Renewal
	switch {
	case e.undone():
		return Undone, never
	case e.Fault != nil:
		return Held, never
	case now.UnixMilli() < e.Due:
		return Waiting, never
	case renewed == nil || now.UnixMilli() < max(renewed.At, e.Due)+settled:
		return Due, latest
	case e.Kind == KindSeries:
		return Ended, never
	}
	return Renewed, max(renewed.At, e.Due)
}

func (e *Entry) undone() bool { return e.Undo != nil && e.Undo.At <= e.UndoUntil }

// settled is how long after a renewal, in ms, a process goes on to refuse writes, by its own clock. So what it makes
// afterwards has a later time than the renewal, also where a file system rounds times.
const settled = 1000

// refuses reports whether the tenant takes no writes, or reads do not find the samples.
func (s State) refuses() bool { return s == Waiting || s == Held || s == Due }

// List is what operators asked for, by tenant. It does not change. A nil List is an empty one.
type List struct {
	all      map[tenant.ID][]*Entry // each in order of the ids
	requests []*Entry               // in order of the ids
	faults   map[string]error       // objects that cannot be read, by name

	// series are the requests for series, as all, and seriesRequests as requests: the others are for whole tenants.
	series         map[tenant.ID][]*Entry
	seriesRequests []*Entry
}

// NewList makes a list of entries.
func NewList(entries []*Entry, faults map[string]error) *List {
	l := &List{all: map[tenant.ID][]*Entry{}, faults: faults, series: map[tenant.ID][]*Entry{}}
	for _, e := range slices.SortedFunc(slices.Values(entries), func(a, b *Entry) int { return a.ID.Compare(b.ID) }) {
		if e.Kind == KindSeries {
			l.series[e.Tenant] = append(l.series[e.Tenant], e)
			continue
		}
		l.requests = append(l.requests, e)
		l.all[e.Tenant] = append(l.all[e.Tenant], e)
	}
	for id, of := range l.series {
		kept, tooMany := bound(of)
		for e, err := range tooMany {
			if l.faults == nil {
				l.faults = map[string]error{}
			}
			l.faults[nameOf(e.ID, requestEnd)] = err
		}
		l.series[id] = kept
		l.seriesRequests = append(l.seriesRequests, kept...)
	}
	slices.SortFunc(l.seriesRequests, func(a, b *Entry) int { return a.ID.Compare(b.ID) })
	return l
}

// Entries are all requests for tenants, the oldest first. Nobody may change them.
func (l *List) Entries() []*Entry {
	if l == nil {
		return nil
	}
	return l.requests
}

// Of are the requests for a tenant as a whole, the oldest first.
func (l *List) Of(id tenant.ID) []*Entry {
	if l == nil {
		return nil
	}
	return l.all[id]
}

// Tenants are the tenants that there are requests for, in order.
func (l *List) Tenants() []tenant.ID {
	if l == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(l.all))
}

// Active is the request because of which a tenant takes no writes at now, nil if it takes some.
func (l *List) Active(id tenant.ID, now time.Time) *Entry {
	for _, e := range l.Of(id) {
		if e.State(now).refuses() {
			return e
		}
	}
	return nil
}

// Refusal is the answer to a write of a tenant at now: of kind Invalid, since it cannot help to send it again, or nil.
func (l *List) Refusal(id tenant.ID, now time.Time) error {
	e := l.Active(id, now)
	if e == nil {
		return nil
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	if e.State(now) == Due {
		return errs.E(errs.Invalid, "tenant %q was deleted at %s (request %s): it takes no writes until an operator lets it "+
			"be made anew", id, at(e.Due), e.ID)
	}
	return errs.E(errs.Invalid, "tenant %q is to be deleted at %s (request %s of %s): it takes no writes", id, at(e.Due),
		e.ID, at(e.Asked))
}

// Takes is the request by which the data of a tenant is deleted that was made at a time, nil if there is none.
func (l *List) Takes(id tenant.ID, made, now time.Time) *Entry {
	for _, e := range l.Of(id) {
		if _, before := e.state(now); made.UnixMilli() < before {
			return e
		}
	}
	return nil
}

// Block is what decides whether a block of a tenant is deleted.
type Block struct {
	ID      ulid.ULID
	Sources []ulid.ULID // the blocks that it was made of; may be empty
	// Ours says that a receiver or a compactor made it, and not somebody who uploaded it.
	Ours bool
}

// TakesBlock is the request by which a block of a tenant is deleted, nil if there is none.
func (l *List) TakesBlock(id tenant.ID, b Block, now time.Time) *Entry {
	for _, e := range l.Of(id) {
		if _, before := e.state(now); b.madeBefore(before) && e.confirms(b) {
			return e
		}
	}
	return nil
}

// sources are the blocks that b was made of, itself if none are named.
func (b Block) sources() []ulid.ULID {
	if len(b.Sources) == 0 {
		return []ulid.ULID{b.ID}
	}
	return b.Sources
}

// madeBefore reports whether all that b was made of was made before a time, by the time of the ids.
func (b Block) madeBefore(ms int64) bool {
	return !slices.ContainsFunc(b.sources(), func(s ulid.ULID) bool { return int64(s.Time()) >= ms })
}

// confirms reports whether b is among the blocks that the request may delete.
func (e *Entry) confirms(b Block) bool {
	c := e.Confirmed
	return c == nil || has(c.Blocks, b.ID) || !slices.ContainsFunc(b.sources(), func(s ulid.ULID) bool {
		return !has(c.Sources, s) && (!b.Ours || int64(s.Time()) < e.Asked)
	})
}

func has(sorted []ulid.ULID, id ulid.ULID) bool {
	_, found := slices.BinarySearchFunc(sorted, id, ulid.ULID.Compare)
	return found
}

// Count is how many requests for tenants there are by state.
func (l *List) Count(now time.Time) map[State]int {
	n := map[State]int{Waiting: 0, Held: 0, Undone: 0, Due: 0, Renewed: 0}
	for _, e := range l.Entries() {
		n[e.State(now)]++
	}
	return n
}

// Unreadable are the objects that cannot be read, by name, and why.
func (l *List) Unreadable() map[string]error {
	if l == nil {
		return nil
	}
	return l.faults
}

// Fault is the error of a few of the Unreadable objects, always the same ones; nil if there are none.
func (l *List) Fault() error {
	var all []error
	for _, object := range slices.Sorted(maps.Keys(l.Unreadable())) {
		err := l.faults[object]
		all = append(all, errs.E(errs.KindOf(err), "%s has no effect: %w", object, err))
	}
	return errs.Few(all)
}

// Last is the newest request of a tenant, nil if there is none.
func (l *List) Last(id tenant.ID) *Entry {
	all := l.Of(id)
	if len(all) == 0 {
		return nil
	}
	return slices.MaxFunc(all, func(a, b *Entry) int { return cmp.Or(cmp.Compare(a.Asked, b.Asked), a.ID.Compare(b.ID)) })
}
