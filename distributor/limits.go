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

// admission is what of a batch is to be placed.
type admission struct {
	account *account
	// batch has a reference of the admission. It is the batch that was pushed, or one that it was rewritten to.
	batch  *wire.Batch
	series int // in the batch that was pushed
	// skip marks series that are not to be placed; nil = none.
	skip    []bool
	skipped int
	// failures are the series that were refused, by their Origin.
	failures []wire.Failure
	// duplicates are samples of HA pairs whose other replica's are written: no failures.
	duplicates Dropped
	// claims are the series of HA pairs that are to be stored.
	claims []claim
}

// Dropped is what was taken out of a request on purpose.
type Dropped struct{ Samples, Histograms, Exemplars int }

// leave takes series i out.
func (a *admission) leave(i int) {
	if a.skip == nil {
		a.skip = make([]bool, len(a.batch.Series))
	}
	if !a.skip[i] {
		a.skip[i] = true
		a.skipped++
	}
}

func (d *Dropped) add(s *wire.Series) {
	d.Samples += len(s.Samples)
	d.Histograms += len(s.Histograms)
	d.Exemplars += len(s.Exemplars)
}

// duplicate takes series i out since another replica's is stored.
func (a *admission) duplicate(i int) {
	a.duplicates.add(&a.batch.Series[i])
	a.leave(i)
}

// refuse takes series i out as a failure of kind Invalid. The first ones name their labels.
func (a *admission) refuse(i int, reason string) { a.refuseAs(errs.Invalid, i, reason) }

// refuseAs is refuse for another kind of failure.
func (a *admission) refuseAs(kind errs.Kind, i int, reason string) {
	s := &a.batch.Series[i]
	if len(a.failures) < shownFailures {
		reason = s.Text() + ": " + reason
	}
	a.failures = append(a.failures, wire.Failure{
		Series: a.batch.Origin(i), Kind: kind, Reason: reason,
		Samples: len(s.Samples), Histograms: len(s.Histograms), Exemplars: len(s.Exemplars),
	})
	a.leave(i)
}

// become makes b, which a.batch was rewritten to, the batch of a. Series of which one has become by that were taken out all
// or none, since what is taken out keeps its labels.
func (a *admission) become(b *wire.Batch) {
	was, skip := a.batch, a.skip
	a.batch = b
	if len(b.Series) == len(was.Series) {
		return
	}
	a.skip, a.skipped = nil, 0
	places := make([]int, 0, len(was.Series)+1) // how many series of b stand before each of was
	at := 0
	for i := range was.Series {
		places = append(places, at)
		if at == len(b.Series) || was.Origin(i) != b.Origin(at) {
			continue // one with an earlier series
		}
		if skip != nil && skip[i] {
			a.leave(at)
		}
		at++
	}
	places = append(places, at)
	for i := range a.claims {
		c := &a.claims[i]
		c.from, c.to = places[c.from], places[c.to]
	}
}

// in reports whether series i is to be placed.
func (a *admission) in(i int) bool { return a.skip == nil || !a.skip[i] }

// samples counts what is to be placed.
func (a *admission) samples() (n int) {
	for i := range a.batch.Series {
		if a.in(i) {
			n += samplesOf(&a.batch.Series[i])
		}
	}
	return n
}

func samplesOf(s *wire.Series) int { return len(s.Samples) + len(s.Histograms) }

// nothing reports whether there is nothing to place.
func (a *admission) nothing() bool {
	return a.skipped == len(a.batch.Series) && len(a.batch.Metadata) == 0
}

// result is what became of the series that are not to be placed.
func (a *admission) result() Result {
	b := a.batch
	r := Result{Tenant: b.Tenant, Series: a.series + b.Named() - len(b.Series), Duplicates: a.duplicates}
	if len(b.Rejected)+len(a.failures) > 0 {
		r.Failures = append(append([]wire.Failure(nil), b.Rejected...), a.failures...)
	}
	return r
}

// admit decides what of b is to be placed; an error refuses all of it. Without one a.batch is to be released.
func (d *Distributor) admit(a *admission, b *wire.Batch) error {
	*a = admission{account: d.accounts.of(b.Tenant), batch: b, series: len(b.Series)}
	b.Retain()
	if err := d.screen(a); err != nil {
		d.pairs.settle(a, nil)
		a.batch.Release()
		return err
	}
	return nil
}

// screen is the way of a request to being placed: bounds of the whole, bounds of each series, the tenant's rate. Who is
// refused for one of them has not used up the next.
func (d *Distributor) screen(a *admission) error {
	if d.opts.Limits == nil {
		return nil
	}
	l := d.opts.Limits(a.batch.Tenant)
	if err := a.checkRequest(l); err != nil {
		return err
	}
	if l.HAPairs {
		d.pairs.dedupe(a, l)
	}
	d.checkSeries(a, l)
	if l.SamplesPerSecond <= 0 {
		return nil
	}
	return d.throttle(a.account, l, a.samples())
}

// checkRequest refuses a request of too much with kind TooLarge.
func (a *admission) checkRequest(l *tenant.Limits) error {
	over := func(limit string, value, bound int) error {
		a.account.refused(limit, a.samples())
		return errs.E(errs.TooLarge, "tenant %s: request has %d %s, more than %s %d: send smaller requests, or raise it in --runtime-config.file",
			a.batch.Tenant, value, limit[len("request_"):], limit, bound)
	}
	if n := len(a.batch.Series); l.RequestSeries > 0 && n > l.RequestSeries {
		return over("request_series", n, l.RequestSeries)
	}
	if l.RequestSamples > 0 {
		if n := a.samples(); n > l.RequestSamples {
			return over("request_samples", n, l.RequestSamples)
		}
	}
	return nil
}

// checkSeries takes out the series whose labels or histograms are over a limit, of those that are not out already.
func (d *Distributor) checkSeries(a *admission, l *tenant.Limits) {
	c := a.account.checks.Load()
	if c == nil || c.limits != l {
		c = newChecks(l)
		a.account.checks.Store(c)
	}
	if !c.any {
		return
	}
	for i := range a.batch.Series {
		if !a.in(i) {
			continue
		}
		s := &a.batch.Series[i]
		if s.LabelsSize() > c.short && !c.labelsFit(d.fits, s) || len(s.Histograms) > 0 && !c.histogramsFit(s) {
			limit, text := c.fault(s)
			a.account.lost(limit, samplesOf(s))
			a.refuse(i, text)
		}
	}
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
func (c *checks) labelsFit(known *fits, s *wire.Series) bool {
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
type fits struct {
	sets [1 << 16][4]atomic.Uint64 // two sets share a cache line
}

func (f *fits) has(k wire.Key, salt uint64) bool {
	set, want := &f.sets[k.Lo%uint64(len(f.sets))], k.Hi^salt
	return set[0].Load() == want || set[1].Load() == want || set[2].Load() == want || set[3].Load() == want
}

// add remembers k in place of nothing, or of another.
func (f *fits) add(k wire.Key, salt uint64) {
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
