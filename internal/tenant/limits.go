package tenant

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Limits are what one tenant may do, and how its data is treated. In every field 0 means no limit, unless the field
// says otherwise. A *Limits never changes: a reload makes new ones, so an equal pointer means equal limits.
//
// The yaml names are those of limits files, of --limits.default, of refusals and of the metric hearth_limit.
// docs/operate/limits.md explains each of them.
type Limits struct {
	// SamplesPerSecond is how many samples (floats, histograms) a tenant may send on average over the whole cluster.
	// SamplesBurst is how many may come at once; 0 = 2,000 or the samples of ten seconds, whichever is larger. A request
	// with more is refused.
	SamplesPerSecond float64 `yaml:"samples_per_second"`
	SamplesBurst     int     `yaml:"samples_burst"`

	// RequestBytes (as sent), RequestSeries and RequestSamples bound one write request.
	RequestBytes   int64 `yaml:"request_bytes"`
	RequestSeries  int   `yaml:"request_series"`
	RequestSamples int   `yaml:"request_samples"`

	// LabelsPerSeries, LabelNameBytes and LabelValueBytes bound the labels of one series.
	LabelsPerSeries int `yaml:"labels_per_series"`
	LabelNameBytes  int `yaml:"label_name_bytes"`
	LabelValueBytes int `yaml:"label_value_bytes"`
	// HistogramBuckets bounds the buckets of one native histogram sample, its spans, and its custom bounds, each.
	HistogramBuckets int `yaml:"histogram_buckets"`

	// ActiveSeries is how many series the tenant may have in memory, over the whole cluster and counting each once;
	// SeriesPerMetric how many of them may have one metric name.
	ActiveSeries    int `yaml:"active_series"`
	SeriesPerMetric int `yaml:"series_per_metric"`
	// Exemplars is how many exemplars a receiver keeps for the tenant; 0 = none.
	Exemplars int64 `yaml:"exemplars"`

	// OutOfOrderWindow and FutureWindow are how far behind and ahead of the wall clock a sample may be; Retention is how
	// long a local block is kept. 0 takes the receiver's flags; a file cannot say 0.
	OutOfOrderWindow model.Duration `yaml:"out_of_order_window"`
	FutureWindow     model.Duration `yaml:"future_window"`
	Retention        model.Duration `yaml:"retention"`

	// BucketRetentionRaw, BucketRetention5m and BucketRetention1h are how long the compactor keeps the tenant's samples in
	// the bucket, by resolution. 0 takes the compactor's flags; a file cannot say 0.
	BucketRetentionRaw model.Duration `yaml:"bucket_retention_raw"`
	BucketRetention5m  model.Duration `yaml:"bucket_retention_5m"`
	BucketRetention1h  model.Duration `yaml:"bucket_retention_1h"`
	// BucketRetentionRules are other periods for some of the tenant's blocks. The first rule that matches counts.
	BucketRetentionRules []RetentionRule `yaml:"bucket_retention_rules"`

	// ShardSize is on how many receivers of a gossip ring the tenant's series are spread (shuffle sharding); 0 = on all.
	ShardSize int `yaml:"shard_size"`

	// HAPairs deduplicates the samples of HA pairs of Prometheus servers: samples of a cluster (HAClusterLabel) are stored
	// if they come from the elected one of its replicas (HAReplicaLabel). HAClusters bounds how many clusters are
	// followed.
	HAPairs        bool   `yaml:"ha_pairs"`
	HAClusterLabel string `yaml:"ha_cluster_label"`
	HAReplicaLabel string `yaml:"ha_replica_label"`
	HAClusters     int    `yaml:"ha_clusters"`

	// StartTimestampZeros stores a zero sample at the start timestamp of a sample, where that is newer than everything
	// stored of its series. Without it start timestamps are not kept at all.
	StartTimestampZeros bool `yaml:"start_timestamp_zeros"`

	// RuleGroups is how many groups of rules the tenant may have, RulesPerGroup how many rules each of them may have.
	RuleGroups    int `yaml:"rule_groups"`
	RulesPerGroup int `yaml:"rules_per_group"`
	// RuleInterval is the shortest interval of a group. 0 is a second; a file cannot say 0.
	RuleInterval model.Duration `yaml:"rule_interval"`
	// RuleSourceTenants are the other tenants that rules of the tenant may read, with * for any characters; none = they
	// read their own tenant alone.
	RuleSourceTenants []string `yaml:"rule_source_tenants"`

	// PromoteAttributes are the OTLP resource attributes that become labels of every series of the resource.
	PromoteAttributes []string `yaml:"promote_resource_attributes"`
}

// LimitsOf gives a tenant's limits. It is called for every request, must answer from memory and never with nil; the
// pointer is the same until the limits change.
type LimitsOf func(ID) *Limits

// Fixed gives every tenant the same limits.
func Fixed(l Limits) LimitsOf {
	return func(ID) *Limits { return &l }
}

// DefaultLimits are the limits of a process without any configuration: there are none, and the labels of HA pairs have
// their usual names.
func DefaultLimits() Limits {
	return Limits{HAClusterLabel: "cluster", HAReplicaLabel: "__replica__", HAClusters: 100}
}

// All yields the fields in their order, by their names in files.
func (l *Limits) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		v := reflect.ValueOf(l).Elem()
		for i, f := range limitFields {
			if !yield(f.key, v.Field(i).Interface()) {
				return
			}
		}
	}
}

// MarshalJSON is an object of all fields, by their names in files and in their order.
func (l *Limits) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for key, value := range l.All() {
		if v := reflect.ValueOf(value); v.Kind() == reflect.Slice && v.IsNil() {
			value = []string{}
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%q:%s", key, text)
	}
	return append(b, '}'), nil
}

// RulesMayRead reports whether the rules of a tenant with these limits may read tenant id, which is not that tenant.
func (l *Limits) RulesMayRead(id ID) bool { return (&Grant{patterns: l.RuleSourceTenants}).Allows(id) }

// Validate reports every fault of l by the names of files.
func (l *Limits) Validate() error {
	var faults []error
	v := reflect.ValueOf(l).Elem()
	for i, f := range limitFields {
		if err := f.check(v.Field(i)); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", f.key, err))
		}
	}
	return errors.Join(append(faults, l.coherent())...)
}

// coherent reports fields that are valid alone and contradict each other.
func (l *Limits) coherent() error {
	switch {
	case slices.ContainsFunc(l.RuleSourceTenants, func(s string) bool { _, err := Parse(s); return err != nil }):
		return errors.New("rule_source_tenants: holds what is neither the name of a tenant nor a pattern with *")
	case l.HAPairs && (l.HAClusterLabel == "" || l.HAReplicaLabel == ""):
		return errors.New("ha_pairs: needs ha_cluster_label and ha_replica_label")
	case l.HAPairs && l.HAReplicaLabel == model.MetricNameLabel:
		return fmt.Errorf("ha_replica_label: %q cannot be taken off series", l.HAReplicaLabel)
	case l.HAPairs && l.HAClusterLabel == l.HAReplicaLabel:
		return fmt.Errorf("ha_replica_label: %q is the ha_cluster_label too", l.HAReplicaLabel)
	}
	return nil
}

// Bounds on windows. A value beyond them is a mistake and not a wish.
const (
	minWindow = model.Duration(time.Second)
	maxWindow = model.Duration(100 * 365 * 24 * time.Hour)
	maxFuture = model.Duration(365 * 24 * time.Hour)
)

// limitField is one field of Limits as files name it.
type limitField struct {
	key string
	typ reflect.Type
}

var (
	limitFields    = listLimitFields()
	limitIndex     = indexLimitFields()
	durationType   = reflect.TypeFor[model.Duration]()
	labelNameField = map[string]bool{"ha_cluster_label": true, "ha_replica_label": true}
)

func listLimitFields() []limitField {
	t := reflect.TypeFor[Limits]()
	fields := make([]limitField, t.NumField())
	for i := range fields {
		fields[i] = limitField{key: t.Field(i).Tag.Get("yaml"), typ: t.Field(i).Type}
	}
	return fields
}

func indexLimitFields() map[string]int {
	index := make(map[string]int, len(limitFields))
	for i, f := range limitFields {
		index[f.key] = i
	}
	return index
}

// limitKeys are the names of all limits.
func limitKeys() []string {
	keys := make([]string, len(limitFields))
	for i, f := range limitFields {
		keys[i] = f.key
	}
	return keys
}

// receiverLimits are the limits that receivers keep, and name when they refuse a write.
var receiverLimits = []string{"active_series", "series_per_metric"}

// LimitNamed is the limit that a receiver names in its reason for a refusal, "other" when it names none.
func LimitNamed(reason string) string {
	for _, key := range receiverLimits {
		if strings.Contains(reason, " "+key+" ") {
			return key
		}
	}
	return "other"
}

// check reports what is wrong with a value of the field.
func (f limitField) check(v reflect.Value) error {
	switch x := v.Interface().(type) {
	case model.Duration:
		return f.checkWindow(x)
	case float64:
		if x < 0 || math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%v must be a number of at least 0", x)
		}
	case int, int64:
		if v.Int() < 0 {
			return fmt.Errorf("%d must not be negative", x)
		}
	case string:
		if labelNameField[f.key] && x != "" && !model.UTF8Validation.IsValidLabelName(x) {
			return fmt.Errorf("%q is not a label name", x)
		}
	case []string:
		for _, s := range x {
			if strings.TrimSpace(s) == "" {
				return errors.New("holds an empty name")
			}
		}
	}
	return nil
}

func (f limitField) checkWindow(d model.Duration) error {
	longest := maxWindow
	if f.key == "future_window" {
		longest = maxFuture
	}
	switch {
	case d < 0:
		return fmt.Errorf("%s must not be negative", time.Duration(d))
	case d > 0 && d < minWindow:
		return fmt.Errorf("%s is shorter than %s", d, minWindow)
	case d > longest:
		return fmt.Errorf("%s is longer than %s", d, longest)
	}
	return nil
}
