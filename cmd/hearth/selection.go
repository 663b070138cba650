package main

import (
	"fmt"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/store"
)

// The times that select nothing, as Thanos writes them.
const (
	firstTime = "0000-01-01T00:00:00Z"
	lastTime  = "9999-12-31T23:59:59Z"
)

// selectionFlags choose the blocks that a gateway or a compactor works on, as those of Thanos do.
type selectionFlags struct {
	blockChoice
	consistency time.Duration
}

// bind adds the flags; does is what the role does with blocks.
func (f *selectionFlags) bind(c *kingpin.CmdClause, does string) {
	f.bindTimes(c, does+" only")
	f.bindRules(c, does+" only")
	durationFlag(c, "consistency-delay", does+" a block only when it is this old, for object stores that show objects "+
		"late. Compacted blocks do not wait.", &f.consistency)
}

// apply puts what the flags say into the options of a gateway.
func (f *selectionFlags) apply(b *builder, opts *store.Options) {
	opts.ConsistencyDelay = f.consistency
	opts.Window, opts.Relabel = f.window(b), f.relabels(b)
}

// window is the range of time that the flags choose, nil if they choose none.
func (f *selectionFlags) window(b *builder) func(now time.Time) (mint, maxt int64) {
	if f.min.String() == firstTime && f.max.String() == lastTime {
		return nil
	}
	f.times(b)
	return f.timesAt
}

// blockChoice are the flags that choose blocks by time and external labels. only begins their help.
type blockChoice struct {
	min, max moment
	rules    content
}

func (f *blockChoice) bindTimes(c *kingpin.CmdClause, only string) {
	c.Flag("min-time", only+" blocks with samples from this time on: a time such as 2026-01-31T00:00:00Z, or a duration "+
		"before now such as -2w.").Default(firstTime).SetValue(&f.min)
	c.Flag("max-time", only+" blocks with samples up to this time, which is written as that of --min-time.").
		Default(lastTime).SetValue(&f.max)
}

func (f *blockChoice) bindRules(c *kingpin.CmdClause, only string) {
	f.rules.bind(c, "selector.relabel-config", only+" blocks that these relabelling rules keep (actions keep, drop, "+
		"hashmod). They get the external labels of a block, and its id as __block_id.")
}

// times are the times of the flags at present. The first one must not be after the other one.
func (f *blockChoice) times(b *builder) (mint, maxt int64) {
	if mint, maxt = f.timesAt(time.Now()); mint > maxt {
		b.check(fmt.Errorf("--min-time=%s is after --max-time=%s", &f.min, &f.max))
	}
	return mint, maxt
}

// timesAt are the times of the flags at a time, in ms.
func (f *blockChoice) timesAt(now time.Time) (mint, maxt int64) {
	return f.min.millis(now), f.max.millis(now)
}

// relabels are the rules of --selector.relabel-config, which choose blocks.
func (f *blockChoice) relabels(b *builder) []*relabel.Config {
	c := &f.rules
	text, err := c.read()
	b.check(err)
	rules, err := parseRelabel(c.where(), text)
	b.check(err)
	for i, rule := range rules {
		switch rule.Action {
		case relabel.Keep, relabel.Drop, relabel.HashMod:
		default:
			b.check(fmt.Errorf("%s: rule %d: action %s: only keep, drop and hashmod choose blocks", c.where(), i+1,
				rule.Action))
		}
	}
	return rules
}

// filters are what the flags choose.
func (f *blockChoice) filters(b *builder) []block.Filter {
	all := []block.Filter{block.Chosen(f.relabels(b))}
	if f.min.String() == "" && f.max.String() == "" { // not bound
		return all
	}
	return append(all, block.Within(f.times(b)))
}
