package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// probe reads some of the newest samples again and again, until the function it returns is called.
func (k *soak) probe() (stop func()) {
	stopped := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
			}
			k.ask(k.load.shards[rand.IntN(len(k.load.shards))])
			k.weigh()
		}
	})
	wg.Go(func() { k.watchMachine(stopped) })
	return func() { close(stopped); wg.Wait() }
}

// watchMachine notes for how long the machine itself does not come to something as small as a timer and a write to a
// file: what is late then is not Hearth's fault.
func (k *soak) watchMachine(stopped chan struct{}) {
	f, err := os.Create(filepath.Join(k.t.TempDir(), "canary"))
	if err != nil {
		k.t.Error(err)
		return
	}
	defer f.Close()
	const period = 100 * time.Millisecond
	page := make([]byte, 64<<10)
	for {
		begin := time.Now()
		select {
		case <-stopped:
			return
		case <-time.After(period):
		}
		if _, err := f.WriteAt(page, 0); err != nil {
			k.t.Error(err)
			return
		}
		late := time.Since(begin) - period
		e := k.current.Load()
		e.mu.Lock()
		e.stalled = max(e.stalled, late)
		e.mu.Unlock()
	}
}

// ask holds one answer against what was acknowledged before the question.
func (k *soak) ask(s *soakShard) {
	e, deaf := k.current.Load(), k.deaf.Load()
	begin := time.Now()
	hi := begin.UnixMilli() - s.late.Milliseconds()
	r, err := s.read(k.query.api(s.id), max(hi-60_000, s.first-s.late.Milliseconds()-reversal*s.interval), hi)
	if err != nil && (deaf || k.deaf.Load()) {
		return
	}
	then := k.current.Load() // another step may have begun
	silent := e.silent && then.silent
	patient := e.has(bucketGone) || then.has(bucketGone) // a reader may wait for a dark bucket
	note := func(format string, args ...any) {
		e.faults = append(e.faults,
			fmt.Sprintf("%s (%s): %s", begin.Format("15:04:05.000"), time.Since(begin).Round(time.Millisecond),
				fmt.Sprintf(format, args...)))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers++
	e.took = append(e.took, time.Since(begin))
	if len(r.warnings) > 0 {
		e.warned++
		e.warnings = append(e.warnings, r.warnings...)
		if silent {
			note("complete, with warnings %q", r.warnings)
		}
	}
	if err != nil {
		e.refused++
		if status(err) != 0 || !patient {
			note("tenant %s shard %d: %v", s.id, s.number, err)
		}
	} else if err := r.fault(); err != nil {
		note("%v", err)
	}
}

var residence = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)

// weigh notes how much memory the processes have.
func (k *soak) weigh() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, pid := range k.pids {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if m := residence.FindSubmatch(status); m != nil {
			kb, _ := strconv.ParseInt(string(m[1]), 10, 64)
			k.sizes[name] = max(k.sizes[name], kb<<10)
		}
	}
}
