package run

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGroupLimit: the limit is found where containers have it, and where systemd puts MemoryMax= of a service.
func TestGroupLimit(t *testing.T) {
	f := func(groups string, files map[string]string, want int64) {
		t.Helper()
		root := t.TempDir()
		for name, text := range files {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, from := smallestLimit(root, groups); got != want || (got > 0) != (from != "") {
			t.Errorf("%q %q: %d from %s, want %d", groups, files, got, from, want)
		}
	}
	const service = "0::/system.slice/hearth.service\n"
	f("0::/\n", map[string]string{"memory.max": "1073741824\n"}, 1<<30)
	f("", map[string]string{"memory.max": "1073741824\n"}, 1<<30)
	f("0::/\n", map[string]string{"memory.max": "max\n"}, 0)
	f(service,
		map[string]string{"system.slice/hearth.service/memory.max": "1073741824\n", "system.slice/memory.max": "max\n"},
		1<<30)
	f(service,
		map[string]string{"system.slice/hearth.service/memory.max": "max\n", "system.slice/memory.max": "2147483648\n"},
		2<<30)
	f("0::/../../x\n", map[string]string{"memory.max": "max\n"}, 0)
	f(
		"4:cpu,memory:/pods/a\n0::/\n",
		map[string]string{"memory/pods/a/memory.limit_in_bytes": "1073741824\n",
			"memory/memory.limit_in_bytes": "9223372036854771712\n"},
		1<<30,
	)
	f("4:memory:/not/mounted\n", map[string]string{"memory/memory.limit_in_bytes": "1073741824\n"}, 1<<30)
}

func TestMachineMemory(t *testing.T) {
	if n := MachineMemory(); n < 1<<30 || n > 1<<50 {
		t.Errorf("this machine has %d bytes", n)
	}
}
