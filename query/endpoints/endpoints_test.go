package endpoints

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/query"
)

func TestTargets(t *testing.T) {
	dark := errors.New("no such host")
	members := []Member{{Instance: "r1", Role: "receive", Addr: "10.0.0.1:1", Bucket: "x"},
		{Instance: "r1", Role: "store", Addr: "10.0.0.1:1", Bucket: "x"}}
	f := func(members []Member, names []resolved, want, wantUnknown string) {
		t.Helper()
		found, unknown := targets(members, names)
		var got, gotUnknown []string
		for _, x := range found {
			got = append(got, x.name+"@"+x.addr+x.known.Role+x.known.Blocks.Bucket)
		}
		for _, u := range unknown {
			gotUnknown = append(gotUnknown, u.Name)
			if _, err := u.Source.Info(t.Context()); !errors.Is(err, dark) {
				t.Errorf("%s answers with %v", u.Name, err)
			}
		}
		if strings.Join(got, ", ") != want || strings.Join(gotUnknown, ", ") != wantUnknown {
			t.Errorf("%q and %q, want %q and %q", got, gotUnknown, want, wantUnknown)
		}
	}
	f(nil, nil, "", "")
	f(members, nil, "receive r1@10.0.0.1:1receive, store r1@10.0.0.1:1storex", "")
	f(nil,
		[]resolved{{name: "a:1", addresses: []string{"a:1"}}, {name: "dns+b:1", addresses: []string{"10.0.0.2:1", "a:1"}}},
		"a:1@a:1, 10.0.0.2:1@10.0.0.2:1", "")
	f(nil, []resolved{{name: "dns+c:1", err: dark}, {name: "dns+c:1", err: dark}}, "", "dns+c:1")
	f(members[:1], []resolved{{name: "10.0.0.1:1", addresses: []string{"10.0.0.1:1"}}, {name: "dns+c:1", err: dark}},
		"receive r1@10.0.0.1:1receive, 10.0.0.1:1@10.0.0.1:1", "dns+c:1")
}

// withRules is a source of a process that may have rules.
type withRules struct{ series.Source }

func (withRules) Rules(context.Context, tenant.ID, rulestate.Query) ([]rulestate.Group, []string, error) {
	return nil, nil, nil
}

// TestRules: rulers, endpoints of any role, and names without an address are asked for rules; receivers and gateways
// are not.
func TestRules(t *testing.T) {
	e := New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), Options{
		Local:      []query.Endpoint{{Name: "receive", Source: withRules{}, Local: true}},
		LocalRules: []query.RulePeer{{Name: "rule"}},
		Members:    func() []Member { return []Member{{Instance: "r1", Role: "receive", Addr: "r1:1"}} },
		Rulers:     func() []Member { return []Member{{Instance: "u1", Role: "rule", Addr: "u1:1"}} },
		Addresses:  []string{"a:1", "bad:1", "dns+no-such-name.invalid:1"},
		Dial: func(addr, _ string) (series.Source, error) {
			if addr == "bad:1" {
				return nil, errors.New("wrong TLS files")
			}
			return withRules{series.FailedSource(nil)}, nil
		},
	})
	if err := e.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var names []string
	for _, p := range e.Rules() {
		names = append(names, p.Name)
		if strings.HasPrefix(p.Name, "dns+") {
			if _, _, err := p.Source.Rules(t.Context(), "", rulestate.Query{}); err == nil {
				t.Error("a name without an address answers")
			}
		}
	}
	if want := "rule, rule u1, a:1, dns+no-such-name.invalid:1"; strings.Join(names, ", ") != want {
		t.Errorf("%q, want %s", names, want)
	}
}

// TestList: sources of this process come first, what cannot be dialled is left out, and a list of nothing is not ready.
func TestList(t *testing.T) {
	opts := Options{
		Local:     []query.Endpoint{{Name: "receive", Local: true}},
		Addresses: []string{"a:1", "bad:1"},
		Interval:  time.Hour,
		Dial: func(addr, _ string) (series.Source, error) {
			if addr == "bad:1" {
				return nil, errors.New("wrong TLS files")
			}
			return series.FailedSource(nil), nil
		},
	}
	f := func(opts Options, ready string, want ...string) {
		t.Helper()
		e := New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), opts)
		if err := e.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		var names []string
		for _, x := range e.List() {
			names = append(names, x.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
		if err := e.Ready(); (err == nil) != (ready == "") || err != nil && !strings.Contains(err.Error(), ready) {
			t.Errorf("ready: %v, want %q", err, ready)
		}
	}
	f(opts, "", "receive", "a:1")
	opts.Local, opts.Addresses = nil, nil
	f(opts, "--endpoint and --gossip.join name some")
	opts.Addresses = []string{"dns+no-such-name.invalid:1"}
	f(opts, "its name cannot be resolved", "dns+no-such-name.invalid:1")
}
