package main

import (
	"context"
	"log/slog"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
	"go.opentelemetry.io/otel"

	"github.com/hearth-metrics/hearth/internal/tracing"
)

// tracingFlags say how the requests of a process are followed: the same for every command.
type tracingFlags struct {
	spans, log content
}

func bindTracing(app *kingpin.Application) *tracingFlags {
	f := new(tracingFlags)
	f.spans.bind(app, "tracing.config", "Where the spans of sampled requests go: Thanos's YAML, type OTLP.")
	f.log.bind(app, "request.logging-config", "Which requests have lines in the log: Thanos's YAML.")
	return f
}

// before is build for a process whose requests are followed. It makes what follows them first, since everything that
// takes requests and makes calls is made with it; and spans are sent until all that takes requests has stopped.
func (f *tracingFlags) before(build setup) setup {
	return func(p *process) error {
		t, err := f.tracer(p)
		if err != nil {
			return err
		}
		rules, err := f.rules(p)
		if err != nil {
			return err
		}
		if t != nil {
			otel.SetTracerProvider(tracing.Below{}) // for libraries, which know no other way; it is a constant
			p.group.Add("tracing", t.Open, t.Close)
		}
		p.observer = tracing.NewObserver(p.log, t, rules)
		return build(p)
	}
}

// tracer is nil without a configuration.
func (f *tracingFlags) tracer(p *process) (*tracing.Tracer, error) {
	text, err := f.spans.read()
	if err != nil || text == nil {
		return nil, err
	}
	config, err := tracing.ParseConfig(f.spans.where(), text)
	if err != nil || config == nil {
		return nil, err
	}
	if config.Advice != "" {
		p.log.Warn("tracing", "advice", config.Advice)
	}
	return tracing.New(p.log, p.reg, *config, tracing.Process{Service: "hearth-" + p.role, Version: version.Version}), nil
}

func (f *tracingFlags) rules(p *process) (tracing.LogRules, error) {
	text, err := f.log.read()
	if err != nil || text == nil {
		return tracing.LogRules{}, err
	}
	rules, err := tracing.ParseLogRules(f.log.where(), text)
	if err != nil {
		return tracing.LogRules{}, err
	}
	least := slog.LevelDebug
	for _, l := range []slog.Level{slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if !p.log.Enabled(context.Background(), least) {
			least = l
		}
	}
	if advice := rules.Advice(least); advice != "" {
		p.log.Warn("request logging", "advice", advice)
	}
	return rules, nil
}
