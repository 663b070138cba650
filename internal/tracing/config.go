package tracing

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/secret"
)

// Config says where spans go and which requests have spans.
type Config struct {
	// Service is the attribute service.name of all spans; "" = the name that Process gives.
	Service string
	// Attributes are more attributes of all spans.
	Attributes map[string]string
	Sampler    Sampler
	Collector  Collector
	// Advice is a warning about the configuration for the operator, "" = none.
	Advice string
}

// Collector is where spans go by OTLP.
type Collector struct {
	// HTTP selects OTLP over HTTP; false = gRPC.
	HTTP bool
	// Endpoint is host:port; "" = localhost and the usual port.
	Endpoint string
	// Path is the URL's path for OTLP over HTTP; "" = the usual one.
	Path string
	// Insecure turns TLS off.
	Insecure bool
	TLS      TLSFiles
	// Gzip compresses what is sent.
	Gzip bool
	// Headers go with each message. They often hold a token.
	Headers map[string]secret.Text
	// Timeout bounds one message; 0 = the exporter's default of 10 s.
	Timeout time.Duration
	// Reconnect is the shortest time between two connections of gRPC; 0 = gRPC's default.
	Reconnect time.Duration
	// Retry is how a message is sent again; nil = the exporter's default.
	Retry *Retry
	// QueueSize is how many spans may wait to be sent, and FlushInterval how long they wait; 0 = 2048 and 5 s.
	QueueSize     int
	FlushInterval time.Duration
}

// TLSFiles are the files by which the collector is verified, and those by which this process identifies itself.
type TLSFiles struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Retry is how a message is sent again that the collector did not take.
type Retry struct {
	InitialInterval, MaxInterval, MaxElapsedTime time.Duration
}

// otlpKeys are the keys of Thanos's type OTLP.
type otlpKeys struct {
	ClientType         string            `yaml:"client_type"`
	ServiceName        string            `yaml:"service_name"`
	ResourceAttributes map[string]string `yaml:"resource_attributes"`
	ReconnectionPeriod time.Duration     `yaml:"reconnection_period"`
	Compression        string            `yaml:"compression"`
	Insecure           bool              `yaml:"insecure"`
	Endpoint           string            `yaml:"endpoint"`
	URLPath            string            `yaml:"url_path"`
	Timeout            time.Duration     `yaml:"timeout"`
	RetryConfig        struct {
		Enabled         bool          `yaml:"retry_enabled"`
		InitialInterval time.Duration `yaml:"retry_initial_interval"`
		MaxInterval     time.Duration `yaml:"retry_max_interval"`
		MaxElapsedTime  time.Duration `yaml:"retry_max_elapsed_time"`
	} `yaml:"retry_config"`
	Headers      map[string]string `yaml:"headers"`
	TLSConfig    TLSFiles          `yaml:"tls_config"`
	SamplerType  string            `yaml:"sampler_type"`
	SamplerParam string            `yaml:"sampler_param"`
}

// refusedTypes are the types of Thanos whose protocols this package does not speak, and what to write instead.
var refusedTypes = map[string]string{
	"GOOGLE_CLOUD": googleInstead,
	"STACKDRIVER":  googleInstead,
	"ELASTIC_APM": "Elastic's APM server takes OTLP: write type: OTLP and config: {client_type: grpc, endpoint: " +
		"HOST:8200, headers: {Authorization: Bearer TOKEN}}",
	"LIGHTSTEP": "Lightstep takes OTLP: write type: OTLP and config: {client_type: grpc, endpoint: " +
		"ingest.lightstep.com:443, headers: {lightstep-access-token: TOKEN}}",
}

const googleInstead = "spans go to Google Cloud by way of an OpenTelemetry collector with the exporter googlecloud: " +
	"write type: OTLP and config: {client_type: grpc, insecure: true, endpoint: COLLECTOR:4317}"

// ParseConfig reads Thanos's YAML of --tracing.config. name is its name in errors. The result is nil if there is no
// content, or the configuration says that it is disabled. An error names each unknown key. It never shows a secret.
func ParseConfig(name string, raw []byte) (*Config, error) {
	p := conf.Parser{Name: name}
	var kind string
	var kindAt, config *yaml.Node
	doc := p.Document(raw)
	p.Mapping(doc, "", map[string]func(*yaml.Node){
		"type":   func(n *yaml.Node) { kindAt = n; p.Decode(n, &kind) },
		"config": func(n *yaml.Node) { config = n },
	})
	if doc == nil || p.Err() != nil {
		return nil, errs.Wrap(errs.Invalid, p.Err())
	}
	if kindAt == nil {
		p.Fault(doc, "type: is missing; write type: OTLP")
		return nil, errs.Wrap(errs.Invalid, p.Err())
	}
	var c *Config
	switch kind = strings.ToUpper(kind); kind {
	case "OTLP":
		c = parseOTLP(&p, doc, config)
	case "JAEGER":
		c = parseJaeger(&p, doc, config)
	default:
		instead, known := refusedTypes[kind]
		if !known {
			instead = "known are OTLP and JAEGER" + conf.Suggest(kind, []string{"OTLP", "JAEGER"})
		}
		p.Fault(kindAt, "type %s is not spoken here: %s", kind, instead)
	}
	if err := p.Err(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return c, nil
}

func parseOTLP(p *conf.Parser, doc, n *yaml.Node) *Config {
	var keys otlpKeys
	if n == nil {
		n = doc
	} else {
		p.Decode(n, &keys)
	}
	if p.Err() != nil {
		return nil
	}
	c := &Config{Service: keys.ServiceName, Attributes: keys.ResourceAttributes, Collector: Collector{
		Endpoint: keys.Endpoint, Path: keys.URLPath, Insecure: keys.Insecure, TLS: keys.TLSConfig, Timeout: keys.Timeout,
		Reconnect: keys.ReconnectionPeriod, Headers: map[string]secret.Text{},
	}}
	for key, value := range keys.Headers {
		c.Collector.Headers[key] = secret.New(value)
	}
	switch keys.ClientType {
	case "grpc":
	case "http":
		c.Collector.HTTP = true
	default:
		p.Fault(n, "client_type: grpc or http is expected")
	}
	switch keys.Compression {
	case "", "none":
	case "gzip":
		c.Collector.Gzip = true
	default:
		p.Fault(n, "compression: gzip or none is expected")
	}
	if r := keys.RetryConfig; r.Enabled {
		c.Collector.Retry = &Retry{r.InitialInterval, r.MaxInterval, r.MaxElapsedTime}
	}
	if e := keys.Endpoint; e != "" {
		if _, _, err := net.SplitHostPort(e); err != nil || strings.Contains(e, "/") {
			p.Fault(n, "endpoint: host:port is expected, without a scheme and a path (url_path has that)")
		}
	}
	durations := map[string]time.Duration{"timeout": keys.Timeout, "reconnection_period": keys.ReconnectionPeriod}
	for key, d := range durations {
		if d < 0 {
			p.Fault(n, "%s: must not be negative", key)
		}
	}
	c.Sampler = otlpSampler(p, n, keys.SamplerType, keys.SamplerParam)
	return c
}

// otlpSampler reads sampler_type and sampler_param with the words of type OTLP. Without a type all requests are
// sampled, except those whose sender decided otherwise, as in Thanos.
func otlpSampler(p *conf.Parser, n *yaml.Node, kind, param string) Sampler {
	all := []string{"alwayssample", "neversample", "traceidratiobased", "parentbasedalwayssample",
		"parentbasedneversample", "parentbasedtraceidratiobased"}
	kind = strings.ToLower(kind)
	if kind == "" {
		return Sampler{Ratio: 1, FollowParent: true}
	}
	if !slices.Contains(all, kind) {
		p.Fault(n, "sampler_type: one of %s is expected", strings.Join(all, ", "))
		return Sampler{}
	}
	rest, follows := strings.CutPrefix(kind, "parentbased")
	s := Sampler{FollowParent: follows}
	switch rest {
	case "alwayssample":
		s.Ratio = 1
	case "traceidratiobased":
		ratio, err := strconv.ParseFloat(param, 64)
		if err != nil || !(ratio >= 0 && ratio <= 1) {
			p.Fault(n, "sampler_param: with sampler_type %s a number from 0 to 1 is expected, the part of the requests "+
				"that is sampled", kind)
		}
		s.Ratio = ratio
	}
	return s
}

// headers are the headers as the exporters take them.
func (c *Collector) headers() map[string]string {
	if len(c.Headers) == 0 {
		return nil
	}
	out := make(map[string]string, len(c.Headers))
	for key, value := range c.Headers {
		out[key] = value.Reveal()
	}
	return out
}
