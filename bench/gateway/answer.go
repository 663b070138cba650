package gateway

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// Samples counts the samples of all raw chunks, and the windows of all downsampled ones, by their counts. Chunks that
// cannot be counted are an error.
func (a *Answer) Samples() (int, error) {
	sum := 0
	for _, s := range a.Series {
		for _, c := range s.Chunks {
			one := c.Raw
			if one == nil {
				one = cmp.Or(c.Count, c.Counter, c.Sum)
			}
			if one == nil || len(one.Data) < 2 {
				return sum, fmt.Errorf("series %s: chunk without data", labelText(s.Labels))
			}
			sum += int(binary.BigEndian.Uint16(one.Data)) // every encoding begins with the number of samples
		}
	}
	return sum, nil
}

// Joined is the answer by series: frames of one series together, chunks in order of time, each chunk once. Two answers
// are the same when their Joined are.
func (a *Answer) Joined() map[string][]string {
	out := map[string][]string{}
	for _, s := range a.Series {
		key := labelText(s.Labels)
		out[key] = append(out[key], nil...)
		for _, c := range s.Chunks {
			out[key] = append(out[key], chunkText(c))
		}
	}
	for key, all := range out {
		slices.Sort(all)
		out[key] = slices.Compact(all)
	}
	return out
}

// chunkText holds all that a reader uses of a chunk. The hash is left out: it may be absent.
func chunkText(c *thanospb.AggrChunk) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%016x-%016x", uint64(c.MinTime)+1<<63, uint64(c.MaxTime)+1<<63)
	for i, part := range []*thanospb.Chunk{c.Raw, c.Count, c.Sum, c.Min, c.Max, c.Counter} {
		if part != nil {
			fmt.Fprintf(&b, " %d:%d:%x", i, part.Type, part.Data)
		}
	}
	return b.String()
}

// labelText is a label set for people and for maps.
func labelText(ls []*thanospb.Label) string {
	var b strings.Builder
	for _, l := range ls {
		fmt.Fprintf(&b, "%q=%q ", l.Name, l.Value)
	}
	return b.String()
}

// Difference says how two answers differ, "" when they do not.
func Difference(got, want *Answer) string {
	a, b := got.Joined(), want.Joined()
	for key, chunks := range b {
		other, ok := a[key]
		switch {
		case !ok:
			return fmt.Sprintf("%d series instead of %d: %s is missing", len(a), len(b), key)
		case !slices.Equal(other, chunks):
			return fmt.Sprintf("series %s: chunks %s instead of %s", key, times(other), times(chunks))
		}
	}
	for key := range a {
		if _, ok := b[key]; !ok {
			return fmt.Sprintf("%d series instead of %d: %s is too many", len(a), len(b), key)
		}
	}
	return ""
}

// times are the ranges of chunks, which begin their texts, and how long the texts are.
func times(chunks []string) string {
	var out []string
	for _, c := range chunks {
		when, data, _ := strings.Cut(c, " ")
		out = append(out, fmt.Sprintf("%s(%d)", when, len(data)))
	}
	return fmt.Sprint(out)
}
