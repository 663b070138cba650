package tracing

import (
	"cmp"
	"log/slog"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// LogRules decide which requests have lines in the log. With the zero value none has.
type LogRules struct {
	http, grpc lines
	paths      []httpRequests // nil = all
	methods    []grpcRequests // nil = all
}

// lines are the lines in the log of one request.
type lines struct {
	start, end bool
	least      slog.Level // less severe lines are left out
}

// The YAML of --request.logging-config, as Thanos has it.
type (
	logOptions struct {
		Level    string `yaml:"level"`
		Decision struct {
			LogStart *bool `yaml:"log_start"`
			LogEnd   *bool `yaml:"log_end"`
		} `yaml:"decision"`
	}
	httpRequests struct {
		Path string `yaml:"path"`
		Port uint16 `yaml:"port"`
	}
	grpcRequests struct {
		Service string `yaml:"service"`
		Method  string `yaml:"method"`
	}
	logKeys struct {
		Options logOptions `yaml:"options"`
		HTTP    struct {
			Options logOptions     `yaml:"options"`
			Config  []httpRequests `yaml:"config"`
		} `yaml:"http"`
		GRPC struct {
			Options logOptions     `yaml:"options"`
			Config  []grpcRequests `yaml:"config"`
		} `yaml:"grpc"`
	}
)

// ParseLogRules reads Thanos's YAML of --request.logging-config. name is its name in errors.
func ParseLogRules(name string, raw []byte) (LogRules, error) {
	p := conf.Parser{Name: name}
	var keys logKeys
	doc := p.Document(raw)
	if doc != nil {
		p.Decode(doc, &keys)
	}
	if doc == nil || p.Err() != nil {
		return LogRules{}, errs.Wrap(errs.Invalid, p.Err())
	}
	r := LogRules{paths: keys.HTTP.Config, methods: keys.GRPC.Config}
	r.http = linesOf(&p, doc, "http: ", keys.HTTP.Options, keys.Options)
	r.grpc = linesOf(&p, doc, "grpc: ", keys.GRPC.Options, keys.Options)
	if err := p.Err(); err != nil {
		return LogRules{}, errs.Wrap(errs.Invalid, err)
	}
	return r, nil
}

// linesOf are the lines of a protocol by its own options, and by the common options where it has none.
func linesOf(p *conf.Parser, doc *yaml.Node, where string, own, common logOptions) lines {
	l := lines{least: slog.LevelDebug}
	level := cmp.Or(own.Level, common.Level)
	switch strings.ToUpper(level) {
	case "", "DEBUG":
	case "INFO":
		l.least = slog.LevelInfo
	case "WARN", "WARNING":
		l.least = slog.LevelWarn
	case "ERROR":
		l.least = slog.LevelError
	default:
		p.Fault(doc, "%soptions: level: DEBUG, INFO, WARN or ERROR is expected", where)
	}
	pick := func(own, common *bool) bool {
		if own == nil {
			own = common
		}
		return own != nil && *own
	}
	l.start = pick(own.Decision.LogStart, common.Decision.LogStart)
	l.end = pick(own.Decision.LogEnd, common.Decision.LogEnd)
	if l.start && !l.end {
		p.Fault(doc, "%soptions: decision: log_start without log_end is not possible", where)
	}
	return l
}

// Advice is a warning for the operator, "" = none. least is the level of the process's log.
func (r *LogRules) Advice(least slog.Level) string {
	switch {
	case !r.http.end && !r.grpc.end:
		return "no request is logged: decision.log_end is not true"
	case least > slog.LevelDebug:
		return "only requests that fail are logged: lines of those that succeed have the level debug, which --log.level " +
			"leaves out"
	}
	return ""
}

// ofHTTP are the lines of a request for a path that came in at a port.
func (r *LogRules) ofHTTP(path string, port uint16) lines {
	if len(r.paths) == 0 {
		return r.http
	}
	for _, want := range r.paths {
		if want.Path == path && (want.Port == port || want.Port == 0) {
			return r.http
		}
	}
	return lines{}
}

// ofGRPC are the lines of a call of a method.
func (r *LogRules) ofGRPC(service, method string) lines {
	if len(r.methods) == 0 {
		return r.grpc
	}
	for _, want := range r.methods {
		if want.Service == service && want.Method == method {
			return r.grpc
		}
	}
	return lines{}
}
