package test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

// otlpJSON is a request of a counter, a delta counter, and a histogram, as one would write it by hand.
func otlpJSON(at time.Time) []byte {
	return fmt.Appendf(nil, `{"resourceMetrics":[{
  "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}},{"key":"host.name","value":{"stringValue":"h1"}}]},
  "scopeMetrics":[{"metrics":[
    {"name":"http.requests","unit":"1","description":"Requests.","sum":{"isMonotonic":true,"aggregationTemporality":2,
      "dataPoints":[{"asInt":"5","timeUnixNano":"%[1]d","attributes":[{"key":"http.method","value":{"stringValue":"GET"}}]}]}},
    {"name":"lost","sum":{"aggregationTemporality":1,"dataPoints":[{"asInt":"5","timeUnixNano":"%[1]d"}]}},
    {"name":"latency","unit":"ms","histogram":{"aggregationTemporality":2,
      "dataPoints":[{"count":"3","sum":7,"bucketCounts":["2","1"],"explicitBounds":[1],"timeUnixNano":"%[1]d"}]}}
  ]}]}]}`, at.UnixNano())
}

// TestOTLPByHand posts JSON to each path, plain and gzip, and reads it back.
func TestOTLPByHand(t *testing.T) {
	t.Parallel()
	_, base := startAll(t, t.TempDir(), "--receive.otlp-promote-resource-attributes=host.name")
	now := time.Now()
	body := otlpJSON(now)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(body)
	z.Close()
	for i, path := range []string{"/api/v1/otlp", "/api/v1/otlp/v1/metrics", "/otlp/v1/metrics"} {
		tenant := fmt.Sprint("t", i)
		header := tenantHeader(tenant)
		header["Content-Type"] = []string{"application/json"}
		send := body
		if i > 0 {
			header["Content-Encoding"], send = []string{"gzip"}, zipped.Bytes()
		}
		for range 2 { // the second time everything is there already, and that is fine
			answer, err := do(http.MethodPost, base+path, header, send)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				PartialSuccess struct{ RejectedDataPoints, ErrorMessage string }
			}
			if err := json.Unmarshal(answer, &got); err != nil {
				t.Fatal(err)
			}
			if p := got.PartialSuccess; p.RejectedDataPoints != "1" ||
				!strings.Contains(p.ErrorMessage, `metric "lost", 1 data points: delta temporality is not supported`) {
				t.Fatalf("%s answers %s", path, answer)
			}
		}
		a := api{base: base, header: tenantHeader(tenant)}
		f := func(expr string, want float64) {
			t.Helper()
			ans, err := a.query(expr, now.Add(time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if v, err := scalarOf(ans); err != nil || v != want {
				t.Fatalf("%s: %v %v, want %v", expr, v, err, want)
			}
		}
		f(`http_requests_total{job="shop",http_method="GET",host_name="h1"}`, 5)
		f(`latency_milliseconds_bucket{le="1",job="shop"}`, 2)
		f(`latency_milliseconds_count`, 3)
		f(`target_info{job="shop",host_name="h1"}`, 1)
		f(`count({__name__=~".+"})`, 6)
		meta, err := a.get("metadata", url.Values{"metric": {"http_requests_total"}})
		if err != nil || !strings.Contains(string(meta.Data), `"type":"counter"`) ||
			!strings.Contains(string(meta.Data), `"help":"Requests."`) {
			t.Fatalf("metadata %s %v", meta.Data, err)
		}
	}
	_, err := do(http.MethodPost, base+"/otlp/v1/metrics", http.Header{"Content-Type": {"application/json"}}, []byte("{"))
	if status(err) != 400 || !strings.Contains(err.Error(), `{"code":3,"message":"the message of 1 bytes`) {
		t.Fatalf("half a message: %v", err)
	}
	_, err = do(http.MethodPost, base+"/otlp/v1/metrics", http.Header{"Content-Type": {"application/json"}},
		otlpJSON(now.Add(-48*time.Hour)))
	if status(err) != 400 || !strings.Contains(err.Error(), "48h") && !strings.Contains(err.Error(), "old") {
		t.Fatalf("two days old: %v", err)
	}
}

// TestOTLPFromSDK lets an OpenTelemetry SDK export counters, gauges and both histograms.
func TestOTLPFromSDK(t *testing.T) {
	t.Parallel()
	_, base := startAll(t, t.TempDir())
	ctx := context.Background()
	exporter, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(base+"/otlp/v1/metrics"),
		otlpmetrichttp.WithHeaders(map[string]string{"X-Scope-OrgID": "sdk"}),
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
	if err != nil {
		t.Fatal(err)
	}
	res := resource.NewSchemaless(attribute.String("service.name", "sdk-test"),
		attribute.String("service.instance.id", "one"), attribute.String("zone", "a"))
	native := sdk.NewView(sdk.Instrument{Name: "size"},
		sdk.Stream{Aggregation: sdk.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})
	reader := sdk.NewManualReader(sdk.WithTemporalitySelector(sdk.CumulativeTemporalitySelector))
	provider := sdk.NewMeterProvider(sdk.WithResource(res), sdk.WithReader(reader), sdk.WithView(native))
	meter := provider.Meter("test")
	counter, _ := meter.Int64Counter("orders")
	gauge, _ := meter.Float64Gauge("queue.length")
	classic, _ := meter.Float64Histogram("latency")
	exponential, _ := meter.Float64Histogram("size")
	for i := range 10 {
		counter.Add(ctx, int64(i))
		gauge.Record(ctx, float64(i))
		classic.Record(ctx, float64(i))
		exponential.Record(ctx, float64(i))
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &data); err != nil {
		t.Fatal(err)
	}
	if err := exporter.Export(ctx, &data); err != nil { // a partial success is an error here
		t.Fatal(err)
	}
	if err := exporter.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	a := api{base: base, header: tenantHeader("sdk")}
	at := time.Now().Add(time.Second)
	f := func(expr string, want float64) {
		t.Helper()
		ans, err := a.query(expr, at)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := scalarOf(ans); err != nil || v != want {
			t.Fatalf("%s: %v %v, want %v", expr, v, err, want)
		}
	}
	f(`orders_total{job="sdk-test",instance="one"}`, 45)
	f(`queue_length`, 9)
	f(`latency_sum`, 45)
	f(`histogram_count(size)`, 10)
	f(`histogram_sum(size)`, 45)
	f(`target_info{zone="a"}`, 1)
}
