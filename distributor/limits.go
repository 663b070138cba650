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
		return errs.E(errs.TooLarge, "tenant %s: request has %d %s, more than %s %d: send smaller requests, or raise it in --runtime-config.file",
			p.tenant.id, value, limit[len("request_"):], limit, bound)
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
	// short is how many bytes labels may have that need no look: neither their number nor a name or value can be too much.
	short int
	salt  uint64 // of this version of the limits, in the memory of what fits
}

// minLabel is the fewest canonical bytes of a label: a name, a value and their ends.
const minLabel = 4

var versions atomic.Uint64

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

// labelsFit reports whether the labels of s, which are not short, are within the limits. Those that are are remembered
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

// labelFault is fault for labels; "" = there is none.
func (c *checks) labelFault(labels []byte) (limit, text string) {
	n := bytes.Count(labels, separator) / 2
	if l := c.limits.LabelsPerSeries; l > 0 && n > l {
		return tooMuch("labels_per_series", fmt.Sprintf("%d labels", n), l)
	}
	for len(labels) > 0 {
		name, value, rest := wire.NextLabel(labels)
		if l := c.limits.LabelNameBytes; l > 0 && len(name) > l {
			return tooMuch("label_name_bytes", fmt.Sprintf("label name %.64q of %d bytes", name, len(name)), l)
		}
		if l := c.limits.LabelValueBytes; l > 0 && len(value) > l {
			return tooMuch("label_value_bytes", fmt.Sprintf("value of label %.64q of %d bytes", name, len(value)), l)
		}
		labels = rest
	}
	return "", ""
}

func tooMuch(limit, what string, bound int) (string, string) {
	return limit, fmt.Sprintf("%s, more than %s %d (to be raised in --runtime-config.file)", what, limit, bound)
}

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

// buckets is how many buckets h stores, the one at zero not counted, or how many spans or bounds of buckets if it has more of
// these: all of them are stored, and only the buckets have values.
func buckets(h *wire.Histogram) int {
	if h.H != nil {
		return max(len(h.H.PositiveBuckets)+len(h.H.NegativeBuckets), len(h.H.PositiveSpans)+len(h.H.NegativeSpans), len(h.H.CustomValues))
	}
	return max(len(h.FH.PositiveBuckets)+len(h.FH.NegativeBuckets), len(h.FH.PositiveSpans)+len(h.FH.NegativeSpans), len(h.FH.CustomValues))
}

// fits remembers of many series that they were found within limits of some version. A series is taken for another one only
// if 64 bits of its key and its set, 16 bits more, are the same.
type fitCache struct {
	sets [1 << 16][4]atomic.Uint64 // two sets share a cache line
}

func (f *fitCache) has(k wire.Key, salt uint64) bool {
	set, want := &f.sets[k.Lo%uint64(len(f.sets))], k.Hi^salt
	return set[0].Load() == want || set[1].Load() == want || set[2].Load() == want || set[3].Load() == want
}

// add remembers k in place of nothing, or of another.
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
