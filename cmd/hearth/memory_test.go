package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/rpc"
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
	reads := readMemory(memoryLimit(), machineMemory(), partOfAll)
	if sum := d.MaxRequestBytes + d.MemberBytes + known + 2*s.WriteBytes + reads; sum > memory*7/8 {
		t.Errorf("bounds are %d bytes in all: requests %d, members %d each, known series %d, writes twice %d, reads %d",
			sum, d.MaxRequestBytes, d.MemberBytes, known, s.WriteBytes, reads)
	}
}

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
	f(service, map[string]string{"system.slice/hearth.service/memory.max": "1073741824\n", "system.slice/memory.max": "max\n"}, 1<<30)
	f(service, map[string]string{"system.slice/hearth.service/memory.max": "max\n", "system.slice/memory.max": "2147483648\n"}, 2<<30)
	f("0::/../../x\n", map[string]string{"memory.max": "max\n"}, 0)
	f("4:cpu,memory:/pods/a\n0::/\n", map[string]string{"memory/pods/a/memory.limit_in_bytes": "1073741824\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 1<<30)
	f("4:memory:/not/mounted\n", map[string]string{"memory/memory.limit_in_bytes": "1073741824\n"}, 1<<30)
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
	if n := machineMemory(); n < 1<<30 || n > 1<<50 {
		t.Errorf("this machine has %d bytes", n)
	}
}
