package main

import (
	"fmt"
	"math"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/run"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/query"
)

// memoryFlags say how much memory reads may hold.
type memoryFlags struct{ bytes byteSize }

// maxMemoryFlag is the flag's name, as errors about the limit show it.
const maxMemoryFlag = "--query.max-memory"

func (f *memoryFlags) bind(c *kingpin.CmdClause, part int64) {
	c.Flag("query.max-memory", fmt.Sprintf("Bytes that all reads of this process may hold together: queries, remote "+
		"reads, and what is read of blocks for them. One tenant never has more than 8/9. 0 = 1/%d of the process's memory "+
		"limit, or half of that of the machine's memory where there is no limit.", part)).
		Default("0").SetValue(&f.bytes)
}

// build makes the budget that all reads of a process share. Without the flag it is 1/part of the process's memory.
func (f *memoryFlags) build(b *builder, part int64) *memory.Budget {
	total := int64(f.bytes)
	if total == 0 {
		total = readMemory(run.MemoryLimit(), run.MachineMemory(), part)
	}
	return memory.NewBudget(b.reg, maxMemoryFlag, total)
}

// Reads may have 1/partOfReader of the memory of a process that does nothing else, and 1/partOfAll of the all-in-one's.
const (
	partOfReader = 4
	partOfAll    = 8
)

// readMemory is how many bytes reads may hold. limit is the process's memory limit (math.MaxInt64 = none), machine the
// memory of the machine (0 = not known), both in bytes. The garbage collector needs as much again, and more where it
// knows no limit.
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

// boundRequests makes three things fit the process's memory: what write requests may take, what is kept for slow
// members, and the cache of known series (an eighth).
func boundRequests(opts *distributor.Options) {
	if memory := run.MemoryLimit(); memory < math.MaxInt64 {
		opts.MaxRequestBytes = distributor.RequestMemory(memory)
		opts.MemberBytes = min(opts.MemberBytes, opts.MaxRequestBytes/4)
		opts.KnownSeries = max(1, min(opts.KnownSeries, int(memory/8/wire.CachedSeriesBytes)))
	}
}

// boundWrites does the same for what other processes write to this one: an eighth of the memory for each of streams,
// calls, and the series that streams call by number.
func boundWrites(opts *rpc.ServerOptions) {
	part := run.MemoryLimit() / 8
	opts.NameBytes = max(1<<20, min(opts.NameBytes, part))
	opts.WriteBytes = max(1<<20, min(opts.WriteBytes, part))
}
