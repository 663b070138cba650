package blocks

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Shape is how the series of a block are made: each metric of each pod of each namespace.
type Shape struct{ Metrics, Namespaces, Pods int }

// Series is how many there are.
func (s Shape) Series() int { return s.Metrics * s.Namespaces * s.Pods }

// nativeEvery is how many metrics have one of native histograms among them.
const nativeEvery = 10

// MetricName is the name of metric i. Every tenth is of native histograms, the others are counters.
func MetricName(i int) string {
	suffix := "requests_total"
	if native(i) {
		suffix = "duration_seconds"
	}
	return fmt.Sprintf("app_%03d_%s", i, suffix)
}

func native(metric int) bool { return metric%nativeEvery == nativeEvery-1 }

// Namespace is the value of the label namespace number i.
func Namespace(i int) string { return fmt.Sprintf("team-%04d", i) }

// labelsOf are the labels of one series. Numbers have a fixed width, so that series are in label order when they are
// made in the order of their numbers: metric, namespace, pod.
func labelsOf(metric, namespace, pod int) labels.Labels {
	where := fmt.Sprintf("%04d-%03d", namespace, pod)
	return labels.FromStrings(
		"__name__", MetricName(metric),
		"cluster", "production-eu-west",
		"container", "app-server",
		"endpoint", "http-metrics",
		"instance", "host-"+where+":9100",
		"job", "monitoring/application",
		"method", [...]string{"GET", "PUT", "POST", "DELETE"}[metric%4],
		"namespace", Namespace(namespace),
		"node", fmt.Sprintf("node-%04d.compute.internal", namespace*31%10_000/8),
		"pod", "app-server-"+where,
		"service", "application-metrics",
		"status", [...]string{"200", "404", "500"}[metric/4%3],
	)
}

// each calls f for every series, in label order, until it fails.
func (s Shape) each(f func(i, metric int, ls labels.Labels) error) error {
	i := 0
	for metric := range s.Metrics {
		for namespace := range s.Namespaces {
			for pod := range s.Pods {
				if err := f(i, metric, labelsOf(metric, namespace, pod)); err != nil {
					return err
				}
				i++
			}
		}
	}
	return nil
}

// symbols are all names and values of labels, sorted.
func (s Shape) symbols() []string {
	seen := map[string]bool{}
	add := func(ls labels.Labels) {
		ls.Range(func(l labels.Label) { seen[l.Name], seen[l.Value] = true, true })
	}
	for metric := range s.Metrics {
		add(labelsOf(metric, 0, 0))
	}
	for namespace := range s.Namespaces {
		for pod := range s.Pods {
			add(labelsOf(0, namespace, pod))
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
