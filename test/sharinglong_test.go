package test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
)

// grow puts one more window of blocks into the bucket, as a receiver does: meta.json last.
func (s *sharers) grow(bucket string) {
	s.t.Helper()
	made := filepath.Join(s.t.TempDir(), "window")
	p := s.plan
	p.Blocks, p.End = p.Tenants, p.End.Add(time.Duration(s.come/p.Tenants+1)*p.Window)
	if err := blocks.Write(s.t.Context(), made, p); err != nil {
		s.t.Fatal(err)
	}
	entries, err := os.ReadDir(made)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		meta, to := filepath.Join(made, e.Name()+".json"), filepath.Join(bucket, e.Name())
		for _, step := range [][2]string{{filepath.Join(made, e.Name(), "meta.json"), meta},
			{filepath.Join(made, e.Name()), to}, {meta, filepath.Join(to, "meta.json")}} {
			if err := os.Rename(step[0], step[1]); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	s.come += len(entries)
}

// life is a random life of gateways that share a bucket.
type life struct {
	*sharers
	rnd   *rand.Rand
	names int
}

// any is one of the gateways that are there.
func (l *life) any() string {
	names := slices.Sorted(maps.Keys(l.live))
	return names[l.rnd.IntN(len(names))]
}

// step lets something happen, waits until the gateways agree again, and says what it was.
func (l *life) step() string {
	const stopping = 60 * time.Second
	name := l.any()
	switch l.rnd.IntN(5) {
	case 0:
		g := l.remove(name)
		g.kill()
		l.settled()
		l.add(g)
		l.settled()
		return name + " crashed, and came back later"
	case 1:
		g := l.remove(name)
		g.kill()
		l.add(g)
		l.settled()
		return name + " crashed, and came back at once"
	case 2:
		g := l.remove(name)
		g.stop(stopping)
		l.settled()
		l.add(g)
		l.settled()
		return name + " was restarted"
	case 3:
		l.names++
		l.add(newNode(l.t, fmt.Sprintf("s%d", l.names), "store"))
		l.settled()
		l.remove(name).stop(stopping)
		l.settled()
		return fmt.Sprintf("s%d joined, and %s left", l.names, name)
	}
	l.rough.Store(true)
	first := l.remove(name)
	second := l.remove(l.any())
	first.kill()
	second.kill()
	time.Sleep(time.Duration(l.rnd.IntN(5000)) * time.Millisecond)
	l.add(first)
	l.add(second)
	l.settled()
	l.rough.Store(false)
	return first.name + " and " + second.name + " crashed at once"
}

// TestSharingLong: for SHARING_DURATION, three gateways crash, stop, come back, join and leave at random, SHARING_SEED,
// while blocks come, the index of the bucket is written, and readers ask for everything. Every answer is whole and
// carries no warning; while two gateways of three are away it may also be an error or carry warnings, but it is never
// short without one.
func TestSharingLong(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("SHARING_DURATION"))
	if err != nil {
		t.Skip("SHARING_DURATION says how long this test runs; it is not set")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SHARING_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SHARING_SEED=%d", seed)
	bucket := t.TempDir()
	s := startSharersOf(t, bucket, "shared", []string{"--sync-block-duration=5s"}, "s1", "s2", "s3")
	s.patience = 3 * time.Minute
	l := &life{s, rand.New(rand.NewPCG(seed, 0)), 3}
	r := s.read()
	for end, n := time.Now().Add(length), 1; time.Now().Before(end) && !t.Failed(); n++ {
		if n%2 == 0 {
			s.grow(bucket)
		}
		what := l.step()
		s.grown.Store(int64(s.come / s.plan.Tenants))
		if n%3 == 0 {
			tool := exec.Command(hearthBinary, "tools", "bucket", "index", s.bucket)
			if said, err := tool.CombinedOutput(); err != nil {
				t.Fatalf("hearth tools bucket index: %v\n%s", err, said)
			}
			what += "; the index was written"
		}
		r.more(t, 4)
		t.Logf("%s %d: %s; %d windows came, %d answers, of which %d named what they lack and %d were errors",
			time.Now().Format("15:04:05"), n, what, s.grown.Load(), r.answers.Load(), r.short.Load(), r.failed.Load())
	}
	r.stop()
	s.readOnce()
	if len(s.live) != 3 {
		t.Errorf("%s are left", strings.Join(slices.Sorted(maps.Keys(s.live)), ", "))
	}
}
