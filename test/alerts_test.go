package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// alerts are the rules of a Prometheus by name, with their states: inactive, pending or firing.
func alerts(base string) (map[string]string, error) {
	resp, err := http.Get(base + "/api/v1/rules")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, State, Health, LastError string }
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				return nil, fmt.Errorf("alert %s: %s: %s", r.Name, r.Health, r.LastError)
			}
			states[r.Name] = r.State
		}
	}
	if len(states) == 0 {
		return nil, errors.New("no alerts")
	}
	return states, nil
}

// TestAlerts evaluates deploy/alerts.yml over a real process: quiet while it is well, and not when it is not.
func TestAlerts(t *testing.T) {
	rules, err := filepath.Abs("../deploy/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	limits := filepath.Join(t.TempDir(), "limits.yml")
	if err := os.WriteFile(limits, []byte("defaults: {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, base := startAll(t, t.TempDir(), "--runtime-config.file="+limits)
	_, prom := startPrometheus(t, func(string) string {
		return fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: ['%s']\nscrape_configs:\n- job_name: hearth\n  static_configs: [{targets: ['%s']}]\n",
			rules, strings.TrimPrefix(base, "http://"))
	})
	eventually(t, 60*time.Second, func() error {
		_, err := api{base: prom}.query(`hearth_build_info and on (instance) up == 1`, time.Now())
		return err
	})
	began := time.Now()
	eventually(t, 60*time.Second, func() error {
		states, err := alerts(prom)
		if err != nil {
			return err
		}
		for name, state := range states {
			if state != "inactive" {
				t.Errorf("alert %s is %s while all is well", name, state)
			}
		}
		if time.Since(began) < 5*time.Second { // several evaluations
			return errors.New("too early")
		}
		return nil
	})
	if err := os.WriteFile(limits, []byte("defaults: ["), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, func() error {
		states, err := alerts(prom)
		if err == nil && states["HearthLimitsInvalid"] == "inactive" {
			err = errors.New("nobody hears of limits that are not valid")
		}
		return err
	})
}
