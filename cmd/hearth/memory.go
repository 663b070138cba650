package main

import (
	"fmt"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/query"
)

// memoryLimit is how many bytes this process may use, math.MaxInt64 where nobody says.
func memoryLimit() int64 {
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit, _ := cgroupMemory(); limit > 0 {
			return limit
		}
	}
	return debug.SetMemoryLimit(-1)
}

// cgroupMemory is the smallest memory limit in bytes of the control groups that this process is in, 0 for none, and the
// file that says so. A container sees its own group as the root; a systemd service is in a group below it.
func cgroupMemory() (limit int64, from string) {
	groups, _ := os.ReadFile("/proc/self/cgroup") // without it the root's limit is still found
	return smallestLimit("/sys/fs/cgroup", string(groups))
}

// smallestLimit is cgroupMemory for the groups that /proc/self/cgroup names, mounted at root.
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
	own, memory := "/", "/" // the groups of version 2, and of version 1's memory controller
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

// machineMemory is how many bytes of memory this machine has, 0 where it does not say.
func machineMemory() int64 {
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

// memoryFlags say how much memory reads may hold.
type memoryFlags struct{ bytes byteSize }

// maxMemoryFlag is the flag's name for messages of limits.
const maxMemoryFlag = "--query.max-memory"

func (f *memoryFlags) bind(c *kingpin.CmdClause, part int64) {
	c.Flag("query.max-memory", fmt.Sprintf("Bytes that all reads of this process may hold together: queries, remote "+
		"reads, and what is read of blocks for them. One tenant never has more than 8/9. 0 = 1/%d of the process's memory "+
		"limit, or half of that of the machine's memory where there is no limit.", part)).
		Default("0").SetValue(&f.bytes)
}

// build makes the budget of all reads of a process: one part in that many of its memory.
func (f *memoryFlags) build(p *process, part int64) *memory.Budget {
	total := int64(f.bytes)
	if total == 0 {
		total = readMemory(memoryLimit(), machineMemory(), part)
	}
	return memory.NewBudget(p.reg, maxMemoryFlag, total)
}

// The parts of a process's memory that reads may have: of one that does nothing else, and of one that does all.
const (
	partOfReader = 4
	partOfAll    = 8
)

// readMemory is how many bytes reads may hold in a process with a limit (math.MaxInt64 = none) on a machine with so
// much memory (0 = not known). The collector of garbage needs as much again, more where it knows no limit.
func readMemory(limit, machine, part int64) int64 {
	const least = 16 << 20
	if limit == math.MaxInt64 {
		if machine <= 0 {
			return query.DefaultMemory
		}
		limit = machine / 2
	}
	return max(least, limit/part)
}

// boundRequests makes what write requests may take, what is kept for slow members, and the memory for known series (an
// eighth) fit the process's memory.
func boundRequests(opts *distributor.Options) {
	if memory := memoryLimit(); memory < math.MaxInt64 {
		opts.MaxRequestBytes = distributor.RequestMemory(memory)
		opts.MemberBytes = min(opts.MemberBytes, opts.MaxRequestBytes/4)
		opts.KnownSeries = max(1, min(opts.KnownSeries, int(memory/8/wire.CachedSeriesBytes)))
	}
}

// boundWrites does that for what other processes write to this one: an eighth for streams, one for calls, and one for the
// series that streams call by number.
func boundWrites(opts *rpc.ServerOptions) {
	opts.NameBytes = max(1<<20, min(opts.NameBytes, memoryLimit()/8))
	opts.WriteBytes = max(1<<20, min(opts.WriteBytes, memoryLimit()/8))
}
