package series

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// SortBudget is the default of the memory in bytes that Relabel and Strip may use to sort one set.
const SortBudget = 256 << 20

// Relabel returns set, which it owns, with other labels. The labels of ext are added to each series and win over a
// series' label of the same name. Then the labels named in without are removed, also those of ext. The result is sorted
// again, and series that become equal become one. A series that loses all of its labels belongs before all others,
// which may be yielded already when it is read: then it is left out, with a warning. Only series without a metric name
// can lose all, and to wait for them would hold every answer in memory.
//
// Sorting holds in memory only the series that share their first label, which is one metric name in most cases. A first
// label that sorts before all changed labels decides the order both before and after the change. budget bounds that
// memory in bytes; 0 means unlimited. A set that needs more fails with the kind Exhausted.
func Relabel(set Set, ext labels.Labels, without []string, budget int64) Set {
	if ext.IsEmpty() && len(without) == 0 {
		return set
	}
	r := &relabelSet{Set: set, without: without, budget: budget, first: slices.Min(append(names(ext), without...)),
		faults: Faults{From: "sorting without labels"}}
	r.relabel = Relabeler(ext, without...)
	return r
}

// Relabeler returns what makes the labels of one series those that Relabel makes them. It is for one goroutine.
func Relabeler(ext labels.Labels, without ...string) func(labels.Labels) labels.Labels {
	builder := labels.NewBuilder(labels.EmptyLabels())
	ext = labels.NewBuilder(ext).Del(without...).Labels()
	return func(l labels.Labels) labels.Labels {
		builder.Reset(l)
		builder.Del(without...)
		ext.Range(func(l labels.Label) { builder.Set(l.Name, l.Value) })
		return builder.Labels()
	}
}

// Strip is as Relabel, for the case that each series loses other labels. names are all labels that a series may lose.
// strip returns the labels of a series without those that it loses.
func Strip(set Set, names []string, strip func(labels.Labels) labels.Labels, budget int64) Set {
	if len(names) == 0 {
		return set
	}
	return &relabelSet{Set: set, without: names, budget: budget, first: slices.Min(names), relabel: strip,
		faults: Faults{From: "sorting without labels"}}
}

type relabelSet struct {
	Set
	relabel func(labels.Labels) labels.Labels
	without []string // for errors
	budget  int64
	first   string // the smallest changed label name
	// keepEqual keeps series that become equal apart, as neighbours. Dedup needs their chunks apart.
	keepEqual bool

	group   []Series // relabeled series with one first label; sorted once it is complete
	at      int      // 1-based position in group
	ahead   Series   // the first series of the next group, as it came from Set
	pending bool     // ahead is set
	yielded bool
	faults  Faults
	join    joiner
	err     error
}

func (r *relabelSet) Next() bool {
	if r.at >= len(r.group) && !r.fill() {
		return false
	}
	r.at++
	return true
}

func (r *relabelSet) At() Series { return r.group[r.at-1] }

func (r *relabelSet) Err() error {
	if r.err != nil {
		return r.err
	}
	return r.Set.Err()
}

// fill reads and sorts the next group. It is false at the end and after an error.
func (r *relabelSet) fill() bool {
	r.group, r.at = r.group[:0], 0
	if r.err != nil || !r.pending && !r.pull() {
		return false
	}
	var used int64
	for head := r.ahead; r.pending && r.sameGroup(head, r.ahead); r.pull() {
		s := Series{Labels: r.relabel(r.ahead.Labels), Chunks: r.ahead.Chunks}
		if used += size(s); r.budget > 0 && used > r.budget {
			r.err = errs.E(errs.Exhausted, "sorting the series without labels %q takes more than %d bytes: select fewer series",
				r.without, r.budget)
			return false
		}
		r.group = append(r.group, s)
	}
	if r.Set.Err() != nil {
		return false
	}
	slices.SortStableFunc(r.group, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	if !r.keepEqual {
		r.joinEqual()
	}
	for r.yielded && r.at < len(r.group) && r.group[r.at].Labels.IsEmpty() {
		// Such a series sorts before all series that were yielded already. It had no metric name.
		r.faults.Add("series that have no labels but those to be removed",
			func() string { return fmt.Sprintf("%q", r.without) })
		r.at++
	}
	if r.at == len(r.group) {
		return r.pending && r.fill()
	}
	r.yielded = true
	return true
}

func (r *relabelSet) Warnings() Warnings {
	return append(slices.Clip(r.Set.Warnings()), r.faults.Warnings()...)
}

func (r *relabelSet) pull() bool {
	if r.pending = r.Set.Next(); r.pending {
		r.ahead = r.Set.At()
	}
	return r.pending
}

// sameGroup reports whether relabeling may change the order of two neighbours, so that they must be sorted together.
func (r *relabelSet) sameGroup(a, b Series) bool {
	an, av := firstLabel(a.Labels)
	bn, bv := firstLabel(b.Labels)
	if an == "" || an >= r.first {
		return true // the first labels of all later series do not sort before a changed label either
	}
	return an == bn && av == bv
}

// joinEqual makes neighbours with equal labels one series.
func (r *relabelSet) joinEqual() {
	out := r.group[:0]
	for from := 0; from < len(r.group); {
		to := from + 1
		for to < len(r.group) && labels.Equal(r.group[to].Labels, r.group[from].Labels) {
			to++
		}
		s := r.group[from]
		if to > from+1 {
			parts := make([][]Chunk, 0, to-from)
			for _, equal := range r.group[from:to] {
				parts = append(parts, equal.Chunks)
			}
			s.Chunks = r.join.join(parts)
		}
		out = append(out, s)
		from = to
	}
	r.group = out
}

func names(l labels.Labels) []string {
	var all []string
	l.Range(func(l labels.Label) { all = append(all, l.Name) })
	return all
}

// errStop ends a walk over labels early.
var errStop = errors.New("stop")

func firstLabel(l labels.Labels) (name, value string) {
	_ = l.Validate(func(l labels.Label) error {
		name, value = l.Name, l.Value
		return errStop
	})
	return name, value
}

// size is the memory in bytes that s holds.
func size(s Series) int64 {
	n := int64(unsafe.Sizeof(s)) + int64(s.Labels.ByteSize())
	for _, c := range s.Chunks {
		n += int64(unsafe.Sizeof(c)) + int64(len(c.Raw.Data))
		if c.Aggr != nil {
			n += int64(unsafe.Sizeof(*c.Aggr))
			for _, a := range c.Aggr {
				n += int64(len(a.Data))
			}
		}
	}
	return n
}
