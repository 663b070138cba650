package main

import (
	"bytes"
	"io"
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
