package run

import (
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
)

// MemoryLimit is how many bytes this process may use. It is math.MaxInt64 where nothing bounds the process.
func MemoryLimit() int64 {
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit, _ := GroupMemory(); limit > 0 {
			return limit
		}
	}
	return debug.SetMemoryLimit(-1)
}

// GroupMemory is the smallest memory limit in bytes of the control groups that this process is in, and the file that
// has it; 0 and "" where no group has a limit. A container sees its own group as the root; a systemd service is in a
// group below the root.
func GroupMemory() (limit int64, from string) {
	groups, _ := os.ReadFile("/proc/self/cgroup") // without this file the limit of the root is still found
	return smallestLimit("/sys/fs/cgroup", string(groups))
}

// smallestLimit is GroupMemory for the text of /proc/self/cgroup, with the groups mounted at root.
func smallestLimit(root, groups string) (limit int64, from string) {
	look := func(dir, group, file string) {
		for ; ; group = path.Dir(group) {
			name := path.Join(dir, group, file)
			var n int64
			if raw, err := os.ReadFile(name); err == nil {
				if _, err := fmt.Sscan(string(raw), &n); err == nil && n > 0 && n < 1<<60 && (limit == 0 || n < limit) {
					limit, from = n, name
				}
			}
			if group == "/" || group == "." {
				return
			}
		}
	}
	own, memory := "/", "/" // the group of version 2, and the group of version 1's memory controller
	for line := range strings.Lines(groups) {
		switch parts := strings.SplitN(strings.TrimSpace(line), ":", 3); {
		case len(parts) < 3:
		case parts[0] == "0" && parts[1] == "":
			own = path.Join("/", parts[2])
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			memory = path.Join("/", parts[2])
		}
	}
	look(root, own, "memory.max")
	look(path.Join(root, "memory"), memory, "memory.limit_in_bytes")
	return limit, from
}

// MachineMemory is how many bytes of memory this machine has, 0 where it does not say.
func MachineMemory() int64 {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib int64
	if _, err := fmt.Sscanf(string(raw), "MemTotal: %d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}
