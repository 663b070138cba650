package tracing

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	promconfig "github.com/prometheus/common/config"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// closeTimeout bounds how long Close waits until the collector has taken the last spans.
const closeTimeout = 5 * time.Second

// Process is what all spans say of the process that made them.
type Process struct {
	Service string // for a Config without one
	Version string
}

// Tracer makes the spans of a process and sends them to a collector.
type Tracer struct {
	log     *slog.Logger
	config  Config
	process Process
	spans   *prometheus.CounterVec

	provider *sdktrace.TracerProvider // set by Open, as tracer
	tracer   trace.Tracer
}

// New makes a Tracer, which does nothing before Open. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer, config Config, process Process) *Tracer {
	return &Tracer{log: log, config: config, process: process,
		spans: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_tracing_spans_total",
			Help: "Spans of sampled requests, by outcome: sent = the collector took them, failed = it did not.",
		}, []string{"outcome"}),
	}
}

// Open reads the TLS files and begins to send spans. It does not wait for the collector. If the collector cannot be
// reached, the log and the metrics say so later. A process opens its Tracer before all parts that take requests.
func (t *Tracer) Open(context.Context, func(error)) error {
	exporter, err := t.config.Collector.exporter()
	if err != nil {
		return errs.E(errs.Invalid, "tracing: %w", err)
	}
	service := cmp.Or(t.config.Service, t.process.Service)
	attributes := []attribute.KeyValue{
		attribute.String("service.name", service), attribute.String("service.version", t.process.Version),
	}
	for name, value := range t.config.Attributes {
		attributes = append(attributes, attribute.String(name, value))
	}
	var batch []sdktrace.BatchSpanProcessorOption
	if n := t.config.Collector.QueueSize; n > 0 {
		batch = append(batch, sdktrace.WithMaxQueueSize(n))
	}
	if d := t.config.Collector.FlushInterval; d > 0 {
		batch = append(batch, sdktrace.WithBatchTimeout(d))
	}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&countedExporter{SpanExporter: exporter, log: t.log, spans: t.spans}, batch...),
		sdktrace.WithResource(resource.NewSchemaless(attributes...)),
		sdktrace.WithSampler(t.config.Sampler.build()),
	)
	t.tracer = t.provider.Tracer(scope)
	return nil
}

// Close sends the spans that still wait, for at most closeTimeout. A process closes its Tracer after all parts that
// take requests.
func (t *Tracer) Close() error {
	if t.provider == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("the last spans were not sent", "err", err)
	}
	return nil
}

// exporter makes the exporter, which connects when it first has something to send.
func (c *Collector) exporter() (sdktrace.SpanExporter, error) {
	var files *tls.Config
	if !c.Insecure {
		var err error
		if files, err = promconfig.NewTLSConfig(&promconfig.TLSConfig{
			CAFile: c.TLS.CAFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile,
			ServerName: c.TLS.ServerName, InsecureSkipVerify: c.TLS.InsecureSkipVerify,
		}); err != nil {
			return nil, fmt.Errorf("tls_config: %w", err)
		}
	}
	if c.HTTP {
		return otlptrace.New(context.Background(), otlptracehttp.NewClient(c.httpOptions(files)...))
	}
	return otlptrace.New(context.Background(), otlptracegrpc.NewClient(c.grpcOptions(files)...))
}

func (c *Collector) grpcOptions(files *tls.Config) []otlptracegrpc.Option {
	all := []otlptracegrpc.Option{otlptracegrpc.WithHeaders(c.headers())}
	if c.Insecure {
		all = append(all, otlptracegrpc.WithInsecure())
	} else {
		all = append(all, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(files)))
	}
	if c.Endpoint != "" {
		all = append(all, otlptracegrpc.WithEndpoint(c.Endpoint))
	}
	if c.Gzip {
		all = append(all, otlptracegrpc.WithCompressor("gzip"))
	}
	if c.Timeout > 0 {
		all = append(all, otlptracegrpc.WithTimeout(c.Timeout))
	}
	if c.Reconnect > 0 {
		all = append(all, otlptracegrpc.WithReconnectionPeriod(c.Reconnect))
	}
	if r := c.Retry; r != nil {
		all = append(all, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: r.InitialInterval, MaxInterval: r.MaxInterval, MaxElapsedTime: r.MaxElapsedTime,
		}))
	}
	return all
}

func (c *Collector) httpOptions(files *tls.Config) []otlptracehttp.Option {
	all := []otlptracehttp.Option{otlptracehttp.WithHeaders(c.headers())}
	if c.Insecure {
		all = append(all, otlptracehttp.WithInsecure())
	} else {
		all = append(all, otlptracehttp.WithTLSClientConfig(files))
	}
	if c.Endpoint != "" {
		all = append(all, otlptracehttp.WithEndpoint(c.Endpoint))
	}
	if c.Path != "" {
		all = append(all, otlptracehttp.WithURLPath(c.Path))
	}
	if c.Gzip {
		all = append(all, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	if c.Timeout > 0 {
		all = append(all, otlptracehttp.WithTimeout(c.Timeout))
	}
	if r := c.Retry; r != nil {
		all = append(all, otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: r.InitialInterval, MaxInterval: r.MaxInterval, MaxElapsedTime: r.MaxElapsedTime,
		}))
	}
	return all
}

// countedExporter counts spans. It logs when the collector stops taking them, and when it takes them again.
type countedExporter struct {
	sdktrace.SpanExporter
	log   *slog.Logger
	spans *prometheus.CounterVec
	down  atomic.Bool
}

// ExportSpans sends spans. It returns no error, since the SDK would print it for each batch. A failure is logged here,
// once.
func (c *countedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err == nil:
		c.spans.WithLabelValues("sent").Add(float64(len(spans)))
		if c.down.CompareAndSwap(true, false) {
			c.log.Info("spans are sent again")
		}
	case errors.Is(err, context.Canceled):
	default:
		c.spans.WithLabelValues("failed").Add(float64(len(spans)))
		if c.down.CompareAndSwap(false, true) {
			c.log.Warn("spans are dropped: the collector does not take them", "err", err)
		}
	}
	return nil
}
