package series

import "slices"

// SortedUnique sorts all in place and returns each string once, the first limit of them; limit 0 means all of them. The
// result shares the memory of all.
func SortedUnique(all []string, limit int) []string {
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

// Empty returns a set without series.
func Empty() Set { return &listSet{} }

// Failed returns a set without series that ends with err, which has an errs.Kind.
func Failed(err error) Set { return &listSet{err: err} }

// List returns a set of series, which must be in labels.Compare order.
func List(series []Series, warnings ...string) Set {
	return &listSet{series: series, warnings: warnings}
}

type listSet struct {
	series   []Series
	at       int // 1-based
	err      error
	warnings Warnings
}

func (s *listSet) Next() bool {
	if s.at >= len(s.series) {
		return false
	}
	s.at++
	return true
}

func (s *listSet) At() Series         { return s.series[s.at-1] }
func (s *listSet) Err() error         { return s.err }
func (s *listSet) Warnings() Warnings { return s.warnings }
func (s *listSet) Close() error       { return nil }

// Limit returns set, which it owns, cut off after n series; n 0 means all of them.
func Limit(set Set, n int) Set {
	if n <= 0 {
		return set
	}
	return &limitSet{Set: set, left: n}
}

type limitSet struct {
	Set
	left int
}

func (s *limitSet) Next() bool {
	if s.left == 0 {
		return false
	}
	s.left--
	return s.Set.Next()
}
