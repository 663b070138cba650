package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestExpansion: references make a small message mean much; what it may mean is bounded.
func TestExpansion(t *testing.T) {
	req := writev2.Request{Symbols: []string{"", "__name__", "up", "a", strings.Repeat("x", 1<<20)}}
	for range 200 {
		req.Timeseries = append(req.Timeseries,
			writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 3, 4}, Samples: make([]writev2.Sample, 1)})
	}
	f := func(want errs.Kind) {
		t.Helper()
		msg, _ := req.Marshal()
		b, err := DecodeV2(testTenant, msg)
		if errs.KindOf(err) != want {
			t.Fatalf("error %v, want %s", err, want)
		}
		if err == nil {
			b.Release()
		}
	}
	f(errs.TooLarge)
	for i := range req.Timeseries {
		req.Timeseries[i].LabelsRefs = []uint32{3, 4, 1, 2} // the general path
	}
	f(errs.TooLarge)
	for i := range req.Timeseries {
		req.Timeseries[i].LabelsRefs = []uint32{1, 2}
		req.Timeseries[i].Exemplars = []writev2.Exemplar{{LabelsRefs: []uint32{3, 4}}}
	}
	f(errs.TooLarge)
	for i := range req.Timeseries {
		req.Timeseries[i].Exemplars = nil
		req.Timeseries[i].Metadata.HelpRef = 4
	}
	f(errs.OK) // one family
	for i := range req.Timeseries {
		req.Symbols = append(req.Symbols, fmt.Sprint("up", i))
		req.Timeseries[i].LabelsRefs = []uint32{1, uint32(len(req.Symbols) - 1)}
	}
	f(errs.TooLarge)
	req.Timeseries = req.Timeseries[:20]
	f(errs.OK)
}

// TestEmptyMessages: two bytes are a histogram or an exemplar, too.
func TestEmptyMessages(t *testing.T) {
	f := func(field byte, n int, want errs.Kind) {
		t.Helper()
		series := []byte("\x0a\x0e\x0a\x08__name__\x12\x02up")
		for range n {
			series = append(series, field<<3|typeBytes, 0)
		}
		msg := append(binary.AppendUvarint([]byte{1<<3 | typeBytes}, uint64(len(series))), series...)
		b, err := DecodeV1(testTenant, msg)
		if errs.KindOf(err) != want {
			t.Fatalf("%d times field %d: error %v, want %s", n, field, err, want)
		}
		if err == nil {
			b.Release()
		}
	}
	f(2, 2_000_000, errs.OK)
	f(3, 200_000, errs.OK)
	f(3, 3_000_000, errs.TooLarge)
	f(4, 100_000, errs.OK)
	f(4, 1_000_000, errs.TooLarge)
}

func TestSymbolsWherever(t *testing.T) {
	series := writev2.Request{
		Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 2}, Samples: make([]writev2.Sample, 1)}}}
	table := writev2.Request{Symbols: []string{"", "__name__", "up"}}
	a, _ := series.Marshal()
	b, _ := table.Marshal()
	checkV2(t, append(a, b...))
	batch, err := DecodeV2(testTenant, append(a, b...))
	if err != nil || len(batch.Series) != 1 {
		t.Fatal(batch, err)
	}
	batch.Release()

	table.Symbols[0] = "x"
	b, _ = table.Marshal()
	if _, err := DecodeV2(testTenant, append(b, a...)); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("a table that begins with x: %v", err)
	}
}

// TestMetadataOncePerFamily: the series of a classic histogram say the same of one family.
func TestMetadataOncePerFamily(t *testing.T) {
	req := writev2.Request{
		Symbols: []string{"", "__name__", "rpc_seconds_bucket", "rpc_seconds_sum", "rpc_seconds_count", "le", "1", "2",
			"Help.", "s", "up"}}
	add := func(typ writev2.Metadata_MetricType, help, unit uint32, refs ...uint32) {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
			LabelsRefs: refs, Samples: make([]writev2.Sample, 1),
			Metadata: writev2.Metadata{Type: typ, HelpRef: help, UnitRef: unit}})
	}
	add(writev2.Metadata_METRIC_TYPE_UNSPECIFIED, 0, 0, 1, 10)
	add(writev2.Metadata_METRIC_TYPE_HISTOGRAM, 8, 9, 1, 2, 5, 6)
	add(writev2.Metadata_METRIC_TYPE_HISTOGRAM, 8, 9, 1, 2, 5, 7)
	add(writev2.Metadata_METRIC_TYPE_HISTOGRAM, 8, 9, 1, 3)
	add(writev2.Metadata_METRIC_TYPE_HISTOGRAM, 8, 9, 1, 4)
	add(writev2.Metadata_METRIC_TYPE_GAUGE, 0, 0, 1, 10)
	msg, _ := req.Marshal()
	b, err := DecodeV2(testTenant, msg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	want := []Metadata{{Family: "rpc_seconds", Help: "Help.", Unit: "s", Type: "histogram"}, {Family: "up", Type: "gauge"}}
	if fmt.Sprint(b.Metadata) != fmt.Sprint(want) {
		t.Fatalf("metadata %+v, want %+v", b.Metadata, want)
	}
}
