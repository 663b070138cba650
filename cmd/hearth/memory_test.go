package main

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/run"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/query"
)

// What is bounded by bytes must fit the memory of a small process, all together.
func TestBoundsFitMemory(t *testing.T) {
	const memory = 512 << 20
	t.Setenv("GOMEMLIMIT", "512MiB") // so that the machine is not asked
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memory))
	d, s := distributor.DefaultOptions(), rpc.ServerOptions{WriteBytes: 1 << 40}
	boundRequests(&d)
	boundWrites(&s)
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	known := int64(d.KnownSeries) * wire.CachedSeriesBytes
	reads := readMemory(run.MemoryLimit(), run.MachineMemory(), partOfAll)
	if sum := d.MaxRequestBytes + d.MemberBytes + known + 2*s.WriteBytes + reads; sum > memory*7/8 {
		t.Errorf("bounds are %d bytes in all: requests %d, members %d each, known series %d, writes twice %d, reads %d",
			sum, d.MaxRequestBytes, d.MemberBytes, known, s.WriteBytes, reads)
	}
}

func TestReadMemory(t *testing.T) {
	f := func(limit, machine, part, want int64) {
		t.Helper()
		if got := readMemory(limit, machine, part); got != want {
			t.Errorf("limit %d, machine %d: %d, want %d", limit, machine, got, want)
		}
	}
	f(4<<30, 64<<30, partOfReader, 1<<30)
	f(4<<30, 0, partOfAll, 512<<20)
	f(math.MaxInt64, 64<<30, partOfReader, 8<<30)
	f(math.MaxInt64, 0, partOfAll, query.DefaultMemory)
	f(8<<20, 64<<30, partOfAll, 16<<20)
}
