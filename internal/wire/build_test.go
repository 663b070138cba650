package wire

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// typicalLabels are twelve labels of about 280 bytes, as a Kubernetes target has them.
func typicalLabels(i int) labels.Labels {
	return labels.FromStrings(
		"__name__", fmt.Sprintf("http_request_duration_seconds_total_%02d", i%40),
		"cluster", "eu-1", "container", "checkout",
		"endpoint", "http-metrics", "instance", fmt.Sprintf("10.128.%d.%d:9090", i/250%250, i%250),
		"job", "monitoring/checkout", "method", "GET", "namespace", "payments",
		"node", fmt.Sprintf("ip-10-128-%d-7.eu-1", i/250%250), "pod", fmt.Sprintf("checkout-service-7d9f8b6c5-%05d", i),
		"service", "checkout", "status", "200",
	)
}

func typicalV1(series int) []byte { return typicalFrom(0, series) }

// typicalFrom has the series first, first+1, ...
func typicalFrom(first, series int) []byte {
	var req prompb.WriteRequest
	for i := first; i < first+series; i++ {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels:  prompb.FromLabels(typicalLabels(i), nil),
			Samples: []prompb.Sample{{Value: float64(i) + 0.25, Timestamp: 1790000000000}},
		})
	}
	msg, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

func typicalV2(series int) []byte {
	symbols := writev2.NewSymbolTable()
	var req writev2.Request
	for i := range series {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
			LabelsRefs: symbols.SymbolizeLabels(typicalLabels(i), nil),
			Samples:    []writev2.Sample{{Value: float64(i) + 0.25, Timestamp: 1790000000000}},
			Metadata: writev2.Metadata{
				Type:    writev2.Metadata_METRIC_TYPE_COUNTER,
				HelpRef: symbols.Symbolize("Time that requests took, in seconds."),
			},
		})
	}
	req.Symbols = symbols.Symbols()
	msg, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

var oddTexts = []string{
	"",
	"a",
	"b",
	"job",
	"__name__",
	"__name__x",
	"up",
	"über",
	"值",
	"\xff",
	"a\xffb",
	"x\x00",
	"very_long_label_name_or_value_" +
		"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
	"foo_bucket",
	"foo_sum",
	"foo_count",
	"foo",
}

func pick(r *rand.Rand) string { return oddTexts[r.IntN(len(oddTexts))] }

// oddLabels are labels of all kinds, most often usable ones.
func oddLabels(r *rand.Rand) []prompb.Label {
	var ls []prompb.Label
	if r.IntN(10) > 0 {
		ls = append(ls, prompb.Label{Name: "__name__", Value: "up"})
	}
	for _, name := range []string{"a", "b", "job", "über"} {
		if r.IntN(3) > 0 {
			ls = append(ls, prompb.Label{Name: name, Value: "v" + name})
		}
	}
	switch r.IntN(8) {
	case 0:
		ls = append(ls, prompb.Label{Name: pick(r), Value: pick(r)})
	case 1:
		r.Shuffle(len(ls), func(i, j int) { ls[i], ls[j] = ls[j], ls[i] })
	case 2:
		for i := range ls {
			if r.IntN(3) == 0 {
				ls[i].Value = pick(r)
			}
		}
	}
	return ls
}

func oddHistograms(r *rand.Rand) []prompb.Histogram {
	var hs []prompb.Histogram
	for range r.IntN(3) {
		t := r.Int64N(1e12)
		var h prompb.Histogram
		switch r.IntN(4) {
		case 0:
			h = prompb.FromIntHistogram(t, tsdbutil.GenerateTestHistogram(r.Int64N(50)))
		case 1:
			h = prompb.FromFloatHistogram(t, tsdbutil.GenerateTestFloatHistogram(r.Int64N(50)))
		case 2:
			h = prompb.FromIntHistogram(t, tsdbutil.GenerateTestCustomBucketsHistogram(r.Int64N(50)))
		case 3:
			h = prompb.FromFloatHistogram(t, tsdbutil.GenerateTestCustomBucketsFloatHistogram(r.Int64N(50)))
		}
		h.ResetHint = prompb.Histogram_ResetHint(r.IntN(4))
		switch r.IntN(6) {
		case 0:
			h.Schema = int32(r.IntN(70) - 60)
		case 1:
			h.Schema = 10
		case 2:
			h.Count = &prompb.Histogram_CountInt{CountInt: 7}
		}
		hs = append(hs, h)
	}
	return hs
}

func oddV1(r *rand.Rand) []byte {
	var req prompb.WriteRequest
	for range r.IntN(6) {
		ts := prompb.TimeSeries{Labels: oddLabels(r), Histograms: oddHistograms(r)}
		for range r.IntN(3) {
			ts.Samples = append(ts.Samples, prompb.Sample{Value: r.Float64(), Timestamp: r.Int64() - r.Int64()})
		}
		for range r.IntN(3) {
			ts.Exemplars = append(ts.Exemplars,
				prompb.Exemplar{Labels: oddLabels(r), Value: r.Float64(), Timestamp: r.Int64N(1e12)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	for range r.IntN(3) {
		req.Metadata = append(req.Metadata, prompb.MetricMetadata{
			Type: prompb.MetricMetadata_MetricType(r.IntN(10)), MetricFamilyName: pick(r), Help: pick(r), Unit: pick(r)})
	}
	msg, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

func oddV2(r *rand.Rand) []byte {
	var req writev2.Request
	symbols := writev2.NewSymbolTable()
	refs := func(ls []prompb.Label) (refs []uint32) {
		for _, l := range ls {
			refs = append(refs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
		}
		switch r.IntN(12) {
		case 0:
			refs = append(refs, 0)
		case 1:
			refs = append(refs, 99, 0)
		}
		return refs
	}
	for range r.IntN(6) {
		ts := writev2.TimeSeries{LabelsRefs: refs(oddLabels(r))}
		for range r.IntN(3) {
			ts.Samples = append(ts.Samples,
				writev2.Sample{Value: r.Float64(), Timestamp: r.Int64() - r.Int64(), StartTimestamp: r.Int64N(2) * r.Int64N(1e12)})
		}
		for _, h := range oddHistograms(r) {
			raw, _ := h.Marshal() // the two versions differ by one field
			var h2 writev2.Histogram
			if err := h2.Unmarshal(raw); err != nil {
				panic(err)
			}
			h2.StartTimestamp = r.Int64N(1e12)
			ts.Histograms = append(ts.Histograms, h2)
		}
		for range r.IntN(3) {
			ts.Exemplars = append(ts.Exemplars,
				writev2.Exemplar{LabelsRefs: refs(oddLabels(r)), Value: r.Float64(), Timestamp: r.Int64N(1e12)})
		}
		if r.IntN(2) == 0 {
			ts.Metadata = writev2.Metadata{Type: writev2.Metadata_MetricType(r.IntN(9)), HelpRef: symbols.Symbolize(pick(r)),
				UnitRef: symbols.Symbolize(pick(r))}
		}
		if r.IntN(12) == 0 {
			ts.Metadata.UnitRef = 99
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	msg, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

// shuffled is a remote write 1.0 message with the labels of each series the other way round.
func shuffled(msg []byte) []byte {
	var req prompb.WriteRequest
	if err := req.Unmarshal(msg); err != nil {
		panic(err)
	}
	for _, ts := range req.Timeseries {
		slices.Reverse(ts.Labels)
	}
	msg, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

func snappyBody(msg []byte) []byte { return snappy.Encode(nil, msg) }
