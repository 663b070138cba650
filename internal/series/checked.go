package series

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// checkedWindow is how many series Checked reads ahead. A series that is out of place by more cannot be put right.
const checkedWindow = 64

// checkedBytes bounds the bytes of chunks that Checked reads ahead. No budget counts them, weeks of raw samples of one
// series take megabytes, and each source of each query has a window.
const checkedBytes = 4 << 20

// Checked returns set, which it owns, with faults of single series put right. It is for sets that other programs made:
// without it, one bad series could spoil the merge with all other series.
//
//   - Labels are sorted, and labels with empty values are removed.
//   - A series that comes too late is moved to its place, if that is not too far back (checkedWindow, checkedBytes).
//     Parts of one series are joined.
//   - Chunks are sorted by time.
//   - A series or chunk that cannot be put right is skipped. A warning that begins with from names the fault and counts
//     it.
func Checked(set Set, from string) Set {
	return &checkedSet{Set: set, faults: Faults{From: from}}
}

type checkedSet struct {
	Set
	faults  Faults
	builder labels.ScratchBuilder
	join    joiner
	window  []Series // from head on: the series that were read ahead, in order
	head    int
	ahead   int           // bytes of chunks in the window, at most about checkedBytes
	read    labels.Labels // the labels of the last series that was read
	ended   bool
	at      Series
	yielded bool
}

func (c *checkedSet) Next() bool {
	for {
		c.fill()
		if c.head == len(c.window) {
			return false
		}
		s := c.window[c.head]
		c.window[c.head] = Series{}
		c.head++
		c.ahead -= s.ChunkBytes()
		if c.yielded && labels.Compare(s.Labels, c.at.Labels) <= 0 {
			c.faults.Add("series far out of order", s.Labels.String)
			continue
		}
		c.at, c.yielded = s, true
		return true
	}
}

func (c *checkedSet) At() Series { return c.at }

func (c *checkedSet) Warnings() Warnings {
	return append(slices.Clip(c.Set.Warnings()), c.faults.Warnings()...)
}

// fill reads ahead until the window is full or set has ended.
func (c *checkedSet) fill() {
	for !c.ended && !c.full() {
		if c.ended = !c.Set.Next(); c.ended {
			if c.Set.Err() != nil {
				c.dropLast()
			}
			return
		}
		s := c.Set.At()
		if fault := c.fixLabels(&s); fault != "" {
			c.faults.Add(fault, s.Labels.String)
			continue
		}
		c.fixChunks(&s)
		if c.head >= checkedWindow {
			n := copy(c.window, c.window[c.head:])
			clear(c.window[n:])
			c.window, c.head = c.window[:n], 0
		}
		c.read = s.Labels
		c.insert(s)
	}
}

// full reports whether enough was read ahead. It needs two series at least: only the second one shows that all parts of
// the first were read.
func (c *checkedSet) full() bool {
	n := len(c.window) - c.head
	return n >= checkedWindow || n > 1 && c.ahead >= checkedBytes
}

// dropLast removes the series that was read last before an error, since parts of it may be missing. A caller that goes
// on with another source starts after the last series that was yielded. If the incomplete one were yielded, its missing
// parts would be lost.
func (c *checkedSet) dropLast() {
	for i := len(c.window) - 1; i >= c.head; i-- {
		if labels.Equal(c.window[i].Labels, c.read) {
			c.window = slices.Delete(c.window, i, i+1)
			return
		}
	}
}

// insert puts s into its place in the window. It joins s with a part of the same series.
func (c *checkedSet) insert(s Series) {
	n := len(c.window)
	c.ahead += s.ChunkBytes()
	if n == c.head || labels.Compare(s.Labels, c.window[n-1].Labels) > 0 {
		c.window = append(c.window, s)
		return
	}
	at, found := slices.BinarySearchFunc(c.window[c.head:], s.Labels,
		func(w Series, l labels.Labels) int { return labels.Compare(w.Labels, l) })
	at += c.head
	if !found {
		c.window = slices.Insert(c.window, at, s)
		return
	}
	have := &c.window[at]
	if n := len(have.Chunks); n > 0 && len(s.Chunks) > 0 && have.Chunks[n-1].MaxTime < s.Chunks[0].MinTime {
		have.Chunks = append(slices.Clip(have.Chunks), s.Chunks...)
		return
	}
	c.ahead -= have.ChunkBytes() + s.ChunkBytes()
	have.Chunks = c.join.join([][]Chunk{have.Chunks, s.Chunks})
	c.ahead += have.ChunkBytes()
}

// fixLabels puts the labels right, or returns the fault that it cannot put right.
func (c *checkedSet) fixLabels(s *Series) (fault string) {
	sound, last := true, ""
	s.Labels.Range(func(l labels.Label) {
		switch {
		case l.Name == "":
			fault = "series with a label that has no name"
		case !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value):
			fault = "series with a label that is not UTF-8"
		case l.Name <= last || l.Value == "":
			sound = false
		}
		last = l.Name
	})
	if sound || fault != "" {
		return fault
	}
	c.builder.Reset()
	s.Labels.Range(func(l labels.Label) {
		if l.Value != "" {
			c.builder.Add(l.Name, l.Value)
		}
	})
	c.builder.Sort()
	fixed := c.builder.Labels()
	if _, twice := fixed.HasDuplicateLabelNames(); twice {
		return "series with a label name that is there twice"
	}
	s.Labels = fixed
	return ""
}

// fixChunks sorts the chunks and leaves out those without usable data.
func (c *checkedSet) fixChunks(s *Series) {
	if slices.ContainsFunc(s.Chunks, unusable) {
		s.Chunks = slices.DeleteFunc(slices.Clone(s.Chunks), unusable)
		c.faults.Add("chunks without usable data", s.Labels.String)
	}
	if !slices.IsSortedFunc(s.Chunks, byTime) {
		s.Chunks = slices.Clone(s.Chunks)
		slices.SortStableFunc(s.Chunks, byTime)
	}
}

// byTime is the order of chunks in a Series.
func byTime(a, b Chunk) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
}

// MaxLabelBytes is the longest name or value that Prometheus's labels can hold. Building longer ones panics.
const MaxLabelBytes = 1 << 24

// unusable reports whether c has no data, data too short to decode, or an unknown encoding.
func unusable(c Chunk) bool {
	short := func(e Encoded) bool { return len(e.Data) < minChunkBytes || !chunkenc.IsValidEncoding(e.Encoding) }
	if c.Aggr == nil {
		return short(c.Raw)
	}
	return c.Raw.Encoding != chunkenc.EncNone && short(c.Raw) ||
		slices.ContainsFunc(c.Aggr[:], func(e Encoded) bool { return e.Encoding != chunkenc.EncNone && short(e) })
}

// Faults counts what is wrong with single series or chunks of a source. There may be millions of faults, so it keeps
// the name of the first one of each kind only. It is not safe for concurrent use.
type Faults struct {
	// From names the source.
	From  string
	kinds []faults
}

// faults are the faults of one kind: what names the kind, first the first series.
type faults struct {
	what, first string
	n           int
}

// maxFaultText bounds the bytes of a name in a warning.
const maxFaultText = 300

// Add counts a fault of kind what. name returns the name of the faulty series; it is called only for the first fault of
// that kind.
func (f *Faults) Add(what string, name func() string) {
	for i := range f.kinds {
		if f.kinds[i].what == what {
			f.kinds[i].n++
			return
		}
	}
	first := name()
	if len(first) > maxFaultText {
		first = first[:maxFaultText] + "..."
	}
	f.kinds = append(f.kinds, faults{what, strings.ToValidUTF8(first, "\ufffd"), 1})
}

// Warnings returns one text for each kind.
func (f *Faults) Warnings() (all Warnings) {
	for _, k := range f.kinds {
		all = append(all, fmt.Sprintf("%s: skipped %s (%d), such as %s", f.From, k.what, k.n, k.first))
	}
	return all
}
