package rewrite

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
)

// Config is what is to be changed. Its JSON is that of an entry in thanos.rewrites of meta.json.
type Config struct {
	// Deletions are applied to the labels that Relabels made.
	Deletions []Deletion        `json:"deletions_applied,omitempty"`
	Relabels  []*relabel.Config `json:"relabels_applied,omitempty"`
}

// Deletion takes samples out of series.
type Deletion struct {
	// Matchers choose series: all must match. A label that a series does not have is the empty string.
	Matchers []*labels.Matcher `json:"matchers"`
	// Intervals are the times whose samples go; none = all.
	Intervals []Interval `json:"intervals,omitempty"`
	// RequestID is for people.
	RequestID string `json:"request_id,omitempty"`
}

// Interval is a range of time in ms, both ends included.
type Interval struct{ Mint, Maxt int64 }

// maxSelector bounds the text of a selector in bytes.
const maxSelector = 1 << 20

// ParseDeletions reads a list of deletions in YAML. name is what errors call it. The error names all faults with their
// lines, and is of kind Invalid.
func ParseDeletions(name string, text []byte) ([]Deletion, error) {
	var entries []struct {
		Matchers  string `yaml:"matchers"`
		Intervals []struct {
			Mint *int64 `yaml:"mint"`
			Maxt *int64 `yaml:"maxt"`
		} `yaml:"intervals"`
		RequestID string `yaml:"request_id"`
	}
	p := conf.Parser{Name: name}
	root := p.Document(text)
	if root == nil {
		return nil, errs.Wrap(errs.Invalid, p.Err())
	}
	p.Decode(root, &entries)
	for _, n := range root.Content {
		refuseNothing(&p, n)
	}
	if p.Err() != nil {
		return nil, errs.Wrap(errs.Invalid, p.Err())
	}
	parser, out := expr.New(maxSelector), make([]Deletion, len(entries))
	for i, e := range entries {
		n := root.Content[i]
		d := Deletion{RequestID: e.RequestID}
		var err error
		if e.Matchers == "" {
			p.Fault(n, "entry %d: matchers: is missing: it says which series are meant, such as '{job=\"a\"}'", i+1)
		} else if d.Matchers, err = parser.ParseMetricSelector(e.Matchers); err != nil {
			p.Fault(n, "entry %d: matchers: %w", i+1, err)
		} else if len(d.Matchers) == 0 {
			p.Fault(n, "entry %d: matchers: are empty, which means all series: write that as '{__name__=~\".*\"}'", i+1)
		}
		for j, in := range e.Intervals {
			switch {
			case in.Mint == nil || in.Maxt == nil:
				p.Fault(n, "entry %d: interval %d: mint and maxt are both needed, in ms", i+1, j+1)
			case *in.Mint > *in.Maxt:
				p.Fault(n, "entry %d: interval %d: mint %d is after maxt %d", i+1, j+1, *in.Mint, *in.Maxt)
			default:
				d.Intervals = append(d.Intervals, Interval{*in.Mint, *in.Maxt})
			}
		}
		out[i] = d
	}
	return out, errs.Wrap(errs.Invalid, p.Err())
}

// refuseNothing adds a fault where an entry, or its intervals, are there and empty: an entry without intervals deletes
// whole series, and nobody is to do that by a line that was left empty.
func refuseNothing(p *conf.Parser, entry *yaml.Node) {
	if conf.IsNull(conf.Resolve(entry)) {
		p.Fault(entry, "an entry is empty")
		return
	}
	p.Pairs(entry, "", func(key, value *yaml.Node) {
		value = conf.Resolve(value)
		isNull := func(n *yaml.Node) bool { return conf.IsNull(conf.Resolve(n)) }
		if key.Value == "intervals" && (len(value.Content) == 0 || slices.ContainsFunc(value.Content, isNull)) {
			p.Fault(key, "intervals: are empty: leave the line out to delete whole series")
		}
	})
}

// Empty reports whether there is nothing to be changed.
func (c *Config) Empty() bool { return len(c.Deletions) == 0 && len(c.Relabels) == 0 }

// Hash stands for c: other changes have another one.
func (c *Config) Hash() (string, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return "", errs.E(errs.Invalid, "configuration of the rewrite: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// everything are the intervals of a deletion without any.
var everything = Interval{-1 << 63, 1<<63 - 1}

// intervals are those that deletions have for a series: in order, apart from each other, and widened to whole windows
// of resolution ms.
func intervals(deletions []Deletion, get func(name string) string, resolution int64) (all []Interval) {
	for _, d := range deletions {
		if slices.ContainsFunc(d.Matchers, func(m *labels.Matcher) bool { return !m.Matches(get(m.Name)) }) {
			continue
		}
		if len(d.Intervals) == 0 {
			return []Interval{everything}
		}
		for _, in := range d.Intervals {
			all = append(all, in.widen(resolution))
		}
	}
	slices.SortFunc(all, func(a, b Interval) int { return cmp.Compare(a.Mint, b.Mint) })
	out := all[:0]
	for _, in := range all {
		if last := len(out) - 1; last >= 0 && (in.Mint <= out[last].Maxt || in.Mint-1 == out[last].Maxt) {
			out[last].Maxt = max(out[last].Maxt, in.Maxt)
		} else {
			out = append(out, in)
		}
	}
	return out
}

// farthest bounds times, so that adding a window never overflows.
const farthest = 1 << 62

// widen makes whole windows of an interval: a window of which it has a part goes as a whole, since what was summed up
// cannot be taken apart.
func (in Interval) widen(resolution int64) Interval {
	if resolution <= 0 {
		return in
	}
	floor := func(t int64) int64 {
		t = min(max(t, -farthest), farthest)
		return t - ((t%resolution)+resolution)%resolution
	}
	return Interval{floor(in.Mint), floor(in.Maxt) + resolution - 1}
}

// has reports whether a time is in one of the intervals, which are in order.
func has(all []Interval, t int64) bool {
	i, _ := slices.BinarySearchFunc(all, t, func(in Interval, t int64) int { return cmp.Compare(in.Maxt, t) })
	return i < len(all) && all[i].Mint <= t
}

// meets are those of the intervals that have times of [mint, maxt].
func meets(all []Interval, mint, maxt int64) []Interval {
	i, _ := slices.BinarySearchFunc(all, mint, func(in Interval, t int64) int { return cmp.Compare(in.Maxt, t) })
	j := i
	for j < len(all) && all[j].Mint <= maxt {
		j++
	}
	return all[i:j]
}
