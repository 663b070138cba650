package query

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/ring"
)

// failure is a source that did not answer, or not wholly.
type failure struct {
	name string // as messages show it
	info series.Info
	err  error
}

// span is a time range in ms, both ends inclusive.
type span struct{ mint, maxt int64 }

// assess returns what may be missing from an answer over q, a line each; nothing when it is complete. answered are the
// sources that answered wholly, failed the others that should have. local bounds the times at which receivers may hold
// what is in no block; window is how much older than an incarnation its samples may be. See docs/design/005.
//
// A failed receiver that the history knows is judged by the history, and a failed store gateway whose bucket another one
// served counts for nothing. Every other failure may have lost something.
func assess(ms Membership, q, local span, window time.Duration, answered []series.Info, failed []failure) []string {
	var missing []string
	for _, f := range failed {
		if inHistory(ms, f.info) || standsIn(answered, f.info) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s did not answer: %v", f.name, f.err))
	}
	slices.Sort(missing)
	asked := func(i series.Info) bool { return i.Role == storeRole }
	if !slices.ContainsFunc(answered, asked) && !slices.ContainsFunc(failed, func(f failure) bool { return asked(f.info) }) {
		if gone := drained(ms, q, window); len(gone) > 0 {
			missing = append(missing, fmt.Sprintf("no store gateway is known, and receivers %s left their samples in blocks", strings.Join(gone, ", ")))
		}
	}
	q.mint, q.maxt = max(q.mint, local.mint), min(q.maxt, local.maxt)
	if text := worstMoment(ms, q, window, answered); text != "" {
		missing = append(missing, text)
	}
	return missing
}

// localTimes are the times of samples that may be on a receiver's disk alone. What is older than the retention period is in
// blocks, unless it was that old when it came, a moment ago, and is in a head.
func localTimes(now time.Time, retention, window time.Duration) span {
	return span{now.Add(-retention - window).UnixMilli(), math.MaxInt64}
}

func inHistory(ms Membership, info series.Info) bool {
	return ms.ReplicationFactor > 0 && info.Role == receiveRole && info.Instance != "" &&
		slices.ContainsFunc(ms.History, func(i ring.Incarnation) bool { return i.ID == info.Instance })
}

func standsIn(answered []series.Info, info series.Info) bool {
	return info.Bucket != "" && slices.ContainsFunc(answered, func(a series.Info) bool { return a.Bucket == info.Bucket })
}

const (
	receiveRole = "receive"
	storeRole   = "store"
)

// drained are the receivers that held samples of q and left, having shipped them.
func drained(ms Membership, q span, window time.Duration) (ids []string) {
	for _, i := range ms.History {
		if s := lifetime(i, window); i.Drained && s.mint <= q.maxt && s.maxt >= q.mint {
			ids = append(ids, i.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// worstMoment looks for a moment within q at which all copies of a sample may have been on receivers that did not answer.
// At each moment the incarnations that were members then count; only their beginnings and ends change the picture.
func worstMoment(ms Membership, q span, window time.Duration, answered []series.Info) string {
	if ms.ReplicationFactor <= 0 || q.mint > q.maxt {
		return ""
	}
	var worst []string
	var at int64
	for _, moment := range moments(ms.History, q, window) {
		lost, names := lostCopies(ms, moment, window, answered)
		if lost >= ring.Quorum(ms.ReplicationFactor) && len(names) > len(worst) {
			worst, at = names, moment
		}
	}
	if worst == nil {
		return ""
	}
	return fmt.Sprintf("receivers %s did not answer and may hold the only copies of samples at %s (replication factor %d)",
		strings.Join(worst, ", "), time.UnixMilli(at).UTC().Format(time.RFC3339), ms.ReplicationFactor)
}

// moments are the beginning of q and of every incarnation within q, and the moment after each end.
func moments(history []ring.Incarnation, q span, window time.Duration) []int64 {
	all := []int64{q.mint}
	for _, i := range history {
		if i.Drained {
			continue
		}
		s := lifetime(i, window)
		for _, t := range [2]int64{s.mint, s.maxt + 1} {
			if t > q.mint && t <= q.maxt {
				all = append(all, t)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// lifetime is the time of the samples that i may hold.
func lifetime(i ring.Incarnation, window time.Duration) span {
	s := span{math.MinInt64, math.MaxInt64}
	if !i.Since.IsZero() {
		s.mint = i.Since.Add(-window).UnixMilli()
	}
	if !i.Until.IsZero() {
		s.maxt = i.Until.UnixMilli()
	}
	return s
}

// lostCopies is how many copies of one sample at time t the receivers that did not answer may have held, and their names.
// A zone-aware ring with at least as many zones as copies places one copy per zone.
func lostCopies(ms Membership, t int64, window time.Duration, answered []series.Info) (int, []string) {
	present, lost, lostZones := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, i := range ms.History {
		if s := lifetime(i, window); i.Drained || t < s.mint || t > s.maxt {
			continue
		}
		zone := cmp.Or(i.Zone, "member "+i.ID)
		present[zone] = true
		if !isAnswered(i, answered) {
			lost[i.ID], lostZones[zone] = true, true
		}
	}
	names := make([]string, 0, len(lost))
	for id := range lost {
		names = append(names, id)
	}
	slices.Sort(names)
	if len(present) >= ms.ReplicationFactor {
		return len(lostZones), names
	}
	return len(lost), names
}

// isAnswered reports whether the data of i is in the answer: its receiver answered, and still has that disk.
func isAnswered(i ring.Incarnation, answered []series.Info) bool {
	return slices.ContainsFunc(answered, func(a series.Info) bool {
		if a.Role != receiveRole || a.Instance != i.ID {
			return false
		}
		if a.Since.IsZero() || i.Since.IsZero() {
			return i.Until.IsZero()
		}
		return a.Since.Unix() == i.Since.Unix() // the ring keeps seconds
	})
}
