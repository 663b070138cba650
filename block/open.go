package block

import (
	"log/slog"
	"os"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/client"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/gokit"
	"github.com/hearth-metrics/hearth/internal/secret"
)

var envReference = regexp.MustCompile(`\$\(([a-zA-Z_0-9]+)\)`)

// OpenBucket opens the bucket that a Thanos object-store YAML describes: any provider, $(VAR) replaced from the
// environment. component names the client to the provider; reg may be nil. A faulty content is of kind Invalid. A
// FILESYSTEM directory may be relative to the working directory.
func OpenBucket(log *slog.Logger, reg prometheus.Registerer, content []byte, component string) (objstore.InstrumentedBucket, error) {
	content, err := expandEnv(content, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	content, hedged, err := withoutHedging(content)
	if err != nil {
		return nil, err
	}
	if hedged {
		log.Warn("object store configuration: hedging_config has no effect")
	}
	bkt, err := client.NewBucket(gokit.NewQuiet(log), content, component, nil)
	if err != nil {
		return nil, errs.E(errs.Invalid, "object store configuration: %w", secret.Scrub(content, err, "type"))
	}
	if reg != nil {
		reg = prometheus.WrapRegistererWithPrefix("thanos_", reg)
	}
	return objstore.WrapWithMetrics(bkt, reg, bkt.Name()), nil
}

// expandEnv replaces $(VAR). A variable that is not set is an error, as in Thanos: a secret must not become "".
func expandEnv(content []byte, lookup func(string) (string, bool)) ([]byte, error) {
	var missing error
	out := envReference.ReplaceAllFunc(content, func(ref []byte) []byte {
		name := string(envReference.FindSubmatch(ref)[1])
		value, ok := lookup(name)
		if !ok && missing == nil {
			missing = errs.E(errs.Invalid, "object store configuration: environment variable %q is not set", name)
		}
		return []byte(value)
	})
	return out, missing
}

// withoutHedging takes hedging_config out: Thanos documents it, the client refuses it.
func withoutHedging(content []byte) ([]byte, bool, error) {
	const key = "hedging_config"
	var top map[string]any
	if err := yaml.Unmarshal(content, &top); err != nil {
		return nil, false, errs.E(errs.Invalid, "object store configuration: %w", secret.Scrub(content, err))
	}
	if len(top) == 0 {
		return nil, false, errs.E(errs.Invalid, "object store configuration is empty")
	}
	if _, ok := top[key]; !ok {
		return content, false, nil
	}
	enabled := hedgingEnabled(top[key])
	delete(top, key)
	out, err := yaml.Marshal(top)
	if err != nil {
		return nil, false, errs.E(errs.Invalid, "object store configuration: %w", secret.Scrub(content, err))
	}
	return out, enabled, nil
}

func hedgingEnabled(v any) bool {
	m, ok := v.(map[string]any)
	return ok && m["enabled"] == true
}
