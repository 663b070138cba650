package selfscrape

import (
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// conversion turns metric families into one batch. It is pure.
type conversion struct {
	opts    Options
	t       int64 // timestamp of samples that bring none, ms
	batch   *wire.Batch
	seen    map[wire.Key]bool   // of this scrape: a series counts once
	live    map[wire.Key][]byte // series of seen that get a stale marker when they vanish
	scraped int
	builder labels.ScratchBuilder
	taken   map[string]bool
}

func newConversion(opts Options, t int64) *conversion {
	return &conversion{
		opts: opts, t: t, batch: wire.NewBatch(opts.Tenant), seen: map[wire.Key]bool{}, live: map[wire.Key][]byte{},
		builder: labels.NewScratchBuilder(16), taken: map[string]bool{},
	}
}

var typeWord = map[dto.MetricType]string{
	dto.MetricType_COUNTER: "counter", dto.MetricType_GAUGE: "gauge", dto.MetricType_SUMMARY: "summary",
	dto.MetricType_HISTOGRAM: "histogram", dto.MetricType_GAUGE_HISTOGRAM: "gaugehistogram",
	dto.MetricType_UNTYPED: "unknown",
}

// family adds all series of f and its metadata.
func (c *conversion) family(f *dto.MetricFamily) {
	if len(f.GetMetric()) == 0 {
		return
	}
	name := f.GetName()
	c.batch.Metadata = append(c.batch.Metadata, wire.Metadata{
		Family: name, Type: typeWord[f.GetType()], Help: f.GetHelp(), Unit: f.GetUnit(),
	})
	for _, m := range f.GetMetric() {
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			s := c.float(name, m, noLabel, m.GetCounter().GetValue())
			c.exemplar(s, m, m.GetCounter().GetExemplar())
		case dto.MetricType_GAUGE:
			c.float(name, m, noLabel, m.GetGauge().GetValue())
		case dto.MetricType_UNTYPED:
			c.float(name, m, noLabel, m.GetUntyped().GetValue())
		case dto.MetricType_SUMMARY:
			c.summary(name, m)
		case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
			c.histogram(name, m, f.GetType() == dto.MetricType_GAUGE_HISTOGRAM)
		}
	}
}

func (c *conversion) summary(name string, m *dto.Metric) {
	s := m.GetSummary()
	c.float(name+"_count", m, noLabel, float64(s.GetSampleCount()))
	c.float(name+"_sum", m, noLabel, s.GetSampleSum())
	for _, q := range s.GetQuantile() {
		c.float(name, m, labels.Label{Name: "quantile", Value: labels.FormatOpenMetricsFloat(q.GetQuantile())}, q.GetValue())
	}
}

// noLabel stands for the further label of a series that has none.
var noLabel labels.Label

// series adds a series of m without a sample. It is nil when the scrape had the series already. The pointer is valid
// until the next call.
func (c *conversion) series(name string, m *dto.Metric, extra labels.Label) *wire.Series {
	c.scraped++
	s := c.batch.Add(c.labels(name, m, extra))
	if c.seen[s.Key] {
		c.batch.Series = c.batch.Series[:len(c.batch.Series)-1]
		return nil
	}
	c.seen[s.Key] = true
	if m.TimestampMs == nil { // as in Prometheus, a series with timestamps of its own gets no stale marker
		c.live[s.Key] = s.Labels()
	}
	return s
}

func (c *conversion) float(name string, m *dto.Metric, extra labels.Label, v float64) *wire.Series {
	s := c.series(name, m, extra)
	if s != nil {
		s.Samples = []wire.Sample{{T: c.time(m), V: v}}
	}
	return s
}

func (c *conversion) time(m *dto.Metric) int64 {
	if m.TimestampMs != nil {
		return m.GetTimestampMs()
	}
	return c.t
}

// labels are the labels of a series: those of the target, which win, and those of the metric.
func (c *conversion) labels(name string, m *dto.Metric, extra labels.Label) labels.Labels {
	c.builder.Reset()
	c.builder.Add(model.MetricNameLabel, name)
	c.builder.Add("job", c.opts.Job)
	c.builder.Add("instance", c.opts.Instance)
	if extra.Name != "" {
		c.builder.Add(extra.Name, extra.Value)
	}
	clash := false
	for _, l := range m.GetLabel() {
		if l.GetName() == "job" || l.GetName() == "instance" {
			clash = true
		} else if l.GetValue() != "" {
			c.builder.Add(l.GetName(), l.GetValue())
		}
	}
	if clash {
		c.export(m)
	}
	c.builder.Sort()
	return c.builder.Labels()
}

// export adds the metric's own labels job and instance under names that are not taken.
func (c *conversion) export(m *dto.Metric) {
	clear(c.taken)
	for _, l := range m.GetLabel() {
		c.taken[l.GetName()] = l.GetValue() != ""
	}
	for _, own := range []string{"job", "instance"} {
		for _, l := range m.GetLabel() {
			if l.GetName() != own || l.GetValue() == "" {
				continue
			}
			name := "exported_" + own
			for c.taken[name] {
				name = "exported_" + name
			}
			c.taken[name] = true
			c.builder.Add(name, l.GetValue())
		}
	}
}

// reportSamples adds the series that a scrape has of itself.
func (c *conversion) reportSamples(up bool, took time.Duration, before map[wire.Key][]byte) {
	added := 0
	for key := range c.live {
		if _, known := before[key]; !known {
			added++
		}
	}
	health, scraped, stored := 0.0, float64(c.scraped), float64(len(c.batch.Series))
	if up {
		health = 1
	}
	none := &dto.Metric{}
	for _, r := range []struct {
		name string
		v    float64
	}{
		{"up", health},
		{"scrape_duration_seconds", took.Seconds()},
		{"scrape_samples_scraped", scraped},
		{"scrape_samples_post_metric_relabeling", stored},
		{"scrape_series_added", float64(added)},
	} {
		s := c.batch.Add(c.labels(r.name, none, noLabel))
		s.Samples = []wire.Sample{{T: c.t, V: r.v}}
	}
}

// staleMarkers ends the series of earlier scrapes that this one does not have.
func (c *conversion) staleMarkers(before map[wire.Key][]byte) {
	for key, ls := range before {
		if c.seen[key] {
			continue
		}
		c.batch.AddCanonical(ls).Samples = []wire.Sample{{T: c.t, V: math.Float64frombits(value.StaleNaN)}}
	}
}
