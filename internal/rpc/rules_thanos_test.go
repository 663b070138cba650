package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestThanosQueryReadsRules: a real `thanos query` shows the rules and alerts of a Hearth process, and a client of
// Hearth reads the same rules from that Thanos.
func TestThanosQueryReadsRules(t *testing.T) {
	binary := os.Getenv("HEARTH_THANOS")
	if binary == "" {
		t.Skip("HEARTH_THANOS names no binary of Thanos")
	}
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Rules: rulestate.Local(someRules), Tenants: Tenants{All: true}})
	})
	httpAddr, grpcAddr := freeAddress(t), freeAddress(t)
	cmd := exec.Command(binary, "query", "--http-address="+httpAddr, "--grpc-address="+grpcAddr, "--endpoint="+addr,
		"--query.replica-label=replica")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })

	type rule struct {
		Name, Query, Type, State string
		Labels                   map[string]string
		Alerts                   []struct {
			Labels map[string]string
			State  string
			Value  string
		}
	}
	var answer struct {
		Data struct {
			Groups []struct {
				Name, File string
				Interval   float64
				Limit      int
				Strategy   string `json:"partialResponseStrategy"`
				Rules      []rule
			}
			Alerts []struct{ Labels map[string]string }
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := getJSON("http://"+httpAddr+"/api/v1/rules", &answer)
		if err == nil && len(answer.Data.Groups) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("thanos query shows no rules: %v, %+v", err, answer)
		}
		time.Sleep(100 * time.Millisecond)
	}
	// Thanos makes one group of those of two tenants that have the same file and name, and sorts the rules.
	g := answer.Data.Groups[0]
	var got []string
	for _, r := range g.Rules {
		got = append(got, fmt.Sprint(r.Type, " ", r.Name, " ", r.State, " ", r.Labels, " ", len(r.Alerts)))
	}
	want := []string{
		"alerting A firing map[team:x tenant_id:default-tenant] 1",
		"recording r  map[a:b tenant_id:default-tenant] 0", "recording r  map[a:b tenant_id:other] 0",
	}
	if len(answer.Data.Groups) != 1 || g.Name != "g" || g.File != "f" || !slices.Equal(got, want) {
		t.Errorf("groups %+v\nrules %q, want %q", answer.Data.Groups, got, want)
	}
	if a := g.Rules[0].Alerts; len(a) != 1 || a[0].State != "firing" || a[0].Value != "1e+00" ||
		a[0].Labels["alertname"] != "A" {
		t.Errorf("alerts %+v", a)
	}
	if err := getJSON("http://"+httpAddr+"/api/v1/alerts", &answer); err != nil || len(answer.Data.Alerts) != 1 {
		t.Errorf("%v, %+v", err, answer.Data.Alerts)
	}

	c := dial(t, grpcAddr, ClientOptions{})
	groups, _, err := c.Rules(context.Background(), tenant.Default, rulestate.Query{Type: rulestate.Alerting})
	if err != nil || len(groups) != 1 || len(groups[0].Rules) != 1 || groups[0].Rules[0].Name != "A" {
		t.Errorf("from Thanos: %+v, %v", groups, err)
	}
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func getJSON(url string, to any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(raw), "{") {
		return fmt.Errorf("%d %s", resp.StatusCode, raw)
	}
	return json.Unmarshal(raw, to)
}
