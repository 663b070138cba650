package tenant

import "github.com/prometheus/common/model"

// Limits are what one tenant may do, and how its data is treated. In every field 0 (or absent) means no limit, unless the
// field says otherwise. A *Limits never changes: a reload makes new ones, so that a pointer is a version.
type Limits struct {
	// SamplesPerSecond is how many samples (floats, histograms) a tenant may send on average over the whole cluster;
	// SamplesBurst how many at once, 0 = those of one second.
	SamplesPerSecond float64 `yaml:"samples_per_second,omitempty"`
	SamplesBurst     int     `yaml:"samples_burst,omitempty"`

	// RequestBytes (as sent), RequestSeries and RequestSamples bound one write request.
	RequestBytes   int64 `yaml:"request_bytes,omitempty"`
	RequestSeries  int   `yaml:"request_series,omitempty"`
	RequestSamples int   `yaml:"request_samples,omitempty"`

	// LabelsPerSeries, LabelNameBytes and LabelValueBytes bound the labels of one series.
	LabelsPerSeries int `yaml:"labels_per_series,omitempty"`
	LabelNameBytes  int `yaml:"label_name_bytes,omitempty"`
	LabelValueBytes int `yaml:"label_value_bytes,omitempty"`
	// HistogramBuckets bounds the buckets of one native histogram sample.
	HistogramBuckets int `yaml:"histogram_buckets,omitempty"`

	// ActiveSeries is how many series the tenant may have in memory, over the whole cluster and counting each once;
	// SeriesPerMetric how many of them may have one metric name.
	ActiveSeries    int `yaml:"active_series,omitempty"`
	SeriesPerMetric int `yaml:"series_per_metric,omitempty"`
	// Exemplars is how many exemplars a receiver keeps for the tenant; 0 = none.
	Exemplars int64 `yaml:"exemplars,omitempty"`

	// OutOfOrderWindow and FutureWindow are how far behind and ahead of the wall clock a sample may be; Retention is how
	// long a local block is kept. 0 takes the receiver's flags.
	OutOfOrderWindow model.Duration `yaml:"out_of_order_window,omitempty"`
	FutureWindow     model.Duration `yaml:"future_window,omitempty"`
	Retention        model.Duration `yaml:"retention,omitempty"`

	// ShardSize is on how many receivers of a gossip ring the tenant's series are spread (shuffle sharding).
	ShardSize int `yaml:"shard_size,omitempty"`

	// HAPairs deduplicates the samples of HA pairs of Prometheus servers: of all replicas (HAReplicaLabel) of a cluster
	// (HAClusterLabel) the elected one's are stored. HAClusters bounds how many clusters are followed.
	HAPairs        bool   `yaml:"ha_pairs,omitempty"`
	HAClusterLabel string `yaml:"ha_cluster_label,omitempty"`
	HAReplicaLabel string `yaml:"ha_replica_label,omitempty"`
	HAClusters     int    `yaml:"ha_clusters,omitempty"`

	// PromoteAttributes are the OTLP resource attributes that become labels of every series of the resource.
	PromoteAttributes []string `yaml:"promote_resource_attributes,omitempty"`
}

// LimitsOf gives a tenant's limits. It is called for every request, must answer from memory and never with nil; the
// pointer is the same until the limits change.
type LimitsOf func(ID) *Limits

// Fixed gives every tenant the same limits.
func Fixed(l Limits) LimitsOf {
	return func(ID) *Limits { return &l }
}
