package targets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/dns"
	"github.com/prometheus/client_golang/prometheus"
)

func TestParse(t *testing.T) {
	got, err := Parse("x.yml", "alertmanagers", []byte(`alertmanagers:
- static_configs: [a:9093, dns+b:9093]
  scheme: https
  path_prefix: /am
  timeout: 5s
  api_version: v2
  http_config:
    basic_auth: {username: u, password_file: f}
    tls_config: {ca_file: c, insecure_skip_verify: true}
    transport_config: {max_idle_conns: 3}
- file_sd_configs: [{files: [x.json], refresh_interval: 1m}]
`))
	if err != nil || len(got) != 2 || got[0].Scheme != "https" || got[0].HTTP.BasicAuth.Username != "u" ||
		!got[0].HTTP.TLS.InsecureSkipVerify || got[1].Scheme != "http" || got[1].Files[0].Files[0] != "x.json" {
		t.Fatalf("%+v, %v", got, err)
	}
	f := func(text string, words ...string) {
		t.Helper()
		_, err := Parse("x.yml", "alertmanagers", []byte(text))
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %s", text, err, w)
			}
		}
	}
	f("alertmanagers: [{static_config: [a]}]", "x.yml:1", "static_config")
	f("alertmanagers: [{scheme: ftp}]", "scheme")
	f("alertmanagers: [{api_version: v1}]", "v2")
	f("alertmanagers: {}", "list")
	f("others: []", "others")
	if got, err := Parse("x", "alertmanagers", nil); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestOfURL(t *testing.T) {
	f := func(text, scheme, prefix, address string) {
		t.Helper()
		c, err := OfURL(text, 9093, time.Second)
		if err != nil || c.Scheme != scheme || c.PathPrefix != prefix || !slices.Equal(c.Static, []string{address}) {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	f("http://a:1", "http", "", "a:1")
	f("https://a/x", "https", "/x", "a:9093")
	f("a:1", "http", "", "a:1")
	f("dns+http://a", "http", "", "dns+a:9093")
	f("dnssrv+https://_http._tcp.a/p", "https", "/p", "dnssrv+_http._tcp.a")
	f("dnssrv+_http._tcp.a", "http", "", "dnssrv+_http._tcp.a")
	if c, err := OfURL("http://u:p@a:1", 0, 0); err != nil || c.HTTP.BasicAuth.Password != "p" || c.Static[0] != "a:1" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{"", "http://", "srv+http://a", "ftp://a:1"} {
		if c, err := OfURL(bad, 0, 0); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

// TestList: files are read again, and one that becomes wrong keeps its last addresses.
func TestList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sd.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`[{"targets": ["b:1", "a:1"]}]`)
	var told [][]string
	l := NewList(slog.New(slog.DiscardHandler), []Config{{Static: []string{"s:1"},
		Files: []FileConfig{{Files: []string{file}}}}},
		time.Hour, func(all [][]string) { told = append(told, all[0]) })
	is := func(want ...string) {
		t.Helper()
		l.refresh(context.Background())
		if got := l.Addresses()[0]; !slices.Equal(got, want) {
			t.Errorf("addresses %q, want %q", got, want)
		}
	}
	if err := l.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	is("a:1", "b:1", "s:1")
	write("- targets: [c:1]\n")
	is("c:1", "s:1")
	write("- targets: {}\n")
	is("c:1", "s:1")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	is("c:1", "s:1")
	if len(told) != 2 {
		t.Errorf("told %q", told)
	}
}

// TestUnusedBy: what has no effect is named, each setting once.
func TestUnusedBy(t *testing.T) {
	f := func(text string, queriers bool, want ...string) {
		t.Helper()
		configs, err := Parse("x.yml", "", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range UnusedBy(configs, queriers) {
			got = append(got, u.Name)
			if u.Reason == "" {
				t.Errorf("%s: no reason", u.Name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	f("- static_configs: [a]\n  timeout: 3s\n  file_sd_configs: [{files: [x]}]", true)
	f("- grpc_config: {endpoint_addresses: [a:1]}\n- grpc_config: {endpoint_addresses: [b:1]}", true, "grpc_config")
	f("- grpc_config: {endpoint_addresses: [a:1]}\n  api_version: v2", false, "grpc_config")
	f("- api_version: v2\n  http_config: {transport_config: {max_idle_conns: 1}}", true, "api_version", "transport_config")
	f("- file_sd_configs: [{files: [x], refresh_interval: 1m}, {files: [y], refresh_interval: 2m}]", false,
		"refresh_interval")
}

// names is a dns.Resolver that knows some names.
type names map[string][]string

func (n names) Resolve(_ context.Context, name string, _ dns.QType) ([]string, error) {
	if n[name] == nil {
		return nil, errors.New("no such host")
	}
	return n[name], nil
}

// TestMetrics: they have the names and values of Thanos's ruler. A name that is gone is not shown any more.
func TestMetrics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sd.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`[{"targets": ["dns+b:1", "x:1"]}]`)
	reg := prometheus.NewRegistry()
	l := NewList(slog.New(slog.DiscardHandler), []Config{{Static: []string{"s:1", "dns+a:1"},
		Files: []FileConfig{{Files: []string{file}}}}}, time.Hour, nil)
	l.Register(reg, "thanos_rule_query_apis_")
	l.resolver = names{"a:1": {"10.0.0.1:1", "10.0.0.2:1"}}
	is := func(want ...string) {
		t.Helper()
		l.refresh(t.Context())
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range families {
			for _, m := range f.Metric {
				addr := ""
				for _, p := range m.Label {
					addr = p.GetValue()
				}
				got = append(got, fmt.Sprint(strings.TrimPrefix(f.GetName(), "thanos_rule_query_apis_dns_"), " ", addr, " ",
					m.GetCounter().GetValue()+m.GetGauge().GetValue()))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
	}
	is("failures_total  1", "lookups_total  2", "provider_results dns+a:1 2", "provider_results dns+b:1 0",
		"provider_results s:1 1", "provider_results x:1 1")
	write(`[]`)
	is("failures_total  1", "lookups_total  3", "provider_results dns+a:1 2", "provider_results s:1 1")
}
