package tracing

import (
	"net"
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
)

// jaegerKeys are the keys of Thanos's type JAEGER. Keys without a counterpart in OTLP are read too, since an unknown
// key is an error. The advice says that they have no effect.
type jaegerKeys struct {
	ServiceName         string        `yaml:"service_name"`
	Disabled            bool          `yaml:"disabled"`
	Tags                string        `yaml:"tags"`
	SamplerType         string        `yaml:"sampler_type"`
	SamplerParam        float64       `yaml:"sampler_param"`
	ReporterMaxQueue    int           `yaml:"reporter_max_queue_size"`
	ReporterFlush       time.Duration `yaml:"reporter_flush_interval"`
	Endpoint            string        `yaml:"endpoint"`
	User                string        `yaml:"user"`
	Password            string        `yaml:"password"`
	AgentHost           string        `yaml:"agent_host"`
	AgentPort           any           `yaml:"agent_port"`
	RPCMetrics          any           `yaml:"rpc_metrics"`
	ManagerHostPort     any           `yaml:"sampler_manager_host_port"`
	MaxOperations       any           `yaml:"sampler_max_operations"`
	RefreshInterval     any           `yaml:"sampler_refresh_interval"`
	ParentConfig        any           `yaml:"sampler_parent_config"`
	SamplingServerURL   any           `yaml:"sampling_server_url"`
	LateBinding         any           `yaml:"operation_name_late_binding"`
	InitialRate         any           `yaml:"initial_sampler_rate"`
	LogSpans            any           `yaml:"reporter_log_spans"`
	DisableReconnecting any           `yaml:"reporter_disable_attempt_reconnecting"`
	ReconnectInterval   any           `yaml:"reporter_attempt_reconnect_interval"`
	TraceID128          any           `yaml:"traceid_128bit"`
}

// jaegerPort is where Jaeger takes OTLP by gRPC.
const jaegerPort = "4317"

// parseJaeger maps type JAEGER to OTLP. Jaeger takes OTLP since version 1.35, but on another port than its own
// protocols. The advice says so, since a firewall or a Kubernetes Service may not let that port through.
func parseJaeger(p *conf.Parser, doc, n *yaml.Node) *Config {
	var keys jaegerKeys
	if n == nil {
		n = doc
	} else {
		p.Decode(n, &keys)
	}
	if p.Err() != nil || keys.Disabled {
		return nil
	}
	host := "localhost"
	switch {
	case keys.Endpoint != "":
		u, err := url.Parse(keys.Endpoint)
		if err != nil || u.Hostname() == "" {
			p.Fault(n, "endpoint: a URL such as http://jaeger-collector:14268/api/traces is expected")
			return nil
		}
		host = u.Hostname()
	case keys.AgentHost != "":
		host = keys.AgentHost
	}
	if keys.User != "" || keys.Password != "" {
		p.Fault(n, "user, password: Jaeger's OTLP port takes none; write type: OTLP with headers, and a proxy that checks "+
			"them")
	}
	c := &Config{Service: keys.ServiceName, Attributes: tagsOf(keys.Tags), Collector: Collector{
		Endpoint: net.JoinHostPort(host, jaegerPort), Insecure: true,
		QueueSize: max(keys.ReporterMaxQueue, 0), FlushInterval: max(keys.ReporterFlush, 0),
	}}
	c.Sampler = jaegerSampler(p, n, keys.SamplerType, keys.SamplerParam)
	c.Advice = "type JAEGER is taken as OTLP by gRPC without TLS to " + c.Collector.Endpoint + ", where Jaeger 1.35 and " +
		"later listen: Jaeger's own protocols are not spoken. Of its keys those for the agent's port, remote sampling, " +
		"reconnecting and logging of spans have no effect. Write type: OTLP with client_type: grpc, insecure: true and " +
		"the endpoint"
	return c
}

// jaegerSampler reads sampler_type and sampler_param with the words of type JAEGER. Without a type, the parameter is a
// number of traces per second, as in Thanos.
func jaegerSampler(p *conf.Parser, n *yaml.Node, kind string, param float64) Sampler {
	s := Sampler{FollowParent: true}
	switch kind {
	case "", "ratelimiting":
		if param < 0 {
			p.Fault(n, "sampler_param: must not be negative")
		}
		s.PerSecond = param
	case "const":
		if param != 0 {
			s.Ratio = 1
		}
	case "probabilistic":
		if !(param >= 0 && param <= 1) {
			p.Fault(n, "sampler_param: with sampler_type probabilistic a number from 0 to 1 is expected")
		}
		s.Ratio = param
	case "remote":
		p.Fault(n, "sampler_type: remote sampling is not spoken; write probabilistic with a sampler_param from 0 to 1, or "+
			"ratelimiting with one that is the traces a second")
	default:
		p.Fault(n, "sampler_type: const, probabilistic or ratelimiting is expected")
	}
	return s
}

// tagsOf reads name=value,name=value.
func tagsOf(text string) map[string]string {
	tags := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			tags[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return tags
}
