package query

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// silent does not answer.
type silent struct{}

func (silent) Rules(ctx context.Context, _ tenant.ID, _ rulestate.Query) ([]rulestate.Group, []string, error) {
	<-ctx.Done()
	return nil, nil, errors.New("no answer")
}

// ruler runs a group with an alert, whose rule has a label replica.
func ruler(name, replica string, state rulestate.State) RulePeer {
	return RulePeer{Name: name, Source: rulestate.Local(func() []rulestate.Group {
		return []rulestate.Group{{
			Tenant: tenant.Default, Name: "g", File: "f", Interval: time.Minute,
			Rules: []rulestate.Rule{{
				Alerting: true, Name: "A", Query: "up", State: state, Labels: labels.FromStrings("replica", replica),
				Alerts: []rulestate.Alert{{Labels: labels.FromStrings("alertname", "A"), State: state, Value: "1e+00"}},
			}},
		}, {Tenant: "other", Name: "secret", File: "f", Rules: []rulestate.Rule{{Name: "r"}}}}
	})}
}

// TestRules: the rules of all rulers are one answer, and what does not answer is a warning or an error.
func TestRules(t *testing.T) {
	opts := DefaultOptions()
	opts.ReplicaLabels = []string{"replica"}
	opts.ResponseTimeout = 50 * time.Millisecond
	peers := []RulePeer{ruler("a", "1", rulestate.Pending), ruler("b", "2", rulestate.Firing)}
	opts.Rules = func() []RulePeer { return peers }
	q := open(t, opts)
	f := func(path string, status int, want ...string) {
		t.Helper()
		w := httptest.NewRecorder()
		q.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != status {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		for _, part := range want {
			part, without := strings.CutPrefix(part, "!")
			if strings.Contains(w.Body.String(), part) == without {
				t.Errorf("%s: %s; want %q %t", path, w.Body, part, !without)
			}
		}
	}
	f("/api/v1/rules", 200, `"state":"firing"`, `!"pending"`, `!replica`, `!secret`, `!warnings`, `"file":"f"`)
	f("/prometheus/api/v1/rules?dedup=false", 200, `"state":"firing"`, `"state":"pending"`, `"replica":"1"`)
	f("/api/v1/rules?type=record", 200, `"groups":[]`)
	f("/api/v1/alerts", 200, `"alertname":"A"`, `"state":"firing"`, `!"pending"`)
	f("/api/v1/rules?type=nonsense", 400, "bad_data")
	peers = append(peers, RulePeer{"c", silent{}})
	f("/api/v1/rules", 200, `"state":"firing"`, `partial answer: rules of c: no answer`)
	f("/api/v1/alerts?partial_response=false", 503, `the answer would be incomplete: rules of c`)
	peers = nil
	f("/api/v1/rules", 200, `"groups":[]`)
	f("/api/v1/alerts", 200, `"alerts":[]`)

	peers = []RulePeer{ruler("a", "1", rulestate.Pending)}
	groups, _, err := q.Rules(t.Context(), "", rulestate.Query{})
	if err != nil || len(groups) != 1 {
		t.Errorf("of all tenants, of which none is known: %+v, %v", groups, err)
	}
}
