package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestSelectionFlags: what cannot choose blocks is refused before anything opens.
func TestSelectionFlags(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		var out, errOut bytes.Buffer
		args = append([]string{"store", "--data-dir=" + t.TempDir(),
			"--objstore.config={type: FILESYSTEM, config: {directory: " + t.TempDir() + "}}"}, args...)
		if status := executeOf(allCommands(), args, &out, &errOut); status != 2 || !strings.Contains(errOut.String(), want) {
			t.Errorf("%q: status %d, %s, want %s", args[3:], status, &errOut, want)
		}
	}
	f(`"soon": want a time such as 2026-01-31T00:00:00Z`, "--min-time=soon")
	f("--min-time=1d is after --max-time=-1d", "--min-time=1d", "--max-time=-1d")
	f("--selector.relabel-config: rule 1: action replace: only keep, drop and hashmod choose blocks",
		"--selector.relabel-config=[{source_labels: [a], target_label: b}]")
	f("--selector.relabel-config:1: rule 1: ", "--selector.relabel-config=[{action: kep}]")
}
