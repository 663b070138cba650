package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

// TestOrder: the parts of each role open in this order, and close in its reverse. Requests are let in last, so the part
// "serving" is added when the process runs.
func TestOrder(t *testing.T) {
	for role, want := range map[string]string{
		"all": "limits users http bucket garbage-collector tsdb receive clients store grpc gossip sharing compact " +
			"block-upload distributor endpoints query alerts rule-files rule-bucket rule-sources rules self-scrape remote-write drain",
		"receive":     "limits users http bucket garbage-collector tsdb receive clients grpc gossip distributor remote-write drain",
		"distributor": "limits users http clients grpc gossip distributor remote-write",
		"store":       "users http bucket data-dir clients store grpc gossip sharing",
		"compact":     "users http bucket data-dir limits gossip compact block-upload",
		"rule": "limits users http grpc bucket clients gossip distributor queriers alerts deleted-tenants rule-files " +
			"rule-bucket rule-sources rules",
		"sidecar": "users http reloader sidecar grpc",
		"query":   "users limits http grpc gossip clients endpoints query",
	} {
		app, setups := commands()
		args := append(roleArgs(t, role), "--auth.tenants-file="+usersFile(t))
		args = slices.DeleteFunc(args, func(arg string) bool { return arg == "--self-scrape.interval=0s" })
		if _, err := app.Parse(args); err != nil {
			t.Fatal(err)
		}
		p := newProcess(app, role, io.Discard, io.Discard)
		if err := setups[role](p); err != nil {
			t.Fatal(err)
		}
		names := p.group.Names()
		for i, name := range names {
			names[i] = strings.ReplaceAll(name, " ", "-")
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: the parts are\n%s, want\n%s", role, got, want)
		}
		checks := map[string]bool{}
		for _, s := range p.health.States() {
			if checks[s.Name] {
				t.Errorf("%s: readiness has %q twice", role, s.Name)
			}
			checks[s.Name] = true
		}
	}
}
