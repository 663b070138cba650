package series

import "slices"

// SortedUnique sorts all, which it changes, and returns each string once, and no more than limit of them; limit 0 is
// all.
func SortedUnique(all []string, limit int) []string {
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

// Empty is a set of no series.
func Empty() Set { return &listSet{} }

// Failed is a set that ends at once with err.
func Failed(err error) Set { return &listSet{err: err} }

// List is a set of the given series, which must be in label order.
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

// Limit is set ended after n series; n 0 is all of them.
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
