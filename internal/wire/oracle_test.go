package wire

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

const testTenant tenant.ID = "acme"

// outcome is what a request comes to, said with Prometheus's own types.
type outcome struct {
	series   []oracleSeries
	metadata []Metadata
	lost     Failure // sums
}

type oracleSeries struct {
	labels     labels.Labels
	samples    []Sample
	histograms []Histogram
	exemplars  []oracleExemplar
}

type oracleExemplar struct {
	t      int64
	v      float64
	labels labels.Labels
}

func usable(ls labels.Labels) bool {
	_, dup := ls.HasDuplicateLabelNames()
	return ls.Has(model.MetricNameLabel) && ls.IsValid(model.UTF8Validation) && !dup
}

func usableExemplar(ls labels.Labels) bool {
	ok := true
	ls.Range(func(l labels.Label) { ok = ok && l.Name != "" && utf8.ValidString(l.Name) && utf8.ValidString(l.Value) })
	_, dup := ls.HasDuplicateLabelNames()
	return ok && !dup
}

// storable does to a histogram what Prometheus's write handler and head do before they store it.
func storable(h Histogram) (Histogram, bool) {
	const finest = histogram.ExponentialSchemaMax
	if h.H != nil {
		if histogram.IsExponentialSchemaReserved(h.H.Schema) && h.H.Schema > finest && h.H.ReduceResolution(finest) != nil {
			return h, false
		}
		return h, h.H.Validate() == nil
	}
	if histogram.IsExponentialSchemaReserved(h.FH.Schema) && h.FH.Schema > finest && h.FH.ReduceResolution(finest) != nil {
		return h, false
	}
	return h, h.FH.Validate() == nil
}

// add adds s to o, or to what is lost.
func (o *outcome) add(s oracleSeries, ok, needsData bool) {
	all := Failure{Samples: len(s.samples), Histograms: len(s.histograms), Exemplars: len(s.exemplars)}
	if !ok || needsData && all.Samples+all.Histograms+all.Exemplars == 0 {
		o.lost.Samples += all.Samples
		o.lost.Histograms += all.Histograms
		o.lost.Exemplars += all.Exemplars
		return
	}
	kept := oracleSeries{labels: s.labels.WithoutEmpty(), samples: s.samples}
	for _, h := range s.histograms {
		if h, ok := storable(h); ok {
			kept.histograms = append(kept.histograms, h)
		}
	}
	for _, e := range s.exemplars {
		if usableExemplar(e.labels) {
			e.labels = e.labels.WithoutEmpty()
			kept.exemplars = append(kept.exemplars, e)
		}
	}
	o.lost.Histograms += all.Histograms - len(kept.histograms)
	o.lost.Exemplars += all.Exemplars - len(kept.exemplars)
	if len(kept.samples)+len(kept.histograms)+len(kept.exemplars) == 0 {
		return
	}
	for i := range o.series { // a series that comes again is one
		if have := &o.series[i]; labels.Equal(have.labels, kept.labels) {
			have.samples = append(have.samples, kept.samples...)
			have.histograms = append(have.histograms, kept.histograms...)
			have.exemplars = append(have.exemplars, kept.exemplars...)
			return
		}
	}
	o.series = append(o.series, kept)
}

func (o *outcome) addMetadata(family, help, unit string, typ int32) {
	if family == "" || !utf8.ValidString(family) {
		return
	}
	for _, m := range o.metadata {
		if m.Family == family {
			return
		}
	}
	word := "unknown"
	if name, ok := prompb.MetricMetadata_MetricType_name[typ]; ok {
		word = strings.ToLower(name)
	}
	o.metadata = append(o.metadata,
		Metadata{family, strings.ToValidUTF8(help, "\uFFFD"), strings.ToValidUTF8(unit, "\uFFFD"), word})
}

func oracleV1(msg []byte) (*outcome, error) {
	var req prompb.WriteRequest
	if err := req.Unmarshal(msg); err != nil {
		return nil, err
	}
	o := &outcome{}
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		s := oracleSeries{labels: ts.ToLabels(&b, nil)}
		for _, p := range ts.Samples {
			s.samples = append(s.samples, Sample{T: p.Timestamp, V: p.Value})
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				s.histograms = append(s.histograms, Histogram{T: h.Timestamp, FH: h.ToFloatHistogram()})
			} else {
				s.histograms = append(s.histograms, Histogram{T: h.Timestamp, H: h.ToIntHistogram()})
			}
		}
		for _, e := range ts.Exemplars {
			x := e.ToExemplar(&b, nil)
			s.exemplars = append(s.exemplars, oracleExemplar{e.Timestamp, e.Value, x.Labels})
		}
		o.add(s, usable(s.labels), false)
	}
	for _, m := range req.Metadata {
		o.addMetadata(m.MetricFamilyName, m.Help, m.Unit, int32(m.Type))
	}
	return o, nil
}

func oracleV2(msg []byte) (*outcome, error) {
	var req writev2.Request
	if err := req.Unmarshal(msg); err != nil {
		return nil, err
	}
	if len(req.Symbols) > 0 && req.Symbols[0] != "" {
		return nil, fmt.Errorf("symbol 0 is %q", req.Symbols[0])
	}
	o := &outcome{}
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		meta, metaErr := ts.ToMetadata(req.Symbols)
		s := oracleSeries{labels: ls}
		for _, p := range ts.Samples {
			s.samples = append(s.samples, Sample{T: p.Timestamp, ST: p.StartTimestamp, V: p.Value})
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				s.histograms = append(s.histograms, Histogram{T: h.Timestamp, ST: h.StartTimestamp, FH: h.ToFloatHistogram()})
			} else {
				s.histograms = append(s.histograms, Histogram{T: h.Timestamp, ST: h.StartTimestamp, H: h.ToIntHistogram()})
			}
		}
		for _, e := range ts.Exemplars {
			x, err := e.ToExemplar(&b, req.Symbols)
			if err != nil {
				x.Labels = labels.FromStrings("", "unusable")
			}
			s.exemplars = append(s.exemplars, oracleExemplar{e.Timestamp, e.Value, x.Labels})
		}
		ok := err == nil && metaErr == nil && usable(ls)
		o.add(s, ok, true)
		if !ok || len(ts.Samples)+len(ts.Histograms)+len(ts.Exemplars) == 0 ||
			ts.Metadata.Type == 0 && meta.Help == "" && meta.Unit == "" {
			continue
		}
		o.addMetadata(oracleFamily(ls.Get(model.MetricNameLabel), ts.Metadata.Type), meta.Help, meta.Unit,
			int32(ts.Metadata.Type))
	}
	return o, nil
}

func oracleFamily(name string, typ writev2.Metadata_MetricType) string {
	suffixes := map[writev2.Metadata_MetricType]string{
		writev2.Metadata_METRIC_TYPE_HISTOGRAM:      "_bucket _sum _count",
		writev2.Metadata_METRIC_TYPE_GAUGEHISTOGRAM: "_bucket _gsum _gcount",
		writev2.Metadata_METRIC_TYPE_SUMMARY:        "_sum _count",
	}
	for _, s := range strings.Fields(suffixes[typ]) {
		if family, ok := strings.CutSuffix(name, s); ok && family != "" {
			return family
		}
	}
	return name
}

// check compares a Batch with what it should hold.
func (o *outcome) check(t testing.TB, b *Batch) {
	t.Helper()
	if len(b.Series) != len(o.series) {
		t.Fatalf("%d series, want %d; rejected %+v", len(b.Series), len(o.series), b.Rejected)
	}
	for i := range b.Series {
		o.series[i].check(t, b.Tenant, &b.Series[i])
	}
	if fmt.Sprint(b.Metadata) != fmt.Sprint(o.metadata) {
		t.Fatalf("metadata %+v, want %+v", b.Metadata, o.metadata)
	}
	var lost Failure
	for _, f := range b.Rejected {
		if f.Series != -1 || f.Kind.String() != "invalid" || f.Reason == "" || len(f.Reason) > 2000 ||
			strings.Contains(f.Reason, "\n") {
			t.Fatalf("bad rejection %+v", f)
		}
		lost.Samples += f.Samples
		lost.Histograms += f.Histograms
		lost.Exemplars += f.Exemplars
	}
	if lost != o.lost {
		t.Fatalf("lost %+v, want %+v", b.Rejected, o.lost)
	}
}

func (want *oracleSeries) check(t testing.TB, id tenant.ID, got *Series) {
	t.Helper()
	var builder labels.ScratchBuilder
	if ls := LabelsOf(&builder, got.Labels()); !labels.Equal(ls, want.labels) {
		t.Fatalf("labels %s, want %s", ls, want.labels)
	}
	full := []byte(string(id) + "\xff")
	want.labels.Range(func(l labels.Label) { full = append(full, l.Name+"\xff"+l.Value+"\xff"...) })
	if !bytes.Equal(got.Labels(), full[len(id)+1:]) {
		t.Fatalf("canonical bytes %q, want %q", got.Labels(), full[len(id)+1:])
	}
	if key, _ := Identify(full); got.Key != key || got.Hash != xxhash.Sum64(full) {
		t.Fatalf("key %x, hash %x of %q", got.Key, got.Hash, full)
	}
	if len(got.Samples) != len(want.samples) || len(got.Histograms) != len(want.histograms) ||
		len(got.Exemplars) != len(want.exemplars) {
		t.Fatalf("%s: %d samples, %d histograms, %d exemplars, want %d, %d, %d", want.labels, len(got.Samples),
			len(got.Histograms), len(got.Exemplars), len(want.samples), len(want.histograms), len(want.exemplars))
	}
	for i, w := range want.samples {
		if g := got.Samples[i]; g.T != w.T || g.ST != w.ST || math.Float64bits(g.V) != math.Float64bits(w.V) {
			t.Fatalf("%s: sample %+v, want %+v", want.labels, g, w)
		}
	}
	for i, w := range want.histograms {
		if g := got.Histograms[i]; !sameHistogram(g, w) {
			t.Fatalf("%s: histogram %+v, want %+v", want.labels, g, w)
		}
	}
	for i, w := range want.exemplars {
		g := got.Exemplars[i]
		ls := LabelsOf(&builder, g.Labels)
		if g.T != w.t || math.Float64bits(g.V) != math.Float64bits(w.v) || !labels.Equal(ls, w.labels) {
			t.Fatalf("%s: exemplar %+v %s, want %+v", want.labels, g, ls, w)
		}
	}
}

// sameHistogram compares with Equals, or by bytes where a zero threshold is not a number and Equals cannot be true.
func sameHistogram(a, b Histogram) bool {
	if a.T != b.T || a.ST != b.ST || (a.H == nil) != (b.H == nil) || (a.FH == nil) != (b.FH == nil) {
		return false
	}
	if a.H != nil && a.H.Equals(b.H) {
		return a.H.CounterResetHint == b.H.CounterResetHint
	}
	if a.FH != nil && a.FH.Equals(b.FH) {
		return a.FH.CounterResetHint == b.FH.CounterResetHint
	}
	// Equals knows no NaN in bounds of buckets.
	return bytes.Equal(appendHistogram(nil, &a), appendHistogram(nil, &b))
}

// checkV1 decodes msg and compares the result, and that of a detour through a frame, with the oracle.
func checkV1(t testing.TB, msg []byte) { t.Helper(); checkMessage(t, msg, DecodeV1, oracleV1) }
func checkV2(t testing.TB, msg []byte) { t.Helper(); checkMessage(t, msg, DecodeV2, oracleV2) }

func checkMessage(
	t testing.TB,
	msg []byte,
	decode func(tenant.ID, []byte) (*Batch, error),
	oracle func([]byte) (*outcome, error),
) {
	t.Helper()
	want, wantErr := oracle(msg)
	given := bytes.Clone(msg)
	b, err := decode(testTenant, given)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("decode: %v, want %v", err, wantErr)
	}
	if err != nil {
		return
	}
	clear(given) // the batch must not need it
	want.check(t, b)
	frame := AppendShard(nil, All(b))
	again, err := DecodeShard(frame)
	if err != nil {
		t.Fatalf("frame: %v", err)
	}
	b.Release()
	want.lost = Failure{}
	want.check(t, again)
	again.Release()
}
