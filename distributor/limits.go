package distributor

import (
	"bytes"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// limitRequest refuses a request of too much with kind TooLarge.
func (d *Distributor) limitRequest(_ *request, p *part) error {
	l := p.limits
	if l == nil {
		return nil
	}
	over := func(limit string, value, bound int) error {
		p.tenant.refused(limit, p.samples())
		return errs.E(errs.TooLarge, "tenant %s: request has %d %s, more than %s %d: send smaller requests, or raise it in "+
			"--runtime-config.file", p.tenant.id, value, limit[len("request_"):], limit, bound)
	}
	if n := len(p.batch.Series); l.RequestSeries > 0 && n > l.RequestSeries {
		return over("request_series", n, l.RequestSeries)
	}
	if l.RequestSamples > 0 {
		if n := p.samples(); n > l.RequestSamples {
			return over("request_samples", n, l.RequestSamples)
		}
	}
	return nil
}

// limitSeries refuses the series whose labels or histograms are over a limit.
func (d *Distributor) limitSeries(_ *request, p *part) error {
	l := p.limits
	if l == nil {
		return nil
	}
	c := p.tenant.checks.Load()
	if c == nil || c.limits != l {
		c = newChecks(l)
		p.tenant.checks.Store(c)
	}
	if !c.any {
		return nil
	}
	for i := range p.batch.Series {
		s := &p.batch.Series[i]
		if s.LabelsSize() > c.short && !c.labelsFit(d.fitCache, s) || len(s.Histograms) > 0 && !c.histogramsFit(s) {
			limit, text := c.fault(s)
			p.tenant.lost(limit, samplesOf(s))
			p.refuse(i, errs.Invalid, text)
			p.leave(i)
		}
	}
	return nil
}

// checks tests series against one version of a tenant's limits.
type checks struct {
	limits *tenant.Limits
	any    bool
	// short is the longest that labels may be, in bytes, without a look at them: neither their number nor the size of a
	// name or value can be too much.
	short int
	salt  uint64 // of this version of the limits, in fitCache
}

// minLabel is the fewest canonical bytes of a label: a name, a value and their ends.
const minLabel = 4

var versions atomic.Uint64

// newChecks prepares the checks of l.
func newChecks(l *tenant.Limits) *checks {
	c := &checks{limits: l, short: math.MaxInt}
	if l.LabelsPerSeries > 0 && l.LabelsPerSeries < math.MaxInt/minLabel-1 {
		c.short = minLabel*(l.LabelsPerSeries+1) - 1
	}
	for _, bound := range []int{l.LabelNameBytes, l.LabelValueBytes} {
		if bound > 0 {
			c.short = min(c.short, bound)
		}
	}
	c.any = c.short < math.MaxInt || l.HistogramBuckets > 0
	c.salt = versions.Add(1) * 0x9e3779b97f4a7c15 // odd: no two versions have the same
	return c
}

// labelsFit reports whether the labels of s, which are not short, are within the limits. Series that fit are remembered
// (BenchmarkLimits: half of counting the labels alone, a tenth of looking at each).
func (c *checks) labelsFit(known *fitCache, s *wire.Series) bool {
	if known.has(s.Key, c.salt) {
		return true
	}
	if _, fault := c.labelFault(s.Labels()); fault != "" {
		return false
	}
	known.add(s.Key, c.salt)
	return true
}

var separator = []byte{wire.Sep}

// fault names the limit that s is over, and says how far.
func (c *checks) fault(s *wire.Series) (limit, text string) {
	if limit, text := c.labelFault(s.Labels()); text != "" {
		return limit, text
	}
	most := 0
	for i := range s.Histograms {
		most = max(most, buckets(&s.Histograms[i]))
	}
	return tooMuch("histogram_buckets", fmt.Sprintf("a histogram of %d buckets", most), c.limits.HistogramBuckets)
}

// labelFault is fault for labels; "" = they are within the limits.
func (c *checks) labelFault(labels []byte) (limit, text string) {
	n := bytes.Count(labels, separator) / 2
	if l := c.limits.LabelsPerSeries; l > 0 && n > l {
		return tooMuch("labels_per_series", fmt.Sprintf("%d labels", n), l)
	}
	for len(labels) > 0 {
		name, value, rest := wire.NextLabel(labels)
		if l := c.limits.LabelNameBytes; l > 0 && len(name) > l {
			text := fmt.Sprintf("label name %.64q of %d bytes", name, len(name))
			return tooMuch("label_name_bytes", text, l)
		}
		if l := c.limits.LabelValueBytes; l > 0 && len(value) > l {
			text := fmt.Sprintf("value of label %.64q of %d bytes", name, len(value))
			return tooMuch("label_value_bytes", text, l)
		}
		labels = rest
	}
	return "", ""
}

// tooMuch is the name of a limit, and the text of a fault of that limit.
func tooMuch(limit, what string, bound int) (string, string) {
	return limit, fmt.Sprintf("%s, more than %s %d (to be raised in --runtime-config.file)", what, limit, bound)
}

// histogramsFit reports whether the histograms of s are within the limit.
func (c *checks) histogramsFit(s *wire.Series) bool {
	bound := c.limits.HistogramBuckets
	if bound <= 0 {
		return true
	}
	for i := range s.Histograms {
		if buckets(&s.Histograms[i]) > bound {
			return false
		}
	}
	return true
}

// buckets is how many buckets h stores, not counting the one at zero. If h has more spans or bounds than buckets it is
// their number, since all of them are stored.
func buckets(h *wire.Histogram) int {
	if i := h.H; i != nil {
		return max(len(i.PositiveBuckets)+len(i.NegativeBuckets), len(i.PositiveSpans)+len(i.NegativeSpans),
			len(i.CustomValues))
	}
	f := h.FH
	return max(len(f.PositiveBuckets)+len(f.NegativeBuckets), len(f.PositiveSpans)+len(f.NegativeSpans),
		len(f.CustomValues))
}

// fitCache remembers series that were found within some version of limits. A series is taken for another one only if 64
// bits of its key and its set, 16 bits more, are the same.
type fitCache struct {
	sets [1 << 16][4]atomic.Uint64 // two sets share a cache line
}

// has reports whether k was found within the limits of salt.
func (f *fitCache) has(k wire.Key, salt uint64) bool {
	set, want := &f.sets[k.Lo%uint64(len(f.sets))], k.Hi^salt
	return set[0].Load() == want || set[1].Load() == want || set[2].Load() == want || set[3].Load() == want
}

// add remembers k. It takes an empty place of its set, or that of another series.
func (f *fitCache) add(k wire.Key, salt uint64) {
	set := &f.sets[k.Lo%uint64(len(f.sets))]
	at := &set[k.Hi%uint64(len(set))]
	for i := range set {
		if set[i].Load() == 0 {
			at = &set[i]
			break
		}
	}
	at.Store(k.Hi ^ salt)
}

// limitsOf are the limits of a tenant at the moment, nil where none are kept.
func (d *Distributor) limitsOf(id tenant.ID) *tenant.Limits {
	if d.opts.Limits == nil {
		return nil
	}
	return d.opts.Limits(id)
}
