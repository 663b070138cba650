package distributor

import (
	"fmt"
	"sync/atomic"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// rules are relabelling rules, with a cache of the outcomes of series that came. They never change: new rules start
// with an empty cache.
type rules struct {
	configs []*relabel.Config
	places  [1 << 17]atomic.Pointer[relabelOutcome] // by key of the series before
	bytes   atomic.Int64                            // of labels and texts in places
}

// relabelOutcome is the outcome of relabelling one series.
type relabelOutcome struct {
	key    wire.Key // of the series before
	fate   fate
	labels []byte // canonical, if they are others
	fault  string // why it is not a series any more
}

type fate uint8

const (
	kept fate = iota
	renamed
	dropped
	unusable
)

// The cache is bounded by the number of series, and by the bytes of their new labels: of each and of all.
const (
	maxRememberedLabels = 4 << 10
	maxRemembered       = 128 << 20
)

// validateRelabel reports what is wrong with relabelling rules. It also completes them: rules that were not validated
// cannot be applied.
func validateRelabel(configs []*relabel.Config) error {
	for i, c := range configs {
		if c == nil {
			return fmt.Errorf("rule %d is empty", i+1)
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

// SetRelabel replaces the relabelling rules, for requests that come from now on.
func (d *Distributor) SetRelabel(configs []*relabel.Config) error {
	if err := validateRelabel(configs); err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	if len(configs) == 0 {
		d.rules.Store(nil)
		return nil
	}
	d.rules.Store(&rules{configs: configs})
	return nil
}

// relabel applies the rules to every series of p, which is all of the request. A series that they drop is no failure.
// One that they make unusable is refused.
func (d *Distributor) relabel(r *request, p *part) error {
	if r.rules == nil {
		return nil
	}
	if err := d.limitRequest(r, p); err != nil { // of the request as it was sent
		return err
	}
	b, rw := p.batch, wire.Rewrite(p.batch)
	for i := range b.Series {
		s := &b.Series[i]
		switch e := r.rules.of(s); e.fate {
		case kept:
			rw.Keep(i)
		case renamed:
			rw.Put(i, b.Tenant, e.labels)
		case unusable:
			p.refuse(i, errs.Invalid, e.fault)
			rw.Drop(i)
		default:
			r.dropped.add(countsOf(s))
			rw.Drop(i)
		}
	}
	if rw.Changed() {
		own, _ := rw.Done()
		p.become(own)
	}
	return nil
}

// of is the outcome of relabelling s (BenchmarkRelabel: the cache saves nearly all).
func (r *rules) of(s *wire.Series) *relabelOutcome {
	place := &r.places[s.Key.Lo%uint64(len(r.places))]
	before := place.Load()
	if before != nil && before.key == s.Key {
		return before
	}
	e := r.relabel(s)
	more := e.size()
	if more > maxRememberedLabels {
		return e
	}
	if before != nil {
		more -= before.size()
	}
	if more <= 0 || r.bytes.Load()+more <= maxRemembered {
		if place.CompareAndSwap(before, e) {
			r.bytes.Add(more)
		}
	}
	return e
}

func (e *relabelOutcome) size() int64 { return int64(len(e.labels) + len(e.fault)) }

// relabel applies the rules to the labels of s.
func (r *rules) relabel(s *wire.Series) *relabelOutcome {
	var builder labels.ScratchBuilder
	before := wire.LabelsOf(&builder, s.Labels())
	b := labels.NewBuilder(before)
	e := &relabelOutcome{key: s.Key}
	if !relabel.ProcessBuilder(b, r.configs...) {
		e.fate = dropped
		return e
	}
	after := b.Labels()
	switch {
	case labels.Equal(before, after):
	case after.IsEmpty():
		e.fate = dropped
	default:
		e.fate, e.fault = renamed, unfit(after)
		if e.fault != "" {
			e.fate = unusable
			e.fault = "relabelling leaves " + e.fault
			break
		}
		e.labels = wire.AppendLabels(nil, after)
	}
	return e
}

// unfit says why labels cannot be those of a series, "" = they can.
func unfit(ls labels.Labels) (fault string) {
	ls.Range(func(l labels.Label) {
		switch {
		case l.Name == "": // labelmap can make one
			fault = "a label with no name"
		case len(l.Name) > wire.MaxLabelLength || len(l.Value) > wire.MaxLabelLength:
			fault = "a label longer than 16 MiB"
		case !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value):
			fault = "a label that is not UTF-8"
		}
	})
	if ls.Get(model.MetricNameLabel) == "" {
		return "no metric name"
	}
	return fault
}
