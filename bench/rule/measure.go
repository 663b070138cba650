package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// row is what was measured of one kind of rulers.
type row struct {
	name            string
	slots           int // that each of the series should have a sample of, over all series
	missing, extra  int
	jitter99, worst time.Duration
	cpu, baseCPU    float64 // s
	memory          int64   // of all rulers at most, added up
	took            time.Duration
}

// settle is how long rulers run before they are measured, in intervals: they take their groups meanwhile.
const settle = 2

func (b *bed) measure(ctx context.Context, k kind, base *server.Process) (r row, err error) {
	all, urls, err := k.start(k)
	defer func() {
		for _, p := range all {
			p.Kill()
		}
	}()
	if err != nil {
		return r, err
	}
	for i, u := range urls {
		if err := b.ready(ctx, u); err != nil {
			return r, errors.Join(err, errors.New(all[i].Tail(20)))
		}
	}
	if err := server.Pause(ctx, settle*b.interval+10*time.Second); err != nil {
		return r, err
	}
	before, _, err := usage(all)
	if err != nil {
		return r, err
	}
	baseBefore, err := base.Usage()
	if err != nil {
		return r, err
	}
	began := time.Now()
	lateness := newJitter(b.interval)
	for time.Since(began) < b.span {
		for _, u := range urls {
			if err := lateness.look(ctx, u); err != nil {
				return r, err
			}
		}
		if err := server.Pause(ctx, b.interval/4); err != nil {
			return r, err
		}
	}
	took := time.Since(began)
	after, memory, err := usage(all)
	if err != nil {
		return r, err
	}
	baseAfter, err := base.Usage()
	if err != nil {
		return r, err
	}
	if err := server.Pause(ctx, b.interval/2+10*time.Second); err != nil { // what was recorded is on its way
		return r, err
	}
	r = row{name: k.name, cpu: after - before, baseCPU: baseAfter.CPU - baseBefore.CPU, memory: memory, took: took}
	r.jitter99, r.worst = lateness.summary()
	r.slots, r.missing, r.extra, err = b.recorded(ctx, k.name+":sum", began, began.Add(took))
	return r, err
}

func usage(all []*server.Process) (cpu float64, memory int64, err error) {
	for _, p := range all {
		u, err := p.Usage()
		if err != nil {
			return 0, 0, err
		}
		cpu, memory = cpu+u.CPU, memory+u.Peak
	}
	return cpu, memory, nil
}

// recorded counts the slots between two times of which each recorded series lacks a sample, or has more samples than
// slots. Each group has a series for each of its rules and each job that its shard has.
func (b *bed) recorded(ctx context.Context, name string, from, to time.Time) (slots, missing, extra int, err error) {
	each := b.rules / b.groups
	for g := range b.groups {
		window := to.Sub(from).Milliseconds()
		expr := fmt.Sprintf(`%s{g="%d"}[%dms]`, name, g, window)
		raw, err := server.Get(ctx, b.base+"/api/v1/query?"+url.Values{"query": {expr},
			"time": {fmt.Sprintf("%.3f", float64(to.UnixMilli())/1000)}}.Encode())
		if err != nil {
			return 0, 0, 0, err
		}
		var in struct {
			Data struct{ Result []struct{ Values [][2]any } }
		}
		if err := json.Unmarshal(raw, &in); err != nil {
			return 0, 0, 0, err
		}
		if len(in.Data.Result) < each {
			return 0, 0, 0, fmt.Errorf("group %d has %d series, and %d rules", g, len(in.Data.Result), each)
		}
		for _, s := range in.Data.Result {
			s, m, e := count(s.Values, b.interval, from, to)
			slots, missing, extra = slots+s, missing+m, extra+e
		}
	}
	return slots, missing, extra, nil
}

// count counts for one series: its slots are at the times of its samples, an interval apart.
func count(values [][2]any, interval time.Duration, from, to time.Time) (slots, missing, extra int) {
	step := interval.Seconds()
	if len(values) == 0 {
		n := int(to.Sub(from) / interval)
		return n, n, 0
	}
	first := values[0][0].(float64)
	start, end := float64(from.UnixMilli())/1000, float64(to.UnixMilli())/1000
	first -= math.Floor((first-start)/step) * step
	slots = int((end-first)/step) + 1
	seen := map[int]bool{}
	for _, v := range values {
		n := int(math.Round((v[0].(float64) - first) / step))
		off := math.Abs(v[0].(float64) - first - float64(n)*step)
		if seen[n] || off > .01 {
			extra++
		}
		seen[n] = true
	}
	return slots, max(0, slots-len(seen)), extra
}

// jitter notes by how much the time between two evaluations of a group differs from the interval.
type jitter struct {
	interval time.Duration
	last     map[string]float64
	all      []time.Duration
}

func newJitter(interval time.Duration) *jitter {
	return &jitter{interval: interval, last: map[string]float64{}}
}

// look reads when a ruler's groups were last evaluated.
func (j *jitter) look(ctx context.Context, ruler string) error {
	page, err := server.Get(ctx, ruler+"/metrics")
	if err != nil {
		return err
	}
	return server.EachOf(page, "prometheus_rule_group_last_evaluation_timestamp_seconds", func(labels string, v float64) {
		_, group, ok := strings.Cut(labels, `;`)
		was := j.last[group]
		if !ok || v == 0 || v <= was {
			return
		}
		j.last[group] = v
		if n := math.Round((v - was) / j.interval.Seconds()); was > 0 && n >= 1 {
			off := math.Abs(v - was - n*j.interval.Seconds())
			j.all = append(j.all, time.Duration(off*float64(time.Second)))
		}
	})
}

// summary is the 99th percentile and the largest.
func (j *jitter) summary() (p99, worst time.Duration) {
	if len(j.all) == 0 {
		return 0, 0
	}
	slices.Sort(j.all)
	return j.all[len(j.all)*99/100], j.all[len(j.all)-1]
}

func report(o *options, rows []row) string {
	var b strings.Builder
	m := server.ThisMachine()
	fmt.Fprintf(&b, "%s. %d rules in %d groups on %d rulers, every %s for %s.\n\n", m, o.rules, o.groups, o.rulers,
		o.interval, o.span)
	if m.Busy() {
		b.WriteString("The machine was busy with other work: ratios of CPU and samples count, times do not.\n\n")
	}
	b.WriteString("| rulers | samples that should be there | missing | extra | jitter p99 | jitter at most | CPU of the " +
		"rulers | CPU of who answers and stores | memory of the rulers |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d ms | %d ms | %.1f s | %.1f s | %d MiB |\n", r.name, r.slots, r.missing,
			r.extra, r.jitter99.Milliseconds(), r.worst.Milliseconds(), r.cpu, r.baseCPU, r.memory>>20)
	}
	fmt.Fprintf(&b, "\nFlags of the run:%s.\n", server.Arguments(o.flags, "peers", "hearth", "out"))
	return b.String()
}
