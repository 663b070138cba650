package rule

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// asks is a Querier that notes what it is asked, and finds nothing.
type asks func(Query)

func (a asks) Query(_ context.Context, q Query) (Answer, error) {
	a(q)
	return Answer{}, nil
}

// TestWaitComplete: a slot waits until its data are complete, if that can be within its interval.
func TestWaitComplete(t *testing.T) {
	for _, c := range []struct {
		name                        string
		longest, window, offset, is time.Duration
	}{
		{"never", 0, 20 * time.Second, 0, 0},
		{"for the window", time.Minute, 20 * time.Second, 0, 20 * time.Second},
		{"part of it is behind the offset", time.Minute, 20 * time.Second, 15 * time.Second, 5 * time.Second},
		{"all of it is", time.Minute, 20 * time.Second, 30 * time.Second, 0},
		{"too long for the flag", 10 * time.Second, 20 * time.Second, 0, 0},
		{"too long for the interval", time.Hour, 2 * time.Minute, 0, 0},
		{"the usual window", time.Hour, 3 * time.Hour, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				var late []time.Duration
				offset := model.Duration(c.offset)
				source := newSource(definition.Group{Tenant: "acme", Namespace: "a.yml", RuleGroup: rulefmt.RuleGroup{
					Name: "g", QueryOffset: &offset, Rules: []rulefmt.Rule{{Record: "r", Expr: "x"}}}})
				r := s.ruler(t, source, "")
				r.opts.WaitComplete = c.longest
				r.opts.Limits = func(tenant.ID) *tenant.Limits {
					return &tenant.Limits{OutOfOrderWindow: model.Duration(c.window)}
				}
				r.engine.querier = asks(func(q Query) { late = append(late, time.Since(q.At)-c.offset) })
				open(t, r)
				defer closed(t, r)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if len(late) < 4 {
					t.Fatalf("%d slots", len(late))
				}
				for _, is := range late {
					if is != c.is {
						t.Fatalf("a slot waited %s, want %s", is, c.is)
					}
				}
			})
		})
	}
}
