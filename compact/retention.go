package compact

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// Periods are how long blocks are kept, by resolution; 0 = for ever.
type Periods struct {
	Raw         time.Duration
	FiveMinutes time.Duration
	OneHour     time.Duration
}

// list is p in the order of resolutions.
func (p Periods) list() [3]time.Duration { return [3]time.Duration{p.Raw, p.FiveMinutes, p.OneHour} }

func periodsOf(l [3]time.Duration) Periods { return Periods{l[0], l[1], l[2]} }

// RetentionOptions say how long blocks are kept.
type RetentionOptions struct {
	// Default is for all blocks that Tenants says nothing of, and for those without the tenant label.
	Default Periods
	// Tenants are the periods of single tenants; nil = there are none. An error says that the configuration is not valid
	// at present: then nothing becomes shorter.
	Tenants func() (map[string]Periods, error)
	// Wait is how long a period that became shorter must stay so until it takes effect.
	Wait time.Duration
}

// The shortest spans that are downsampled: a block that is gone before leaves a hole in the coarser resolution.
const (
	span5m = 40 * time.Hour
	span1h = 10 * 24 * time.Hour
)

// validate is the error of periods that delete samples before they are downsampled.
func (o RetentionOptions) validate(downsample bool) error {
	if o.Wait < 0 {
		return errors.New("compact: the wait before a shorter retention takes effect is negative")
	}
	return o.Default.Validate(downsample)
}

// Validate is the error of periods that delete samples before they are downsampled.
func (p Periods) Validate(downsample bool) error {
	if p.Raw < 0 || p.FiveMinutes < 0 || p.OneHour < 0 {
		return errors.New("compact: a retention is negative")
	}
	if !downsample {
		return nil
	}
	if p.Raw != 0 && p.Raw < span5m {
		return fmt.Errorf("compact: raw samples are kept for %s, and are downsampled to 5m from blocks of %s: keep them for "+
			"at least that long, or switch downsampling off", p.Raw, span5m)
	}
	if p.FiveMinutes != 0 && p.FiveMinutes < span1h {
		return fmt.Errorf("compact: samples of 5m are kept for %s, and are downsampled to 1h from blocks of %s: keep them "+
			"for at least that long, or switch downsampling off", p.FiveMinutes, span1h)
	}
	return nil
}

// term is one period of one tenant: what is in force, and a shorter one that waits. Durations are in ms, 0 = for ever.
type term struct {
	Keep int64 `json:"keep"`
	// Next is the shorter period that waits since Since (Unix seconds); nil = none does.
	Next  *int64 `json:"next,omitempty"`
	Since int64  `json:"since,omitempty"`
}

// shorter reports whether a period a ends before b does.
func shorter(a, b int64) bool { return a != 0 && (b == 0 || a < b) }

// settle is t after the configuration says want at the time now. A longer period is in force at once; a shorter one
// once it was wanted for wait without a change. known is false while the configuration is not valid: then nothing
// becomes shorter, and the wait begins anew.
func (t term) settle(want int64, known bool, now time.Time, wait time.Duration) term {
	switch {
	case !known:
		return term{Keep: t.Keep}
	case !shorter(want, t.Keep):
		return term{Keep: want}
	case t.Next == nil || *t.Next != want:
		t = term{Keep: t.Keep, Next: &want, Since: now.Unix()}
	}
	if now.Sub(time.Unix(t.Since, 0)) >= wait {
		return term{Keep: want}
	}
	return t
}

// terms are the periods in force, by tenant; "" is for all that no other names. They are kept in the bucket, so that a
// restart does not shorten anything.
type terms struct {
	Version int                `json:"version"`
	Tenants map[string][3]term `json:"tenants"` // raw, 5m, 1h
}

// settle is t after the configuration says what. A tenant that has no periods of its own any more gets the default
// ones.
func (t terms) settle(what map[string]Periods, known bool, now time.Time, wait time.Duration) terms {
	out := terms{Version: 1, Tenants: map[string][3]term{}}
	names := map[string]bool{"": true}
	for name := range t.Tenants {
		names[name] = true
	}
	for name := range what {
		names[name] = true
	}
	for name := range names {
		want, named := what[name]
		if !named {
			want = what[""]
		}
		was, before := t.Tenants[name]
		if !before {
			was = t.Tenants[""] // what was in force for this tenant until now; at first all is kept for ever
		}
		var next [3]term
		for i, d := range want.list() {
			next[i] = was[i].settle(d.Milliseconds(), known, now, wait)
		}
		if named || name == "" || waiting(next) || !known {
			out.Tenants[name] = next
		}
	}
	return out
}

// waiting reports whether a shorter period waits.
func waiting(l [3]term) bool { return l[0].Next != nil || l[1].Next != nil || l[2].Next != nil }

// inForce are the periods that hold, by tenant.
func (t terms) inForce() map[string]Periods {
	out := map[string]Periods{}
	for name, l := range t.Tenants {
		var d [3]time.Duration
		for i := range l {
			d[i] = time.Duration(l[i].Keep) * time.Millisecond
		}
		out[name] = periodsOf(d)
	}
	return out
}

// coming are the periods that hold when all that waits has taken effect, and whether anything waits.
func (t terms) coming() (out map[string]Periods, waits bool) {
	out = map[string]Periods{}
	for name, l := range t.Tenants {
		var d [3]time.Duration
		for i := range l {
			d[i] = time.Duration(l[i].Keep) * time.Millisecond
			if l[i].Next != nil {
				d[i], waits = time.Duration(*l[i].Next)*time.Millisecond, true
			}
		}
		out[name] = periodsOf(d)
	}
	return out, waits
}

// wanted is what the configuration says, with the default under "".
func (o RetentionOptions) wanted() (what map[string]Periods, err error) {
	what = map[string]Periods{"": o.Default}
	if o.Tenants == nil {
		return what, nil
	}
	own, err := o.Tenants()
	maps.Copy(what, own)
	what[""] = o.Default
	return what, err
}
