package main

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/wire"
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

// boundRequests makes what write requests may take, what is kept for slow members, and the memory for known series (an
// eighth) fit the process's memory.
func boundRequests(opts *distributor.Options) {
	if memory := memoryLimit(); memory < math.MaxInt64 {
		opts.MaxRequestBytes = distributor.RequestMemory(memory)
		opts.MemberBytes = min(opts.MemberBytes, opts.MaxRequestBytes/4)
		opts.KnownSeries = max(1, min(opts.KnownSeries, int(memory/8/wire.KnownBytes)))
	}
}

// boundWrites does that for what other processes write to this one: an eighth for streams, and one for calls.
func boundWrites(opts *rpc.ServerOptions) {
	opts.WriteBytes = max(1<<20, min(opts.WriteBytes, memoryLimit()/8))
}
