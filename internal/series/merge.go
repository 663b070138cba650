package series

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Merge returns the union of sets, which it owns: its Close closes them all. Series with equal labels become one series
// with all their chunks, in order, each distinct chunk once. Their time ranges may overlap. The first error of a set
// ends the merged set. A caller that can do without one of the sets must hide the error of that set.
func Merge(sets ...Set) Set {
	switch len(sets) {
	case 0:
		return Empty()
	case 1:
		return sets[0]
	}
	return &mergeSet{sets: sets, heads: make([]Series, len(sets)), live: make([]bool, len(sets))}
}

// mergeSet is a tournament tree of the sets' current series. tree[0] is the winner, the set with the smallest labels,
// and tree[1:] has the loser of each match. After the winner's next series only the matches on its way up are played
// again, so a series costs log2(sets) comparisons of labels.
type mergeSet struct {
	sets  []Set
	heads []Series
	live  []bool
	tree  []int
	at    Series
	parts [][]Chunk // the chunks of the series that become at; memory for reuse
	join  joiner
	err   error
}

func (m *mergeSet) Next() bool {
	if m.err != nil || m.tree == nil && !m.start() {
		return false
	}
	w := m.tree[0]
	if !m.live[w] {
		return false
	}
	m.at = m.heads[w]
	m.parts = append(m.parts[:0], m.at.Chunks)
	for m.advance(w) {
		if w = m.tree[0]; !m.live[w] || !labels.Equal(m.heads[w].Labels, m.at.Labels) {
			break
		}
		m.parts = append(m.parts, m.heads[w].Chunks)
	}
	m.at.Chunks = m.join.join(m.parts)
	return true
}

// start reads the first series of every set and plays all matches.
func (m *mergeSet) start() bool {
	n := len(m.sets)
	for i := range m.sets {
		if !m.pull(i) {
			return false
		}
	}
	m.tree = make([]int, n)
	winners := make([]int, 2*n)
	for i := 2*n - 1; i > 0; i-- {
		if i >= n {
			winners[i] = i - n
			continue
		}
		winners[i], m.tree[i] = m.play(winners[2*i], winners[2*i+1])
	}
	m.tree[0] = winners[1]
	return true
}

// advance reads the next series of set w, the winner, and finds the new winner. It is false after an error.
func (m *mergeSet) advance(w int) bool {
	if !m.pull(w) {
		return false
	}
	for i := (w + len(m.sets)) / 2; i > 0; i /= 2 {
		w, m.tree[i] = m.play(w, m.tree[i])
	}
	m.tree[0] = w
	return true
}

// pull reads the next series of set i. It is false after an error.
func (m *mergeSet) pull(i int) bool {
	m.live[i] = m.sets[i].Next()
	if m.live[i] {
		m.heads[i] = m.sets[i].At()
		return true
	}
	m.heads[i] = Series{}
	m.err = m.sets[i].Err()
	return m.err == nil
}

// play compares the current series of two sets. A set that has ended loses. Of equal series the first set's wins.
func (m *mergeSet) play(a, b int) (winner, loser int) {
	switch {
	case !m.live[a]:
		return b, a
	case !m.live[b]:
		return a, b
	}
	if c := labels.Compare(m.heads[a].Labels, m.heads[b].Labels); c > 0 || c == 0 && b < a {
		return b, a
	}
	return a, b
}

func (m *mergeSet) At() Series { return m.at }
func (m *mergeSet) Err() error { return m.err }

func (m *mergeSet) Warnings() Warnings {
	var all Warnings
	for _, s := range m.sets {
		for _, w := range s.Warnings() {
			if !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	return all
}

func (m *mergeSet) Close() error {
	errs := make([]error, len(m.sets))
	for i, s := range m.sets {
		errs[i] = s.Close()
	}
	return errors.Join(errs...)
}

// joiner joins lists of chunks. Results are parts of larger slices, so that not each of them is an allocation. They
// stay valid: a slice is never reused.
type joiner struct{ slab []Chunk }

// slabChunks is how many chunks these slices have at least.
const slabChunks = 512

// join returns the chunks of all parts in order, equal chunks once. It does not change the parts. The result may be one
// of them.
func (j *joiner) join(parts [][]Chunk) []Chunk {
	n, last := 0, 0
	for i, p := range parts {
		if len(p) > 0 {
			last = i
		}
		n += len(p)
	}
	if n == len(parts[last]) || allEqual(parts) {
		return parts[last]
	}
	if cap(j.slab)-len(j.slab) < n {
		j.slab = make([]Chunk, 0, max(slabChunks, n))
	}
	from := len(j.slab)
	for _, p := range parts {
		j.slab = append(j.slab, p...)
	}
	all := j.slab[from:]
	if !slices.IsSortedFunc(all, compareChunks) {
		slices.SortFunc(all, compareChunks)
	}
	all = slices.CompactFunc(all, func(a, b Chunk) bool { return compareChunks(a, b) == 0 })
	j.slab = j.slab[:from+len(all)]
	return slices.Clip(all)
}

// allEqual reports whether all parts are equal. Those of replicas of one series usually are.
func allEqual(parts [][]Chunk) bool {
	for _, p := range parts[1:] {
		if len(p) != len(parts[0]) {
			return false
		}
		for i := range p {
			if compareChunks(p[i], parts[0][i]) != 0 {
				return false
			}
		}
	}
	return true
}

// compareChunks orders chunks by time and then by content, so that equal chunks become neighbours.
func compareChunks(a, b Chunk) int {
	switch {
	case a.MinTime != b.MinTime:
		return cmp.Compare(a.MinTime, b.MinTime)
	case a.MaxTime != b.MaxTime:
		return cmp.Compare(a.MaxTime, b.MaxTime)
	}
	if c := compareEncoded(a.Raw, b.Raw); c != 0 || a.Aggr == b.Aggr {
		return c
	}
	if a.Aggr == nil {
		return -1
	}
	if b.Aggr == nil {
		return 1
	}
	for i := range a.Aggr {
		if c := compareEncoded(a.Aggr[i], b.Aggr[i]); c != 0 {
			return c
		}
	}
	return 0
}

func compareEncoded(a, b Encoded) int {
	if a.Encoding != b.Encoding {
		return cmp.Compare(a.Encoding, b.Encoding)
	}
	return bytes.Compare(a.Data, b.Data)
}
