package main

import (
	"runtime/debug"
	"testing"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/wire"
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
	known := int64(d.KnownSeries) * wire.KnownBytes
	if sum := d.MaxRequestBytes + d.MemberBytes + known + 2*s.WriteBytes; sum > memory*3/4 {
		t.Errorf("bounds are %d bytes in all: requests %d, members %d each, known series %d, writes twice %d",
			sum, d.MaxRequestBytes, d.MemberBytes, known, s.WriteBytes)
	}
}
