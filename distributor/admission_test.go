package distributor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// stagesRules change, drop and spoil series.
const stagesRules = `
- {source_labels: [__name__], regex: debug_.*, action: drop}
- {regex: pod, action: labeldrop}
- {source_labels: [nameless], regex: "1", target_label: __name__, replacement: ""}
`

// admissionMember remembers by the values of samples, which say the place in the request, their outcome. It
// refuses series that have a label refuse.
type admissionMember struct {
	mu     sync.Mutex
	stored map[int]string
}

func (m *admissionMember) write(_ context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range s.Series {
		one := &s.Batch.Series[i]
		if strings.Contains(one.Text(), "refuse=") {
			failures = append(failures,
				wire.Failure{Series: int(i), Kind: errs.Conflict, Reason: "two values", Samples: len(one.Samples)})
			continue
		}
		for _, p := range one.Samples {
			m.stored[int(p.V)] = string(s.Batch.Tenant) + " " + one.Text()
		}
	}
	return failures, nil
}

// outcomes are those of the series of a request, by their places in it.
func (m *admissionMember) outcomes(n int, r Result, err error) (all []string) {
	for i := range n {
		at := slices.IndexFunc(r.Failures, func(f wire.Failure) bool { return f.Series == i })
		switch text, ok := m.stored[i]; {
		case err != nil:
			all = append(all, errs.KindOf(err).String())
		case ok && at >= 0:
			all = append(all, text+" and failed")
		case ok:
			all = append(all, text)
		case at >= 0:
			all = append(all, r.Failures[at].Kind.String())
		default:
			all = append(all, "gone")
		}
	}
	return all
}

// TestAdmission takes requests through all stages: series on the left as labels, outcomes on the right.
func TestAdmission(t *testing.T) {
	f := func(name string, lines ...string) {
		t.Helper()
		opts := splitting()
		opts.Relabel = relabelRules(t, stagesRules)
		usual, slow := &tenant.Limits{HAPairs: true, LabelValueBytes: 10,
			RequestSeries: 20}, &tenant.Limits{SamplesPerSecond: 1, SamplesBurst: 2, LabelValueBytes: 10}
		opts.Limits = func(id tenant.ID) *tenant.Limits {
			if id == "slow" {
				return slow
			}
			return usual
		}
		c := newCluster(t, newFakeRing(1, "a"), opts)
		m := &admissionMember{stored: map[int]string{}}
		c.member("a").become(m.write)
		b := wire.NewBatch(tenant.Default)
		var want []string
		for i, line := range lines {
			series, outcome, _ := strings.Cut(line, " -> ")
			names := map[string]string{}
			for j, field := range strings.Fields(series) {
				name, value, found := strings.Cut(field, "=")
				if j == 0 && !found {
					name, value = "__name__", field
				}
				names[name] = value
			}
			b.Add(labels.FromMap(names)).Samples = []wire.Sample{{T: 1000, V: float64(i)}}
			want = append(want, outcome)
		}
		r, err := c.Push(context.Background(), b)
		c.close()
		got := m.outcomes(len(lines), r, err)
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
		lost := 0
		for _, f := range r.Failures {
			lost += f.Samples
		}
		if taken := r.taken().Samples; err == nil && (r.Series != len(lines) || taken+lost != len(lines)) {
			t.Errorf("%s: %d series, %d samples taken and %d lost, want %d of each together", name, r.Series, taken, lost,
				len(lines))
		}
		freed(t, b)
	}
	f("nothing to change", `m -> default-tenant {__name__="m"}`)
	f("all stages, and places that move at each of them",
		`debug_a -> gone`,
		`m nameless=1 -> invalid`,
		`m team=red i=1 -> red {__name__="m", i="1"}`,
		`m team=../x -> invalid`,
		`m pod=1 -> default-tenant {__name__="m"}`,
		`m pod=2 -> default-tenant {__name__="m"}`,
		`m cluster=eu __replica__=a i=1 -> default-tenant {__name__="m", cluster="eu", i="1"}`,
		`m cluster=eu __replica__=b i=2 -> gone`,
		`m long=12345678901 -> invalid`,
		`m refuse=1 -> conflict`,
		`m cluster=eu __replica__=a refuse=1 -> conflict`,
		`m team=blue refuse=1 -> conflict`,
		`debug_b team=blue -> gone`,
		`m team=blue i=2 -> blue {__name__="m", i="2"}`,
	)
	f("series that become one fail at the place of the first",
		`debug_a -> gone`,
		`m refuse=1 pod=1 -> conflict`,
		`m refuse=1 pod=2 -> gone`,
		`n -> default-tenant {__name__="n"}`,
	)
	f("one tenant over its rate, beside another",
		`m team=slow i=1 -> too large`,
		`m team=slow i=2 -> too large`,
		`m team=red -> red {__name__="m"}`,
		`m team=slow i=3 -> too large`,
		`m team=slow long=12345678901 -> invalid`,
	)
	f("all of a request for one tenant over its rate",
		`m team=slow i=1 -> too large`, `m team=slow i=2 -> too large`, `m team=slow i=3 -> too large`)
	f("one tenant that a label names and series that are refused",
		`m nameless=1 -> invalid`, `m team=red -> red {__name__="m"}`, `debug_a -> gone`)
	f("nothing left", `debug_a -> gone`, `debug_b -> gone`)
}
