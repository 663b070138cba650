package test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// verify reads everything back, five minutes at a time. What is not there is looked for once more, to tell what is lost
// from what was not seen.
func (k *soak) verify() {
	begin := time.Now()
	const window = 300_000
	var all reading
	for _, s := range k.load.shards {
		first, last := s.span()
		for lo := first; lo <= last; lo += window {
			hi := min(lo+window-1, last)
			r, err := s.read(k.query.api(s.id), lo, hi)
			if err != nil {
				k.t.Errorf("tenant %s shard %d from %d to %d: %v", s.id, s.number, lo, hi, err)
				continue
			}
			if r.lacking > 0 {
				again, err := s.read(k.query.api(s.id), lo, hi)
				k.t.Errorf("tenant %s shard %d: %d acknowledged samples are missing; asked again, %d are (%v): %q", s.id, s.number,
					r.lacking, again.lacking, err, r.missing)
			}
			all.add(r)
		}
	}
	acked, sent := k.load.sofar()
	k.say("read back in %s: %d samples of %d acknowledged of %d sent; %d more that were not acknowledged; warnings %q",
		time.Since(begin).Round(time.Millisecond), all.samples, acked, sent, all.extra,
		slices.Compact(slices.Sorted(slices.Values(all.warnings))))
	if len(all.warnings) > 0 && !k.lost { // except the one that is dead now
		k.t.Errorf("no disk was lost, and answers carry warnings: %q", all.warnings[:min(5, len(all.warnings))])
	}
	if len(all.wrong) > 0 {
		k.t.Errorf("%d samples are wrong: %q", len(all.wrong), all.wrong[:min(5, len(all.wrong))])
	}
	if all.samples != acked {
		k.t.Errorf("%d samples were acknowledged, %d were read back", acked, all.samples)
	}
	if acked < sent/2 || acked == 0 {
		k.t.Errorf("only %d of %d samples were acknowledged: the run shows little", acked, sent)
	}
}

// tally is what happened in all steps of a kind.
type tally struct {
	steps, answers, warned, refused, faults int
	stalled                                 time.Duration
	asked, acked                            []time.Duration // how long answers took, and acknowledged writes
	// writes not acknowledged by members in trouble, by status, 0 = no answer
	byVictim             map[int]int
	byOthers, unanswered int // those that others refused, and did not answer
}

// report says what the run did, and fails it for what must not be.
func (k *soak) report() {
	kinds := map[trouble]*tally{}
	of := func(t trouble) *tally {
		if kinds[t] == nil {
			kinds[t] = &tally{byVictim: map[int]int{}}
		}
		return kinds[t]
	}
	for _, e := range k.events {
		n := of(e.kind)
		n.steps++
		n.answers, n.warned, n.refused, n.faults = n.answers+e.answers, n.warned+e.warned, n.refused+e.refused, n.faults+len(
			e.faults)
		n.stalled = max(n.stalled, e.stalled)
		n.asked = append(n.asked, e.took...)
		if len(e.warnings) > 0 {
			slices.Sort(e.warnings)
			k.say("warnings in step %q: %q", e.step, slices.Compact(e.warnings))
		}
		for _, f := range e.faults {
			k.t.Errorf("reading, step %q: %s", e.step, f)
		}
	}
	for _, a := range k.load.failed {
		k.judge(a, of)
	}
	for _, s := range k.load.shards {
		for _, sl := range s.slots {
			if !sl.acked.IsZero() {
				n := of(k.eventAt(sl.acked).kind)
				n.acked = append(n.acked, sl.took)
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		n := kinds[kind]
		k.say("%-10s %3d steps; reads: %4d in %s, %d with warnings, %d failed, %d faults; writes acknowledged: %d in %s; not: by members in trouble %v, %d refused and %d unanswered by others; machine stalled %s",
			kind, n.steps, n.answers, quantiles(n.asked), n.warned, n.refused, n.faults, len(n.acked), quantiles(n.acked),
			n.byVictim, n.byOthers, n.unanswered, n.stalled.Round(time.Millisecond))
	}
	for _, name := range slices.Sorted(maps.Keys(k.sizes)) {
		if k.sizes[name] > k.form.maximumResidence {
			k.t.Errorf("%s had %d MiB of resident memory", name, k.sizes[name]>>20)
		}
	}
	k.say("most resident memory: %s", sizesInMiB(k.sizes))
	for _, l := range k.logs {
		k.inspect(l)
	}
}

// eventAt is the event that a time belongs to.
func (k *soak) eventAt(at time.Time) *event {
	i, _ := slices.BinarySearchFunc(k.events, at, func(e *event, at time.Time) int { return e.begin.Compare(at) })
	return k.events[max(0, i-1)]
}

// quantiles are the median, the 99th of a hundred and the longest.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "-"
	}
	slices.Sort(d)
	r := func(q float64) time.Duration { return d[int(q*float64(len(d)-1))].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%s/%s/%s", r(0.5), r(0.99), r(1))
}

func sizesInMiB(sizes map[string]int64) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		all = append(all, fmt.Sprintf("%s %d MiB", name, sizes[name]>>20))
	}
	return strings.Join(all, ", ")
}

// judge counts a request that was not acknowledged. With one member in trouble the others must take every write.
func (k *soak) judge(a attempt, of func(trouble) *tally) {
	e := k.eventAt(a.at)
	n := of(e.kind)
	switch {
	case a.status != 0 && a.status != 429 && a.status/100 != 5:
		k.t.Errorf("step %q: a good request is refused for good: %s", e.step, a)
	case slices.Contains(e.who, a.member):
		n.byVictim[a.status]++
		if e.kind == drained {
			k.t.Errorf("step %q: %s", e.step, a)
		}
	case a.status == 0:
		n.unanswered++
		if e.kind != outage && e.stalled < time.Second {
			k.t.Errorf("step %q: %s", e.step, a)
		}
	default:
		n.byOthers++
		if e.kind != outage {
			k.t.Errorf("step %q: %s", e.step, a)
		}
	}
}

// inspect looks for what no process should ever print.
func (k *soak) inspect(path string) {
	f, err := os.Open(path)
	if err != nil {
		k.t.Error(err)
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		for _, bad := range []string{"panic:", "BUG", "fatal error", "DATA RACE"} {
			if strings.Contains(lines.Text(), bad) {
				k.t.Errorf("%s: %.500s", filepath.Base(path), lines.Text())
			}
		}
	}
	if err := lines.Err(); err != nil {
		k.t.Errorf("%s: %v", path, err)
	}
}

// keepLogs copies the logs of a run that failed to where they stay.
func (k *soak) keepLogs() {
	if !k.t.Failed() {
		return
	}
	dir, err := os.MkdirTemp("", "hearth-soak-")
	if err != nil {
		k.t.Error(err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, l := range k.logs {
		b, err := os.ReadFile(l)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d-%s", i, filepath.Base(l))), b, 0o644)
		}
		if err != nil {
			k.t.Error(err)
		}
	}
	k.t.Logf("logs of all processes are in %s", dir)
}
