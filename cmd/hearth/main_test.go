package main

import (
	"bytes"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if status := execute([]string{"--version"}, &out, &out); status != 0 ||
		!strings.HasPrefix(out.String(), "hearth, version dev ") {
		t.Errorf("status %d: %s", status, &out)
	}
	f := func(version string, ok bool, want string) {
		t.Helper()
		if got := moduleVersion(&debug.BuildInfo{Main: debug.Module{Version: version}}, ok); got != want {
			t.Errorf("%q: %q, want %q", version, got, want)
		}
	}
	f("v1.2.3", true, "v1.2.3")
	f("(devel)", true, "dev")
	f("", true, "dev")
	f("", false, "dev")
}
