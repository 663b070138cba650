package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// builtRuler is what the log says when hearth rule is made with args.
func builtRuler(t *testing.T, args ...string) string {
	t.Helper()
	app, setups := commands()
	command, err := app.Parse(append([]string{"rule", "--data-dir=" + t.TempDir(), "--http-address=127.0.0.1:0",
		"--grpc-address=127.0.0.1:0"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer)
	if err := setups[command](newProcess(app, command, io.Discard, log)); err != nil {
		t.Fatal(err)
	}
	return log.String()
}

// TestRulerWarnsOfSettingsWithoutEffect: each is named once, with the reason.
func TestRulerWarnsOfSettingsWithoutEffect(t *testing.T) {
	f := func(log string, want ...string) {
		t.Helper()
		if n := strings.Count(log, "no effect"); n != len(want) {
			t.Errorf("%d warnings, want %d:\n%s", n, len(want), log)
		}
		for _, w := range want {
			if !strings.Contains(log, w) {
				t.Errorf("%q is not there:\n%s", w, log)
			}
		}
	}
	ask := "--query=127.0.0.1:1"
	f(builtRuler(t, ask, "--tsdb.retention=12h"))
	f(builtRuler(t, "--query.config=[{static_configs: ['a:1'], grpc_config: {endpoint_addresses: ['a:2']}, "+
		"http_config: {transport_config: {max_idle_conns: 3}}}]"), "setting=grpc_config", "setting=transport_config")
	f(builtRuler(t, ask, "--alertmanagers.config=alertmanagers: [{file_sd_configs: [{files: [x.json], "+
		"refresh_interval: 1m}]}]"), "setting=refresh_interval")
	f(builtRuler(t, ask, "--gossip.join=127.0.0.1:1", "--gossip.address=127.0.0.1:0", "--tsdb.retention=12h",
		"--rule.keep-results"), `flags="--tsdb.retention, --rule.keep-results"`)
	servers := "--remote-write.config=remote_write: [{url: 'http://127.0.0.1:1/x'}]"
	f(builtRuler(t, ask, servers, "--tsdb.retention=12h"), "flags=--tsdb.retention")
	f(builtRuler(t, ask, servers, "--tsdb.retention=12h", "--rule.keep-results"))
}

// TestOperatorsRuler: the arguments with which the Prometheus Operator starts a ThanosRuler are taken as they are, with
// a TSDB and with remote write, and make a ruler.
func TestOperatorsRuler(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	common := func(label string) []string {
		return []string{"--data-dir=" + filepath.Join(dir, "data"), "--eval-interval=15s", "--tsdb.retention=24h", "--rule-query-offset=1m",
			"--rule-concurrent-evaluation=4", "--for-outage-tolerance=2h", "--for-grace-period=5m", "--resend-delay=2m",
			"--label=thanos_ruler_replica=\"thanos-ruler-0\"", "--label=cluster=\"" + label + "\"",
			"--alert.label-drop=thanos_ruler_replica", "--alert.label-drop=pod", "--http-address=localhost:0", "--log.level=info",
			"--log.format=json", "--rule-file=" + dir + "/rules/*/*.yaml"}
	}
	last := []string{"--alertmanagers.config-file=" + write("am.yaml", "alertmanagers:\n- api_version: v2\n  static_configs:\n  - dnssrv+_web._tcp.alertmanager-operated.monitoring.svc\n"),
		"--tracing.config-file=" + write("tracing.yaml", "type: OTLP\nconfig:\n  client_type: grpc\n  endpoint: 127.0.0.1:1\n  insecure: true\n"),
		"--alert.relabel-config-file=" + write("relabel.yaml", "- action: labeldrop\n  regex: secret\n"),
		"--grpc-address=127.0.0.1:0", "--alert.query-url=https://q.example.org", "--web.route-prefix=/",
		"--http.config=" + write("web.yaml", "{}\n")}
	for name, args := range map[string][]string{
		"a TSDB": {"--query=dnssrv+_http._tcp.thanos-query.monitoring.svc", "--query=http://q:9090",
			"--objstore.config-file=" + write("objstore.yaml", "type: FILESYSTEM\nconfig:\n  directory: "+dir+"/bucket\n")},
		"remote write": {"--remote-write.config-file=" + write("rw.yaml", "remote_write:\n- url: http://r:10908/api/v1/receive\n  name: r\n"),
			"--query.config-file=" + write("query.yaml", "- static_configs: [q:9090]\n  scheme: http\n")},
	} {
		t.Run(name, func(t *testing.T) {
			app, setups := commands()
			command, err := app.Parse(slices.Concat([]string{"rule"}, common(name), args, last))
			if err != nil {
				t.Fatal(err)
			}
			log := new(bytes.Buffer)
			if err := setups[command](newProcess(app, command, io.Discard, log)); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "no effect") && !strings.Contains(line, "--tsdb.retention") {
					t.Error(line)
				}
			}
		})
	}
}
