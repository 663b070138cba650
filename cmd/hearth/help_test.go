package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// helpOf is what hearth says to args.
func helpOf(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if status := execute(args, &out, &out); status != 0 {
		t.Fatalf("hearth %q: status %d: %s", args, status, &out)
	}
	return out.String()
}

// TestShortHelp: the first thing that a person sees is one screen. Rewrite the file with HEARTH_REWRITE=1.
func TestShortHelp(t *testing.T) {
	got := helpOf(t, "--help")
	path := filepath.Join("testdata", "help.txt")
	if os.Getenv("HEARTH_REWRITE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the help is\n%s\nwant\n%s", got, want)
	}
	if lines := strings.Count(got, "\n"); lines > 45 {
		t.Errorf("%d lines are no single screen", lines)
	}
}

// shortFlag is the short form of a flag, before the long one.
var shortFlag = regexp.MustCompile(`^-[a-z], `)

// TestRoleHelp: each flag of a role is there once, in a group, with its default and its variable, and no line is too
// long.
func TestRoleHelp(t *testing.T) {
	app, setups := commands()
	for role := range setups {
		help := helpOf(t, append(strings.Fields(role), "--help")...)
		for i, line := range strings.Split(help, "\n") {
			if len(line) > 120 {
				t.Errorf("%s, line %d is %d characters long: %s", role, i+1, len(line), line)
			}
		}
		screen := strings.Join(strings.SplitN(help, "\n", 26)[:25], "\n")
		for _, name := range commandNamed(role).first {
			if !strings.Contains(screen, "--"+name+"=") && !strings.Contains(screen, "--"+name+" ") { // one without a value
				t.Errorf("%s: --%s is not on the first screen:\n%s", role, name, screen)
			}
		}
		for name, f := range flagsByName(app, role) {
			if f.Hidden {
				continue
			}
			if subjectOf(commandNamed(role).groups(), name) == "" {
				t.Errorf("%s: --%s is in no group", role, name)
			}
			shown := "--" + name
			if f.IsBoolFlag() && len(f.Default) > 0 && f.Default[0] == "true" {
				shown = "--[no-]" + name
			}
			n := 0
			for _, line := range strings.Split(help, "\n") {
				head, _, _ := strings.Cut(shortFlag.ReplaceAllString(strings.TrimSpace(line), ""), " ")
				head, value, _ := strings.Cut(head, "=")
				if head != shown {
					continue
				}
				n++
				if d := strings.Join(f.Default, ","); !f.IsBoolFlag() && d != "" && value != d {
					t.Errorf("%s: the default of --%s is shown as %q, want %q", role, name, value, d)
				}
			}
			if n != 1 {
				t.Errorf("%s: --%s is there %d times", role, name, n)
			}
			if f.Envar != "" && !strings.Contains(help, f.Envar+"\n") {
				t.Errorf("%s: %s is not there", role, f.Envar)
			}
		}
	}
}
