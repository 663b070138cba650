package tracing

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestParseConfig(t *testing.T) {
	f := func(yaml string, check func(*Config) bool) {
		t.Helper()
		c, err := ParseConfig("--tracing.config", []byte(yaml))
		if err != nil {
			t.Errorf("%s: %v", yaml, err)
			return
		}
		if !check(c) {
			t.Errorf("%s: %+v", yaml, c)
		}
	}
	none := func(c *Config) bool { return c == nil }
	f("", none)
	f("# nothing\n", none)
	f("type: JAEGER\nconfig: {disabled: true}", none)
	f("type: otlp\nconfig: {client_type: grpc}", func(c *Config) bool {
		return !c.Collector.HTTP && c.Sampler == Sampler{Ratio: 1, FollowParent: true} && c.Advice == ""
	})
	f(`type: OTLP
config:
  client_type: http
  service_name: s
  resource_attributes: {a: b}
  reconnection_period: 1s
  compression: gzip
  insecure: true
  endpoint: collector:4318
  url_path: /x
  timeout: 2s
  retry_config: {retry_enabled: true, retry_initial_interval: 1s, retry_max_interval: 2s, retry_max_elapsed_time: 3s}
  headers: {Authorization: Bearer hunter2}
  tls_config: {ca_file: a, cert_file: b, key_file: c, server_name: d, insecure_skip_verify: true}
  sampler_type: parentbasedtraceidratiobased
  sampler_param: 0.25
`, func(c *Config) bool {
		o := c.Collector
		shown := fmt.Sprintf("%v %+v %#v", *c, *c, c.Collector.Headers)
		return o.HTTP && c.Service == "s" && c.Attributes["a"] == "b" && o.Reconnect == time.Second && o.Gzip && o.Insecure &&
			o.Endpoint == "collector:4318" && o.Path == "/x" && o.Timeout == 2*time.Second &&
			*o.Retry == Retry{time.Second, 2 * time.Second, 3 * time.Second} && o.TLS == TLSFiles{"a", "b", "c", "d", true} &&
			c.Sampler == Sampler{Ratio: 0.25, FollowParent: true} && o.headers()["Authorization"] == "Bearer hunter2" &&
			!strings.Contains(shown, "hunter2")
	})
	f("type: OTLP\nconfig: {client_type: grpc, sampler_type: traceidratiobased, sampler_param: \"0.5\"}",
		func(c *Config) bool {
			return c.Sampler == Sampler{Ratio: 0.5}
		})
	f("type: OTLP\nconfig: {client_type: grpc, sampler_type: NeverSample}",
		func(c *Config) bool { return c.Sampler == Sampler{} })
	// What kube-thanos passes.
	f("\"config\":\n  \"sampler_param\": 2\n\"type\": \"JAEGER\"", func(c *Config) bool {
		return c.Collector.Endpoint == "localhost:4317" && c.Collector.Insecure && c.Sampler.PerSecond == 2 &&
			strings.Contains(c.Advice, "localhost:4317")
	})
	f(
		"type: JAEGER\nconfig: {endpoint: 'http://jaeger-collector:14268/api/traces', sampler_type: const, sampler_param: 1, tags: 'a=b, c=d',"+
			" reporter_max_queue_size: 7, reporter_flush_interval: 3s, rpc_metrics: true, agent_port: 6831, traceid_128bit: true}",
		func(c *Config) bool {
			return c.Collector.Endpoint == "jaeger-collector:4317" && c.Sampler.Ratio == 1 && c.Attributes["c"] == "d" &&
				c.Collector.QueueSize == 7 && c.Collector.FlushInterval == 3*time.Second
		},
	)
	f("type: JAEGER\nconfig: {agent_host: agent, sampler_type: probabilistic, sampler_param: 0.1}", func(c *Config) bool {
		return c.Collector.Endpoint == "agent:4317" && c.Sampler.Ratio == 0.1
	})
}

func TestParseConfigRefuses(t *testing.T) {
	f := func(yaml string, words ...string) {
		t.Helper()
		_, err := ParseConfig("--tracing.config", []byte(yaml))
		for _, w := range append(words, "--tracing.config") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", yaml, err, w)
			}
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v shows a secret", err)
		}
	}
	f("type: STACKDRIVER\nconfig: {project_id: x}", "STACKDRIVER", "type: OTLP", "googlecloud")
	f("type: GOOGLE_CLOUD", "type: OTLP")
	f("type: ELASTIC_APM\nconfig: {sample_rate: 1}", "type: OTLP", "8200")
	f("type: LIGHTSTEP\nconfig: {access_token: hunter2}", "type: OTLP", "lightstep-access-token")
	f("type: OTPL", "type OTPL", "OTLP and JAEGER")
	f("config: {client_type: grpc}", "type: is missing")
	f("type: OTLP\nconfg: {}", "confg: there is no such key", "did you mean config?")
	f("type: OTLP\nconfig: {client_type: grpc, header: {a: hunter2}}", "header: there is no such key",
		"did you mean headers?")
	f("type: OTLP\nconfig: {client_type: grpc, headers: hunter2}", "headers: a mapping")
	f("type: OTLP\nconfig: {client_type: thrift}", "client_type: grpc or http")
	f("type: OTLP", "client_type")
	f("type: OTLP\nconfig: {client_type: grpc, endpoint: 'http://c:4317'}", "endpoint: host:port")
	f("type: OTLP\nconfig: {client_type: grpc, compression: zstd}", "compression")
	f("type: OTLP\nconfig: {client_type: grpc, timeout: -1s}", "timeout: must not be negative")
	f("type: OTLP\nconfig: {client_type: grpc, sampler_type: x}", "sampler_type", "parentbasedalwayssample")
	f("type: OTLP\nconfig: {client_type: grpc, sampler_type: traceidratiobased, sampler_param: 2}", "sampler_param",
		"0 to 1")
	f("type: JAEGER\nconfig: {sampler_type: remote}", "remote sampling is not spoken")
	f("type: JAEGER\nconfig: {sampler_type: x}", "sampler_type")
	f("type: JAEGER\nconfig: {user: a, password: hunter2}", "password", "type: OTLP")
	f("type: JAEGER\nconfig: {endpoint: nowhere}", "endpoint: a URL")
	f("hunter2", "mapping")
}

func TestParseLogRules(t *testing.T) {
	parse := func(yaml string) LogRules {
		t.Helper()
		r, err := ParseLogRules("--request.logging-config", []byte(yaml))
		if err != nil {
			t.Errorf("%s: %v", yaml, err)
		}
		return r
	}
	off, end, both := lines{}, lines{end: true, least: slog.LevelDebug}, lines{start: true, end: true,
		least: slog.LevelDebug}
	f := func(r LogRules, path string, port uint16, want lines) {
		t.Helper()
		if got := r.ofHTTP(path, port); got != want {
			t.Errorf("%s at %d: %+v, want %+v", path, port, got, want)
		}
	}
	g := func(r LogRules, service, method string, want lines) {
		t.Helper()
		if got := r.ofGRPC(service, method); got != want {
			t.Errorf("%s of %s: %+v, want %+v", method, service, got, want)
		}
	}
	r := parse("options: {decision: {log_start: false, log_end: true}}")
	f(r, "/any", 1, end)
	g(r, "thanos.Store", "Series", end)
	r = parse("http: {options: {decision: {log_start: true, log_end: true}}, config: [{path: /api/v1/query, port: 10902}, {path: /any}]}")
	f(r, "/api/v1/query", 10902, both)
	f(r, "/api/v1/query", 10901, off)
	f(r, "/any", 10901, both)
	f(r, "/other", 10902, off)
	if got := r.ofGRPC("thanos.Store", "Series"); got.end {
		t.Errorf("gRPC is logged by the options of HTTP: %+v", got)
	}
	r = parse("options: {level: error, decision: {log_end: true}}\ngrpc: {options: {level: WARNING}, config: [{service: thanos.Store, method: Info}]}")
	f(r, "/x", 1, lines{end: true, least: slog.LevelError})
	g(r, "thanos.Store", "Info", lines{end: true, least: slog.LevelWarn})
	g(r, "thanos.Store", "Series", off)
	for yaml, word := range map[string]string{
		"option: {}":                                        "did you mean options?",
		"options: {level: loud}":                            "level: DEBUG",
		"options: {decision: {log_start: true}}":            "log_start without log_end",
		"http: {config: [{path: /x, prt: 1}]}":              "prt: there is no such key",
		"http: {config: {path: /x}}":                        "a list is expected",
		"grpc: {options: {decision: {log_end: sometimes}}}": "true or false",
	} {
		if _, err := ParseLogRules("--request.logging-config", []byte(yaml)); err == nil ||
			!strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want %q in it", yaml, err, word)
		}
	}
	if r := parse("options: {level: info}"); !strings.Contains(r.Advice(slog.LevelDebug), "log_end") {
		t.Error("nothing says that nothing is logged")
	}
	if r := parse("options: {decision: {log_end: true}}"); !strings.Contains(r.Advice(slog.LevelInfo), "--log.level") ||
		r.Advice(slog.LevelDebug) != "" {
		t.Errorf("%q, %q", r.Advice(slog.LevelInfo), r.Advice(slog.LevelDebug))
	}
}
