package query

import (
	"slices"

	"github.com/hearth-metrics/hearth/internal/series"
)

// nameBuckets names the buckets that have no id, by what their gateways found in them: gateways of which one knows what
// another one found read the same bucket. The name is for this snapshot only. No other goroutine uses the endpoints
// yet.
func nameBuckets(endpoints []*endpoint) {
	all := slices.DeleteFunc(slices.Clone(endpoints), func(m *endpoint) bool { return m.info.Blocks.Contents == "" })
	for _, m := range all {
		m.info.Blocks.Bucket = ""
	}
	for _, m := range all {
		if m.info.Blocks.Bucket == "" {
			spread(m, ownBucket(m), all)
		}
	}
}

// spread gives the name of m's bucket to all endpoints that are known to read the same one.
func spread(m *endpoint, name string, all []*endpoint) {
	m.info.Blocks.Bucket = name
	for _, other := range all {
		if other.info.Blocks.Bucket == "" && same(m.info.Blocks.Contents, other.info.Blocks.Contents) {
			spread(other, name, all)
		}
	}
}

// same reports whether two gateways read the same bucket, by what they found in it.
func same(a, b series.Contents) bool { return a.Know(b) || b.Know(a) }

// ownBucket is the name of a bucket without an id, as warnings show it.
func ownBucket(m *endpoint) string { return "without an id, of " + m.label() }

// named is what a response says, with the name of the bucket if that has no id: that of a gateway which is known to
// read the same bucket.
func (s *selection) named(r response) said {
	if r.said.coverage == nil || r.said.coverage.Contents == "" {
		return r.said
	}
	c := *r.said.coverage
	if c.Bucket = r.from.info.Blocks.Bucket; c.Bucket == "" {
		c.Bucket = ownBucket(r.from)
		for bucket, b := range s.plan.buckets {
			if slices.ContainsFunc(b.contents, func(known series.Contents) bool { return same(known, c.Contents) }) {
				c.Bucket = bucket
			}
		}
	}
	r.said.coverage = &c
	return r.said
}

// divide divides gateways of a bucket without an id, each of which serves all that it found, into groups of which one
// needs to answer: the first of a group found all that the others in it are known to have found.
func divide(g *group) (groups []*group) {
	rest := g.endpoints
	for len(rest) > 0 {
		lead, most := 0, 0
		for i, m := range rest {
			n := 0
			for _, other := range rest {
				if m.info.Blocks.Contents.Know(other.info.Blocks.Contents) {
					n++
				}
			}
			if n > most {
				lead, most = i, n
			}
		}
		first := rest[lead]
		part, left := []*endpoint{first}, []*endpoint(nil)
		for i, m := range rest {
			switch {
			case i == lead:
			case first.info.Blocks.Contents.Know(m.info.Blocks.Contents):
				part = append(part, m)
			default:
				left = append(left, m)
			}
		}
		groups = append(groups, &group{part, g.blocks})
		rest = left
	}
	return groups
}
