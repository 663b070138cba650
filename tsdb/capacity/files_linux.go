package capacity

import (
	"fmt"
	"os"
	"syscall"
)

// fileLimits returns how many files this process may open, and how many memory maps it may have. The Go runtime
// raises the first to the hard limit when the process begins.
func fileLimits() (files, maps int) {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) == nil {
		files = int(min(r.Cur, 1<<31))
	}
	if b, err := os.ReadFile("/proc/sys/vm/max_map_count"); err == nil {
		_, _ = fmt.Sscan(string(b), &maps) // 0 = not known
	}
	return files, maps
}
