package change

import (
	"math"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// SeriesPlan is what the deletion of samples of series is about.
type SeriesPlan struct {
	Request deletion.Request `json:"request"`
	// Blocks are those that the bucket has of the tenant in the range, oldest first, and Bytes how large they are. They
	// are looked at when the request is due.
	Blocks []ulid.ULID `json:"blocks"`
	Bytes  int64       `json:"bytes"`
}

// DeleteSeries plans to delete samples of a tenant. of says which label of blocks names their tenant; a block without
// it is the default tenant's, as for reads. Errors: Invalid, TooLarge, if a request like that cannot be; Conflict, if
// there are too many already.
func DeleteSeries(v block.View, of block.Identity, id tenant.ID, s deletion.Series, now time.Time,
	asked Asked) (SeriesPlan, error) {
	p := SeriesPlan{Blocks: []ulid.ULID{}}
	if of.TenantLabel == "" {
		return p, errs.E(errs.Conflict, "the bucket does not say which label names the tenant of a block: no receiver has "+
			"written to it yet")
	}
	var err error
	if p.Request, err = deletion.NewSeries(id, s, now, asked.Delay); err != nil {
		return p, err
	}
	r := &p.Request
	r.By, r.Tool, r.Reason = asked.By, asked.Tool, asked.Reason
	if n := len(v.Requests.Hidden(id, math.MinInt64, math.MaxInt64, now)); n >= deletion.MaxSeriesRequests {
		return p, errs.E(errs.Conflict, "tenant %q has %d requests for series in effect, which is as many as may be: end "+
			"some first", id, n)
	}
	for _, m := range v.Select(block.Unmarked, block.NotReplaced, block.Within(r.Series.MinTime, r.Series.MaxTime)) {
		if m.TenantOf(of.TenantLabel) == id {
			p.Blocks = append(p.Blocks, m.ULID)
			p.Bytes += m.Bytes()
		}
	}
	return p, r.Validate()
}

// UndeleteSeries is the request of that id if it can still be undone, and with end if it is due and can be ended.
// Errors: NotFound, if there is none; Conflict, if it is too late, or too early.
func UndeleteSeries(l *deletion.List, id ulid.ULID, end bool, now time.Time) (*deletion.Entry, error) {
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	for _, e := range l.SeriesRequests() {
		if e.ID != id {
			continue
		}
		switch state := e.State(now); {
		case state == deletion.Undone || state == deletion.Ended:
			return nil, errs.E(errs.Conflict, "request %s is %s already", id, state)
		case state == deletion.Held:
			return nil, errs.E(errs.Conflict, "request %s: %w: remove that object", id, e.Fault)
		case end && state != deletion.Due:
			return nil, errs.E(errs.Conflict, "request %s is not due before %s: it can be undone", id, at(e.Due))
		case !end && now.UnixMilli() > e.UndoUntil:
			return nil, errs.E(errs.Conflict, "request %s could be undone until %s: its samples are going, or gone. From %s on "+
				"it can be ended, so that samples which come later stay", id, at(e.UndoUntil), at(e.Due))
		}
		return e, nil
	}
	return nil, errs.E(errs.NotFound, "there is no request %s to delete series", id)
}
