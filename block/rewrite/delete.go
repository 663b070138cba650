package rewrite

import (
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Stats say what a rewrite does.
type Stats struct {
	// Series of the old block are Read. Of these Deleted have no samples left, Cut have less, Dropped went by a
	// relabelling rule, and Relabelled have other labels. United are those that became part of another one, as they got
	// its labels.
	Read, Deleted, Cut, Dropped, Relabelled, United int64
	// Decoded is the number of chunks that an interval cuts.
	Decoded int64
}

// Changed reports whether the new block differs from the old one.
func (s Stats) Changed() bool { return s.Deleted+s.Cut+s.Dropped+s.Relabelled > 0 }

// String is s for people.
func (s Stats) String() string {
	return fmt.Sprintf("%d series, of which %d are deleted, %d cut, %d dropped, %d relabelled, %d united with others",
		s.Read, s.Deleted, s.Cut, s.Dropped, s.Relabelled, s.United)
}

// deletion is the merge.Sink that deletes: what is left goes to next.
type deletion struct {
	next       merge.Sink
	deletions  []Deletion
	resolution int64 // of the block in ms
	log        io.Writer
	stats      *Stats

	symbols merge.Symbols
	values  map[string]string // of the labels of the series that deletions name
	names   map[string]bool
	cutter  merge.Cutter
	out     merge.Series
}

// Begin implements merge.Sink.
func (d *deletion) Begin(symbols merge.Symbols) error {
	d.symbols, d.values, d.names = symbols, map[string]string{}, map[string]bool{}
	for _, one := range d.deletions {
		for _, m := range one.Matchers {
			d.names[m.Name] = true
		}
	}
	return d.next.Begin(symbols)
}

// End implements merge.Sink.
func (d *deletion) End() error { return d.next.End() }

// Add implements merge.Sink.
func (d *deletion) Add(s *merge.Series) error {
	if len(d.deletions) == 0 || len(s.Chunks) == 0 {
		return d.next.Add(s)
	}
	clear(d.values)
	for i := 0; i+1 < len(s.Symbols); i += 2 {
		if name := d.symbols.At(s.Symbols[i]); d.names[name] {
			name = strings.Clone(name)
			d.values[name] = strings.Clone(d.symbols.At(s.Symbols[i+1]))
		}
	}
	all := intervals(d.deletions, func(name string) string { return d.values[name] }, d.resolution)
	if len(all) == 0 {
		return d.next.Add(s)
	}
	changed, err := d.cut(s, all)
	switch {
	case err != nil:
		return errs.E(errs.Invalid, "series %s: %w", labelsOf(d.symbols, s.Symbols), err)
	case !changed:
		return d.next.Add(s)
	case len(d.out.Chunks) == 0:
		d.stats.Deleted++
	default:
		d.stats.Cut++
	}
	if d.log != nil {
		hit := meets(all, s.Chunks[0].MinTime, s.Chunks[len(s.Chunks)-1].MaxTime)
		if _, err := fmt.Fprintf(d.log, "Deleted %s %v\n", labelsOf(d.symbols, s.Symbols), hit); err != nil {
			return errs.Wrap(errs.Internal, err)
		}
	}
	return d.next.Add(&d.out)
}

// cut puts what the intervals leave of s into d.out.
func (d *deletion) cut(s *merge.Series, all []Interval) (changed bool, err error) {
	d.out = merge.Series{Symbols: s.Symbols, Chunks: d.out.Chunks[:0]}
	for i := range s.Chunks {
		c := &s.Chunks[i]
		hit := meets(all, c.MinTime, c.MaxTime)
		switch {
		case len(hit) == 0:
			d.out.Chunks = append(d.out.Chunks, *c)
			continue
		case hit[0].Mint <= c.MinTime && hit[0].Maxt >= c.MaxTime:
			changed = true
			continue
		}
		d.stats.Decoded++
		hits := 0
		keep := func(t int64) bool {
			if has(hit, t) {
				hits++
				return false
			}
			return true
		}
		whole := len(d.out.Chunks)
		if c.Encoding == byte(series.EncAggregates) {
			d.out.Chunks, err = cutAggregates(d.out.Chunks, c, keep)
		} else {
			d.out.Chunks, err = d.cutter.Cut(d.out.Chunks, c, keep)
		}
		if err != nil {
			return false, err
		}
		if hits == 0 { // the interval lies between two samples
			d.out.Chunks = append(d.out.Chunks[:whole], *c)
		}
		changed = changed || hits > 0
	}
	return changed, nil
}

// labelsOf are the labels of a series, by their symbols.
func labelsOf(symbols merge.Symbols, numbers []uint32) labels.Labels {
	b := labels.NewScratchBuilder(len(numbers) / 2)
	for i := 0; i+1 < len(numbers); i += 2 {
		name := strings.Clone(symbols.At(numbers[i]))
		b.Add(name, strings.Clone(symbols.At(numbers[i+1])))
	}
	return b.Labels()
}
