package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInvalidFilesAreAdvice: readiness names each file that was not valid when it was last read, until it is again.
func TestInvalidFilesAreAdvice(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const wrong = "x: [y\n"
	good := map[string]string{"limits.yml": "defaults: {active_series: 5}\n",
		"relabel.yml": "- {action: drop, regex: x}\n", "rings.json": `[{"endpoints": ["a:1"]}]`}
	for name, text := range good {
		file(name, text)
	}
	users := usersFile(t)
	args := append(roleArgs(t, "receive"), "--auth.tenants-file="+users,
		"--runtime-config.file="+filepath.Join(dir, "limits.yml"),
		"--receive.relabel-config-file="+filepath.Join(dir, "relabel.yml"),
		"--receive.hashrings-file="+filepath.Join(dir, "rings.json"), "--receive.local-endpoint=a:1")
	p := startRole(t, args)
	f := func(want string, advised bool) {
		t.Helper()
		_ = p.reload("test") // its error is what readiness shows
		code, body := raw(t, p.listeners[0].Addr(), "GET", "/-/ready?verbose", "ops")
		line := "[+] " + want
		if advised {
			line = "[!] " + want + ": not valid, the last good ones stay in force: "
		}
		if code != 200 || !strings.Contains(body, line) {
			t.Errorf("status %d, no line %q in\n%s", code, line, body)
		}
	}
	for name, part := range map[string]string{"limits.yml": "files of limits", "relabel.yml": "relabel rules", "rings.json": "hashrings file"} {
		f(part, false)
		file(name, wrong)
		f(part, true)
		file(name, good[name])
		f(part, false)
	}
	valid, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	for text, advised := range map[string]bool{wrong: true, string(valid): false} {
		if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f("files of users", advised)
	}
}
