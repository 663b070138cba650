package httpx

import (
	"testing"
	"time"
)

// TestReaderTime: each step waits for some time for its reader to take bytes, after some time of work.
func TestReaderTime(t *testing.T) {
	const most = 30 * time.Second
	type step struct {
		works  time.Duration // before it
		bytes  int
		may    time.Duration // wait
		waited time.Duration
	}
	f := func(name string, steps ...step) {
		t.Helper()
		now := time.Unix(0, 0)
		p := NewReaderTime(most, 30_000)
		for i, s := range steps {
			now = now.Add(s.works)
			if got := p.Begin(now, s.bytes); got != s.may {
				t.Fatalf("%s: step %d may wait %s, want %s", name, i, got, s.may)
			}
			now = now.Add(s.waited)
			p.End(now)
		}
	}
	f("bytes give time", step{0, 5000, 35 * time.Second, 35 * time.Second}, step{0, 1000, time.Second, 0})
	f("time is used up once", step{0, 0, most, 20 * time.Second}, step{0, 0, 10 * time.Second, 9 * time.Second},
		step{0, 0, time.Second, 0})
	f("what is taken fast is not saved", step{0, 1e6, 1030 * time.Second, 0}, step{0, 0, most, 0})
	f("work is not the reader's time", step{0, 0, most, 20 * time.Second}, step{5 * time.Second, 0, 15 * time.Second, 0},
		step{time.Hour, 0, most, 0})
	f("work before the first step gives nothing", step{time.Hour, 0, most, 0})
	f("at the rate for ever", step{0, 1000, 31 * time.Second, time.Second}, step{0, 1000, 31 * time.Second, time.Second})
}
