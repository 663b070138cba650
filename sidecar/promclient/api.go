package promclient

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// classify gives an error of the library its kind.
func classify(err error) error {
	if err == nil {
		return nil
	}
	var fault *promv1.Error
	if errors.As(err, &fault) {
		switch fault.Type {
		case promv1.ErrBadData:
			return errs.E(errs.Invalid, "Prometheus: %w", err)
		case promv1.ErrExec:
			return errs.E(errs.Limited, "Prometheus: %w", err)
		}
	}
	if kind := errs.KindOf(err); kind != errs.Internal {
		return err
	}
	return errs.E(errs.Unavailable, "Prometheus: %w", err)
}

// Flags are the flags that Prometheus runs with, by name.
func (c *Client) Flags(ctx context.Context) (map[string]string, error) {
	flags, err := c.api.Flags(ctx)
	return flags, classify(err)
}

// Version is Prometheus's, such as 3.14.0.
func (c *Client) Version(ctx context.Context) (string, error) {
	info, err := c.api.Buildinfo(ctx)
	return info.Version, classify(err)
}

// LastReload reports whether Prometheus took its configuration when it read it last, and when the one in force was
// read.
func (c *Client) LastReload(ctx context.Context) (ok bool, at time.Time, err error) {
	info, err := c.api.Runtimeinfo(ctx)
	return info.ReloadConfigSuccess, info.LastConfigTime, classify(err)
}

// ExternalLabels are the external labels of the configuration that Prometheus runs with.
func (c *Client) ExternalLabels(ctx context.Context) (labels.Labels, error) {
	config, err := c.api.Config(ctx)
	if err != nil {
		return labels.EmptyLabels(), classify(err)
	}
	return externalLabels(config.YAML)
}

// externalLabels reads the one part of a configuration that matters here. The rest may be of a newer Prometheus.
func externalLabels(text string) (labels.Labels, error) {
	var config struct {
		Global struct {
			External map[string]string `yaml:"external_labels"`
		} `yaml:"global"`
	}
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return labels.EmptyLabels(), errs.E(errs.Unavailable, "the configuration that Prometheus shows: %w", err)
	}
	return labels.FromMap(config.Global.External), nil
}

// selector is the text of matchers. It has a matcher that excludes something, since Prometheus refuses others.
func selector(ms []*labels.Matcher) string {
	parts := make([]string, 0, len(ms)+1)
	excludes := false
	for _, m := range ms {
		parts = append(parts, m.String())
		excludes = excludes || !m.Matches("")
	}
	if !excludes {
		parts = append(parts, `__name__=~".+"`)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// matches are the selectors of a question for labels. Without matchers Prometheus answers from its index alone.
func matches(ms []*labels.Matcher) []string {
	if len(ms) == 0 {
		return nil
	}
	return []string{selector(ms)}
}

// timeOf is ms as a time that Prometheus can read. Its parameters are floats, and it has no times further away.
func timeOf(ms int64) time.Time { return time.UnixMilli(min(max(ms, -maxMillis), maxMillis)) }

const maxMillis = 1 << 52

// LabelNames are the names of labels of series within [mint, maxt] (ms) that all matchers select, at most limit of
// them; limit 0 = all.
func (c *Client) LabelNames(ctx context.Context, ms []*labels.Matcher, mint, maxt int64, limit int) ([]string,
	[]string, error) {
	names, warnings, _, err := c.api.LabelNames(ctx, matches(ms), timeOf(mint), timeOf(maxt), limitOf(limit)...)
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return out, untruncated(warnings, limit), classify(err)
}

// LabelValues are the values of a label, as LabelNames.
func (c *Client) LabelValues(ctx context.Context, name string, ms []*labels.Matcher, mint, maxt int64, limit int) (
	[]string, []string, error) {
	values, warnings, _, err := c.api.LabelValues(ctx, escaped(name), matches(ms), timeOf(mint), timeOf(maxt),
		limitOf(limit)...)
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out, untruncated(warnings, limit), classify(err)
}

// escaped is a label's name as a part of a path. Prometheus takes all but the oldest names in that form only.
func escaped(name string) string {
	if model.LegacyValidation.IsValidLabelName(name) {
		return name
	}
	return model.EscapeName(name, model.ValueEncodingEscaping)
}

func limitOf(limit int) []promv1.Option {
	if limit <= 0 {
		return nil
	}
	return []promv1.Option{promv1.WithLimit(uint64(limit))}
}

// untruncated are warnings without the one that the limit was reached, which is what the caller wanted.
func untruncated(warnings []string, limit int) []string {
	if limit <= 0 {
		return warnings
	}
	return slices.DeleteFunc(warnings, func(w string) bool { return strings.Contains(w, "truncated due to limit") })
}

// Targets are the targets that Prometheus scrapes, and those that it dropped.
func (c *Client) Targets(ctx context.Context) (promv1.TargetsResult, error) {
	all, err := c.api.Targets(ctx)
	return all, classify(err)
}

// TSDB has statistics of Prometheus's head, with lists of at most limit entries; 0 = Prometheus's default.
func (c *Client) TSDB(ctx context.Context, limit int) (promv1.TSDBResult, error) {
	all, err := c.api.TSDB(ctx, limitOf(limit)...)
	return all, classify(err)
}

// Metadata is that of a metric family, "" = all, by family; at most limit families, 0 = all.
func (c *Client) Metadata(ctx context.Context, family string, limit int) (map[string][]metadata.Metadata, error) {
	text := ""
	if limit > 0 {
		text = strconv.Itoa(limit)
	}
	found, err := c.api.Metadata(ctx, family, text)
	if err != nil {
		return nil, classify(err)
	}
	out := make(map[string][]metadata.Metadata, len(found))
	for name, all := range found {
		for _, m := range all {
			out[name] = append(out[name], metadata.Metadata{Type: model.MetricType(m.Type), Help: m.Help, Unit: m.Unit})
		}
	}
	return out, nil
}

// Exemplars are those within [mint, maxt] (ms) of series that at least one of the selectors selects.
func (c *Client) Exemplars(ctx context.Context, mint, maxt int64, selectors ...[]*labels.Matcher) (
	[]exemplar.QueryResult, error) {
	texts := make([]string, len(selectors))
	for i, ms := range selectors {
		texts[i] = selector(ms)
	}
	found, err := c.api.QueryExemplars(ctx, strings.Join(texts, " or "), timeOf(mint), timeOf(maxt))
	if err != nil {
		return nil, classify(err)
	}
	out := make([]exemplar.QueryResult, len(found))
	for i, f := range found {
		out[i].SeriesLabels = labelsOf(f.SeriesLabels)
		for _, e := range f.Exemplars {
			out[i].Exemplars = append(out[i].Exemplars, exemplar.Exemplar{
				Labels: labelsOf(e.Labels), Value: float64(e.Value), Ts: int64(e.Timestamp), HasTs: true,
			})
		}
	}
	return out, nil
}

func labelsOf(set model.LabelSet) labels.Labels {
	b := labels.NewScratchBuilder(len(set))
	for name, value := range set {
		b.Add(string(name), string(value))
	}
	b.Sort()
	return b.Labels()
}
