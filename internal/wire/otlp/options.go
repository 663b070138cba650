package otlp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/otlptranslator"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Strategies are the values of Options.Strategy, Prometheus's own words.
var Strategies = []string{
	string(otlptranslator.UnderscoreEscapingWithSuffixes),
	string(otlptranslator.UnderscoreEscapingWithoutSuffixes),
	string(otlptranslator.NoUTF8EscapingWithSuffixes),
	string(otlptranslator.NoTranslation),
}

// Options say how OTLP metrics are translated. They mean what the otlp section of prometheus.yml means.
type Options struct {
	// Strategy is how metric and attribute names become metric and label names: one of Strategies.
	Strategy string
	// TargetInfo makes a series target_info of the attributes of each resource.
	TargetInfo bool
	// PromoteResourceAttributes are attributes of the resource that become labels of all its series.
	PromoteResourceAttributes []string
	// Promote, when set, gives each tenant's attributes of that kind in place of PromoteResourceAttributes. It is asked
	// for each request.
	Promote func(tenant.ID) []string
	// PromoteAllResourceAttributes makes labels of all of them except IgnoreResourceAttributes.
	PromoteAllResourceAttributes bool
	// IgnoreResourceAttributes goes with PromoteAllResourceAttributes only.
	IgnoreResourceAttributes []string
	// KeepIdentifyingResourceAttributes leaves service.name, service.namespace and service.instance.id on target_info,
	// though job and instance are made of them.
	KeepIdentifyingResourceAttributes bool
	// PromoteScopeMetadata makes labels of the scope's name, version, schema URL and attributes.
	PromoteScopeMetadata bool
	// ConvertHistogramsToNHCB makes native histograms with custom buckets of histograms with explicit bounds.
	ConvertHistogramsToNHCB bool
}

// DefaultOptions are Prometheus's.
func DefaultOptions() Options {
	return Options{Strategy: Strategies[0], TargetInfo: true}
}

// Validate reports every fault of o.
func (o Options) Validate() error {
	var faults []error
	if !slices.Contains(Strategies, o.Strategy) {
		faults = append(faults, fmt.Errorf("translation strategy %q: is none of %s",
			o.Strategy, strings.Join(Strategies, ", ")))
	}
	if o.PromoteAllResourceAttributes && len(o.PromoteResourceAttributes) > 0 {
		faults = append(faults, errors.New("promote all resource attributes: goes not with a list of those to promote"))
	}
	if !o.PromoteAllResourceAttributes && len(o.IgnoreResourceAttributes) > 0 {
		faults = append(faults, errors.New("ignore resource attributes: goes only with promoting all"))
	}
	if slices.Contains(o.PromoteResourceAttributes, "") || slices.Contains(o.IgnoreResourceAttributes, "") {
		faults = append(faults, errors.New("resource attributes: one has no name"))
	}
	return errors.Join(faults...)
}
