package tsdb

import (
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkSemaphore is a lock that many goroutines want for a third of their time, by slots and by a mutex.
func BenchmarkSemaphore(b *testing.B) {
	var done atomic.Uint64
	work := func(n uint64) {
		x := uint64(1)
		for i := range n {
			x = x*31 + i
		}
		done.Add(x)
	}
	run := func(name string, take, give func()) {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					work(100_000)
					take()
					work(50_000)
					give()
				}
			})
		})
	}
	var m sync.Mutex
	run("mutex", m.Lock, m.Unlock)
	s := make(semaphore, 1)
	run("semaphore", func() {
		if err := s.take(b.Context()); err != nil {
			b.Error(err)
		}
	}, s.give)
}
