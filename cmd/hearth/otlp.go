package main

import (
	"net/http"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/wire/otlp"
)

// otlpFlags say what becomes of OTLP metrics.
type otlpFlags struct {
	opts otlp.Options
}

func (f *otlpFlags) bind(c *kingpin.CmdClause) {
	f.opts = otlp.DefaultOptions()
	o := &f.opts
	c.Flag("receive.otlp-enable-target-info", "Make a series target_info of the resource attributes of OTLP metrics.").
		Default("true").BoolVar(&o.TargetInfo)
	c.Flag("receive.otlp-promote-resource-attributes", "OTLP resource attribute that becomes a label of all series of "+
		"the resource. May be given several times.").
		StringsVar(&o.PromoteResourceAttributes)
	c.Flag("receive.otlp-promote-all-resource-attributes", "Every OTLP resource attribute becomes a label.").
		BoolVar(&o.PromoteAllResourceAttributes)
	c.Flag("receive.otlp-ignore-resource-attributes", "With --receive.otlp-promote-all-resource-attributes: one that "+
		"does not. May be given several times.").
		StringsVar(&o.IgnoreResourceAttributes)
	c.Flag("receive.otlp-keep-identifying-resource-attributes", "Keep service.name, service.namespace and "+
		"service.instance.id on target_info, beside job and instance.").
		BoolVar(&o.KeepIdentifyingResourceAttributes)
	c.Flag("receive.otlp-promote-scope-metadata", "Name, version, schema URL and attributes of the OTLP scope become "+
		"labels otel_scope_*.").BoolVar(&o.PromoteScopeMetadata)
	c.Flag("receive.otlp-convert-histograms-to-nhcb", "Store OTLP histograms with explicit bounds as native histograms "+
		"with custom buckets instead of _bucket, _sum and _count.").
		BoolVar(&o.ConvertHistogramsToNHCB)
	c.Flag("receive.otlp-translation-strategy", "How OTLP names become Prometheus names, as translation_strategy in "+
		"prometheus.yml.").Default(o.Strategy).
		EnumVar(&o.Strategy, otlp.Strategies...)
}

// handler takes OTLP metrics for d.
func (f *otlpFlags) handler(b *builder, d *distributor.Distributor) http.Handler {
	t, err := otlp.New(f.opts)
	b.check(err)
	return d.OTLPHandler(t)
}
