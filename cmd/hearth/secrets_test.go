package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const secretValue = "hunter2secret"

// withSecrets are arguments of a role with a secret in every flag that may hold one, each given in its own way.
func withSecrets(t *testing.T, role string) []string {
	t.Helper()
	args := roleArgs(t, role)
	args = append(args,
		"--tracing.config=type: OTLP\nconfig: {client_type: grpc, insecure: true, headers: {key: "+secretValue+"}}",
		"--request.logging-config", "options: {decision: {log_end: false}} # "+secretValue)
	switch role {
	case "receive", "all", "distributor":
		args = append(args, "--receive.limits-config=write: {} # "+secretValue, "--receive.relabel-config=[] # "+secretValue)
	}
	if role == "store" || role == "receive" {
		config := fmt.Sprintf("type: FILESYSTEM\nconfig: {directory: %q}\nprefix: %s", t.TempDir(), secretValue)
		args = slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "--objstore.config=") })
		args = append(args, "--objstore.config="+config)
	}
	return args
}

// TestSecretsAreNotShown: what was given as a secret is on no route, of no class, for anybody.
func TestSecretsAreNotShown(t *testing.T) {
	for _, role := range roles {
		t.Run(role, func(t *testing.T) {
			p := startRole(t, withSecrets(t, role))
			if p.flags["tracing.config"] == "" {
				t.Error("that the flag is set does not show")
			}
			for _, s := range p.listeners {
				for _, route := range s.Routes() {
					path := route.Pattern
					if _, rest, ok := strings.Cut(path, " "); ok {
						path = rest
					}
					switch path {
					case "/debug/pprof/profile", "/debug/pprof/trace":
						continue
					case "/debug/pprof/":
						path += "goroutine?debug=2"
					}
					if _, body := raw(t, s.Addr(), "GET", path, ""); strings.Contains(body, secretValue) {
						t.Errorf("%s shows the secret", path)
					}
				}
			}
		})
	}
}

// TestSecretsAreNotInErrors: what a faulty configuration is answered with names no value of it, wherever it came from.
func TestSecretsAreNotInErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f := func(name, word string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		args = append(
			[]string{"store", "--data-dir=" + t.TempDir(), "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"},
			args...)
		if code := execute(args, io.Discard, &out); code == 0 {
			t.Errorf("%s: it starts", name)
		}
		if text := out.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, word) {
			t.Errorf("%s: %s", name, text)
		}
	}
	for i, config := range []string{
		"type: S3\nconfig: {bucket: b, endpoint: e, access_key: x, insecure: " + secretValue + "}",
		"type: S3\nconfig: {bucket: b, endpoint: e, secret_key: *" + secretValue + "}",
		"type: S3\nconfig: {bucket: b, endpoint: e, secret_key: [" + secretValue + "]}",
		"type: S3\nconfig: " + secretValue,
		secretValue,
		"- " + secretValue,
		"type: S3\nconfig:\n  secret_key: \"" + secretValue,
		"type: S3\nconfig:\n  secret_key: @" + secretValue,
	} {
		f(fmt.Sprint("flag ", i), "objstore.config", "--objstore.config="+config)
		f(fmt.Sprint("file ", i), "objstore.config", "--objstore.config-file="+file("o.yml", config))
		indented := "objstore.config: |\n  " + strings.ReplaceAll(config, "\n", "\n  ") + "\n"
		f(fmt.Sprint("configuration file ", i), "objstore.config", "--config.file="+file("c.yml", indented))
		t.Setenv("HEARTH_OBJSTORE_CONFIG", config)
		f(fmt.Sprint("environment ", i), "objstore.config")
		os.Unsetenv("HEARTH_OBJSTORE_CONFIG")
	}
	t.Setenv("BUCKET_KEY", "*"+secretValue)
	f("a variable", "objstore.config", "--objstore.config=type: S3\nconfig: {secret_key: $(BUCKET_KEY)}")
	f("a flag of another name", "objstore.confg", "--objstore.confg=secret_key: "+secretValue)
	f("an argument of its own", "unexpected argument", "--objstore.config=", "secret_key: "+secretValue)
	f("a configuration file that is none", "c.yml", "--config.file="+file("c.yml", "objstore.config: *"+secretValue))
	f("a flag of another name in a configuration file", "objstore.confg",
		"--config.file="+file("c.yml", "objstore.confg: {secret_key: "+secretValue+"}"))
	f("tracing", "tracing.config",
		"--tracing.config=type: OTLP\nconfig: {client_type: grpc, header: {x: "+secretValue+"}}")
	f("tracing file", "t.yml",
		"--tracing.config-file="+file("t.yml", "type: OTLP\nconfig: {client_type: grpc, headers: "+secretValue+"}"))
	f("request logging", "request.logging-config", "--request.logging-config=options: "+secretValue)
	f("users", "users.yml", "--auth.tenants-file="+file("users.yml", "users: {alice: "+secretValue+"}"))
	f("passwords", "web.yml", "--http.config="+file("web.yml", "basic_auth_users: {alice: "+secretValue+"}"))
}
