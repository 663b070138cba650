package rule

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/rule/definition"
)

// metrics have the names of Prometheus's and Thanos's rulers where these have them.
type metrics struct {
	durations         prometheus.Summary
	durationHistogram prometheus.Histogram
	groupDurations    prometheus.Summary
	groupHistogram    prometheus.Histogram

	missed, iterations, evaluations, failures perGroup
	aborted, incomplete                       perGroup
	interval, lastTime, lastTook, restoreTook gaugePerGroup
	ruleTimes, ruleCount, lastSamples         gaugePerGroup
	warnings                                  *prometheus.CounterVec
	loadedRules                               *prometheus.GaugeVec
	reloadOK, reloadTime                      prometheus.Gauge
	discarded                                 *prometheus.CounterVec
	retries, restoreFailures, stateFailures   prometheus.Counter
	groups                                    *prometheus.GaugeVec
	takeovers, caughtUp, holdFailures         prometheus.Counter
}

// groupLabels tell groups apart. rule_group is file;name, as in Prometheus.
var groupLabels = []string{"tenant", "strategy", "rule_group"}

func groupValues(g *group) []string {
	return []string{string(g.id.tenant), g.def.PartialResponse.String(), g.id.key()}
}

type perGroup struct{ *prometheus.CounterVec }

func (p perGroup) with(g *group) prometheus.Counter { return p.WithLabelValues(groupValues(g)...) }

type gaugePerGroup struct{ *prometheus.GaugeVec }

func (p gaugePerGroup) with(g *group) prometheus.Gauge { return p.WithLabelValues(groupValues(g)...) }

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) perGroup {
		return perGroup{f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, groupLabels)}
	}
	gauge := func(name, help string) gaugePerGroup {
		return gaugePerGroup{f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, groupLabels)}
	}
	histogram := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: []float64{.01, .1, 1, 10},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
			NativeHistogramMinResetDuration: time.Hour})
	}
	m := &metrics{
		durations: f.NewSummary(prometheus.SummaryOpts{Name: "prometheus_rule_evaluation_duration_seconds",
			Help:       "How long the evaluation of a rule took, with the storing of its results.",
			Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}}),
		durationHistogram: histogram("prometheus_rule_evaluation_duration_histogram_seconds",
			"How long the evaluation of a rule took, with the storing of its results."),
		groupDurations: f.NewSummary(prometheus.SummaryOpts{Name: "prometheus_rule_group_duration_seconds",
			Help:       "How long the evaluation of a group took.",
			Objectives: map[float64]float64{0.01: 0.001, 0.05: 0.005, 0.5: 0.05, 0.90: 0.01, 0.99: 0.001}}),
		groupHistogram: histogram("prometheus_rule_group_duration_histogram_seconds",
			"How long the evaluation of a group took."),
		missed: counter("prometheus_rule_group_iterations_missed_total",
			"Slots that were left out, since an evaluation took longer than the interval or the process was stopped."),
		iterations:  counter("prometheus_rule_group_iterations_total", "Slots that were evaluated or left out."),
		evaluations: counter("prometheus_rule_evaluations_total", "Rules that were evaluated."),
		failures: counter("prometheus_rule_evaluation_failures_total",
			"Rules that were not evaluated, or whose results were not stored wholly."),
		interval: gauge("prometheus_rule_group_interval_seconds", "The interval of a group."),
		lastTime: gauge("prometheus_rule_group_last_evaluation_timestamp_seconds", "When a group was last evaluated."),
		lastTook: gauge("prometheus_rule_group_last_duration_seconds", "How long the last evaluation took."),
		ruleTimes: gauge("prometheus_rule_group_last_rule_duration_sum_seconds",
			"How long the rules of a group took in the last evaluation, added up."),
		restoreTook: gauge("prometheus_rule_group_last_restore_duration_seconds",
			"How long it took to look for the alerts of a group in stored series."),
		ruleCount:   gauge("prometheus_rule_group_rules", "How many rules a group has."),
		lastSamples: gauge("prometheus_rule_group_last_evaluation_samples", "Samples of the last evaluation."),
		incomplete: counter("hearth_rule_incomplete_answers_total",
			"Answers that were used although they may have been incomplete (partial_response_strategy warn)."),
		aborted: counter("hearth_rule_aborted_total",
			"Rules that wrote nothing in a slot, since the answer may have been incomplete until it was too late."),
		warnings: f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_rule_evaluation_with_warnings_total",
			Help: "Evaluations of rules that used an answer that may have been incomplete."}, []string{"strategy"}),
		loadedRules: f.NewGaugeVec(prometheus.GaugeOpts{Name: "thanos_rule_loaded_rules", Help: "Rules by group."},
			[]string{"tenant", "strategy", "file", "group"}),
		reloadOK: f.NewGauge(prometheus.GaugeOpts{Name: "thanos_rule_config_last_reload_successful",
			Help: "1 = all rules could be loaded at the last reload, 0 = some could not."}),
		reloadTime: f.NewGauge(prometheus.GaugeOpts{Name: "thanos_rule_config_last_reload_success_timestamp_seconds",
			Help: "When all rules could last be loaded."}),
		discarded: f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_rule_discarded_samples_total",
			Help: "Results that the storage refused for good, by reason."}, []string{"reason"}),
		retries: f.NewCounter(prometheus.CounterOpts{Name: "hearth_rule_query_retries_total",
			Help: "Queries of rules that were repeated within their slot."}),
		restoreFailures: f.NewCounter(prometheus.CounterOpts{Name: "hearth_rule_restore_failures_total",
			Help: "Attempts to read the stored series of a rule's alerts that failed. Each is repeated."}),
		stateFailures: f.NewCounter(prometheus.CounterOpts{Name: "hearth_rule_state_failures_total",
			Help: "Slots behind which the state of a group's alerts could not be kept on disk."}),
		groups: f.NewGaugeVec(prometheus.GaugeOpts{Name: "hearth_rule_groups",
			Help: "Groups of rules: those that this ruler has read (loaded), evaluates (evaluated), and whose state it " +
				"holds for another ruler (held)."}, []string{"state"}),
		takeovers: f.NewCounter(prometheus.CounterOpts{Name: "hearth_rule_takeovers_total",
			Help: "Groups that this ruler began to evaluate, since they are new or since another ruler left, failed or " +
				"gave them away."}),
		caughtUp: f.NewCounter(prometheus.CounterOpts{Name: "hearth_rule_slots_caught_up_total",
			Help: "Slots that were evaluated at their own times, but later, since another ruler had failed."}),
		holdFailures: f.NewCounter(prometheus.CounterOpts{Name: "hearth_rule_state_send_failures_total",
			Help: "Times that another ruler did not take the state of a group that it is to hold."}),
	}
	for _, state := range []string{"loaded", "evaluated", "held"} {
		m.groups.WithLabelValues(state)
	}
	for _, s := range []definition.Strategy{definition.Abort, definition.Warn} {
		m.warnings.WithLabelValues(s.String())
	}
	return m
}

// vectors are all metrics by group.
func (m *metrics) vectors() []*prometheus.MetricVec {
	return []*prometheus.MetricVec{
		m.missed.MetricVec, m.iterations.MetricVec, m.evaluations.MetricVec, m.failures.MetricVec, m.aborted.MetricVec,
		m.incomplete.MetricVec, m.interval.MetricVec, m.lastTime.MetricVec, m.lastTook.MetricVec, m.ruleTimes.MetricVec,
		m.restoreTook.MetricVec, m.ruleCount.MetricVec, m.lastSamples.MetricVec,
	}
}

// start shows a group before its first slot, so that an alert on a rate sees the first failure.
func (m *metrics) start(g *group) {
	for _, c := range []perGroup{m.missed, m.iterations, m.evaluations, m.failures, m.aborted, m.incomplete} {
		c.with(g)
	}
	for _, v := range []gaugePerGroup{m.lastTime, m.lastTook, m.ruleTimes, m.lastSamples} {
		v.with(g)
	}
	m.interval.with(g).Set(g.grid.interval.Seconds())
	m.ruleCount.with(g).Set(float64(len(g.rules)))
}

// forget drops what there is of a group that is gone.
func (m *metrics) forget(g *group) {
	for _, v := range m.vectors() {
		v.DeleteLabelValues(groupValues(g)...)
	}
}

func (m *metrics) scheduled(g *group, missed int) {
	m.missed.with(g).Add(float64(missed))
	m.iterations.with(g).Add(float64(missed + 1))
}

func (m *metrics) duration(took time.Duration) {
	m.durations.Observe(took.Seconds())
	m.durationHistogram.Observe(took.Seconds())
}

func (m *metrics) evaluated(g *group, began time.Time, samples int) {
	took := time.Since(began)
	m.groupDurations.Observe(took.Seconds())
	m.groupHistogram.Observe(took.Seconds())
	m.lastTook.with(g).Set(took.Seconds())
	m.lastTime.with(g).Set(float64(began.UnixNano()) / 1e9)
	m.lastSamples.with(g).Set(float64(samples))
	var sum time.Duration
	for _, r := range g.rules {
		sum += r.lib.GetEvaluationDuration()
	}
	m.ruleTimes.with(g).Set(sum.Seconds())
}

func (m *metrics) restored(g *group, took time.Duration) { m.restoreTook.with(g).Set(took.Seconds()) }

// refused counts a result that the storage refuses.
func (m *metrics) refused(err error) {
	reason := "other"
	switch {
	case errors.Is(err, storage.ErrOutOfOrderSample):
		reason = "out_of_order"
	case errors.Is(err, storage.ErrTooOldSample):
		reason = "too_old"
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		reason = "duplicate_timestamp"
	}
	m.discarded.WithLabelValues(reason).Inc()
}

// lead counts groups that this ruler evaluates from now on, or no longer.
func (m *metrics) lead(n int) { m.groups.WithLabelValues("evaluated").Add(float64(n)) }

// held is of how many groups this ruler holds the state for others.
func (m *metrics) held(n int) { m.groups.WithLabelValues("held").Set(float64(n)) }

func (m *metrics) loaded(groups []*group, ok bool) {
	m.groups.WithLabelValues("loaded").Set(float64(len(groups)))
	m.loadedRules.Reset()
	for _, g := range groups {
		m.loadedRules.WithLabelValues(string(g.id.tenant), g.def.PartialResponse.String(), g.id.namespace, g.id.name).
			Set(float64(len(g.rules)))
	}
	m.reloadOK.Set(0)
	if ok {
		m.reloadOK.Set(1)
		m.reloadTime.SetToCurrentTime()
	}
}
