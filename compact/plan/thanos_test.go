package plan

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// span is a block of one stream, as the rules of Thanos's planner see it. Spans do not overlap, and are sorted.
type span struct {
	mint, maxt        int64
	failed, noCompact bool
}

// written are the rules for blocks that do not overlap, written down once more: which blocks are compacted next.
func written(all []span, ranges []int64) (out []int) {
	if len(all) < 2 {
		return nil
	}
	n := len(all) - 1 // the newest one stays
	for _, length := range ranges {
		byWindow := map[int64][]int{}
		var order []int64
		for i, s := range all[:n] {
			w := s.mint / length
			if s.mint%length < 0 {
				w--
			}
			if s.maxt > (w+1)*length {
				continue
			}
			if byWindow[w] == nil {
				order = append(order, w)
			}
			byWindow[w] = append(byWindow[w], i)
		}
		for _, w := range order {
			in := byWindow[w]
			first, last := all[in[0]], all[in[len(in)-1]]
			full := last.maxt-first.mint == length
			if slices.ContainsFunc(in, func(i int) bool { return all[i].failed }) || !full && last.maxt > all[n-1].mint {
				continue
			}
			out = nil
			for _, i := range append(in, -1) {
				if i >= 0 && !all[i].noCompact {
					out = append(out, i)
					continue
				}
				if len(out) > 1 {
					return out
				}
				out = nil
			}
		}
	}
	return nil
}

// long is how many cases a random test has: many with HEARTH_LONG, and else few.
func long(many, few int) int {
	if os.Getenv("HEARTH_LONG") != "" {
		return many
	}
	return few
}

// asked is a program over Thanos's own planner: for each line it answers with one. A line has the spans, each as
// mint:maxt:failed:noCompact, and the answer has the numbers of those that are planned. It is nil without
// HEARTH_THANOS_PLANNER, which names the program: a main around compact.NewPlanner.Plan, built in Thanos's sources.
func asked(t *testing.T, ranges []int64) func([]span) []int {
	path := os.Getenv("HEARTH_THANOS_PLANNER")
	if path == "" {
		return nil
	}
	ranges = append([]int64{hour}, ranges...) // its first range is one of which nothing is made
	cmd := exec.Command(path, strings.Trim(fmt.Sprint(ranges), "[]"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	answers := bufio.NewReader(out)
	return func(all []span) (plan []int) {
		t.Helper()
		for _, s := range all {
			fmt.Fprintf(in, "%d:%d:%t:%t ", s.mint, s.maxt, s.failed, s.noCompact)
		}
		fmt.Fprintln(in)
		line, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Fields(line) {
			i, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(line)
			}
			plan = append(plan, i)
		}
		return plan
	}
}

// TestAsThanos compares plans for random blocks that do not overlap with the rules of Thanos's planner: the first job
// is the same. With HEARTH_THANOS_PLANNER Thanos's own planner is asked, too.
func TestAsThanos(t *testing.T) {
	s := testSettings()
	s.Downsample = false
	planned, theirs := 0, asked(t, s.Ranges)
	for seed := range uint64(long(100_000, 20_000)) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		var all []span
		var b Bucket
		b.View.Metas, b.View.NoCompact = map[ulid.ULID]*block.Meta{}, map[ulid.ULID]block.NoCompactMark{}
		at := (rnd.Int64N(400) - 200) * 2 * hour
		if rnd.IntN(2) == 0 {
			at = floor(at, 48*hour)
		}
		for i := range rnd.IntN(16) {
			length := []int64{1, 2, 2, 2, 8, 8, 48, 48, 336}[rnd.IntN(9)] * hour
			switch rnd.IntN(10) {
			case 0:
				at += rnd.Int64N(20) * hour // a gap
			case 1:
				length += hour // no border
			case 2, 3, 4, 5:
				if up := floor(at, length); up < at {
					length = up + length - at // up to the border
				}
			}
			sp := span{at, at + length, rnd.IntN(20) == 0, rnd.IntN(12) == 0}
			at = sp.maxt
			all = append(all, sp)
			m := &block.Meta{}
			m.ULID[0], m.ULID[6], m.Version, m.MinTime, m.MaxTime = 0, byte(i+1), 1, sp.mint, sp.maxt
			m.Compaction.Level, m.Compaction.Sources, m.Compaction.Failed = 1, []ulid.ULID{m.ULID}, sp.failed
			m.Thanos.Labels = map[string]string{"tenant_id": "a"}
			if sp.noCompact {
				b.View.NoCompact[m.ULID] = block.NoCompactMark{}
			}
			b.View.Metas[m.ULID] = m
		}
		b.Metas = b.View.Select()
		var got []int
		if jobs := Make(b, s, time.UnixMilli(at+10_000*hour)).Jobs; len(jobs) > 0 {
			for _, m := range jobs[0].Inputs {
				got = append(got, int(m.ULID[6])-1)
			}
			planned++
		}
		if want := written(all, s.Ranges); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v, want %v of %v", seed, got, want, all)
		}
		if theirs != nil && len(all) > 0 { // without a block it panics
			if want := theirs(all); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v, Thanos plans %v of %v", seed, got, want, all)
			}
		}
	}
	if planned < 4000 {
		t.Errorf("only %d plans had a job", planned)
	}
}
