package query

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/ring"
)

// evidence is what a request showed of the endpoints.
type evidence struct {
	answered []series.Info // of those that answered wholly, with the identity that their response has
	failed   []failure     // the others that should have answered
	covered  []series.Coverage
	seen     []series.Holding // what all endpoints that may be asked said of their blocks before
	pending  []string         // the buckets of which a gateway may still say what it covers
	part     bool             // only a part of the endpoints was meant to be asked
}

// answer adds an endpoint of which info is known and that answered wholly, or counts as if it had. identity and
// coverage are what its response says of itself, nil where it does not say. The last poll may be of before a restart
// with an empty disk, or of another process that had the address. A gateway that says nothing of what it covers, as all
// did before there were views, covers a whole bucket if its Info says so, and nothing that is known otherwise.
func (e *evidence) answer(info series.Info, identity *series.Identity, coverage *series.Coverage, early bool) {
	if identity != nil {
		info.Instance, info.Since = identity.Instance, identity.Since
	}
	e.answered = append(e.answered, info)
	switch {
	case coverage != nil:
		e.covered = append(e.covered, *coverage)
	case info.Blocks.Whole && info.Blocks.Bucket != "":
		e.covered = append(e.covered, series.Coverage{Holding: info.Blocks})
	case early && info.Blocks.Bucket != "":
		e.pending = append(e.pending, info.Blocks.Bucket)
	}
}

// timeRange is a time range in ms, both ends inclusive.
type timeRange struct{ mint, maxt int64 }

// bounds are what receivers were set to: how long they keep local data, and how far behind and ahead of the clock a
// sample may be when it arrives.
type bounds struct{ retention, window, future time.Duration }

// arrivals are the times at which samples of q may have arrived.
func (b bounds) arrivals(q timeRange) timeRange {
	return timeRange{shift(q.mint, -b.future), shift(q.maxt, b.window)}
}

// shift adds d to t and stays a time.
func shift(t int64, d time.Duration) int64 {
	switch ms := d.Milliseconds(); {
	case ms > 0 && t > math.MaxInt64-ms:
		return math.MaxInt64
	case ms < 0 && t < math.MinInt64-ms:
		return math.MinInt64
	default:
		return t + ms
	}
}

// assess returns what may be missing at now from an answer over q, a line each; nothing when it is complete. See
// docs/design/005 and, for blocks, 023.
//
// A failed receiver that the history knows is judged by the history, and a failed store gateway counts for nothing
// where the others served all that its bucket has. Every other failure may have lost something.
func assess(ms Membership, q timeRange, now time.Time, b bounds, e evidence) []string {
	proven := map[string]bool{}
	var missing []string
	for _, bucket := range series.Buckets(e.covered, e.seen) {
		var gaps []series.Gap
		gaps, proven[bucket] = series.Uncovered(bucket, e.covered, e.seen)
		if e.part || slices.Contains(e.pending, bucket) {
			continue
		}
		for _, g := range gaps {
			missing = append(missing, gapText(g))
		}
	}
	for _, f := range e.failed {
		held := f.info.Blocks
		if inHistory(ms, f.info) || series.StandsFor(held, e.covered, proven[held.Bucket]) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s did not answer: %v", f.name, f.err))
	}
	slices.Sort(missing)
	isGateway := func(i series.Info) bool { return i.Role == series.RoleStore }
	if !slices.ContainsFunc(e.answered, isGateway) && !slices.ContainsFunc(e.failed,
		func(f failure) bool { return isGateway(f.info) }) {
		missing = append(missing, unserved(ms, q, now, b)...)
	}
	// What is older than the retention period is in blocks, unless it was that old when it came, a moment ago, and is in a
	// head.
	q.mint = max(q.mint, now.Add(-b.retention-b.window).UnixMilli())
	if text := worstMoment(ms, q, b, e.answered); text != "" {
		missing = append(missing, text)
	}
	return missing
}

// mostNamed is how many missing blocks a warning names.
const mostNamed = 5

// gapText says of what is missing in a bucket where to look for it.
func gapText(g series.Gap) string {
	if g.Unheard {
		return fmt.Sprintf("bucket %s: no store gateway answered that knows its newest blocks (view %d)", g.Bucket,
			g.View.Number)
	}
	var names []string
	for _, id := range g.Missing[:min(len(g.Missing), mostNamed)] {
		names = append(names, id.String())
	}
	text := fmt.Sprintf("bucket %s: no store gateway that answered serves", g.Bucket)
	switch more := g.Unnamed + len(g.Missing) - len(names); {
	case len(names) == 0:
		return fmt.Sprintf("%s %d of its blocks (view %d)", text, more, g.View.Number)
	case more > 0:
		return fmt.Sprintf("%s the blocks %s and %d more (view %d)", text, strings.Join(names, ", "), more, g.View.Number)
	}
	return fmt.Sprintf("%s the blocks %s (view %d)", text, strings.Join(names, ", "), g.View.Number)
}

// unserved are the blocks that nobody serves where no store gateway is known.
func unserved(ms Membership, q timeRange, now time.Time, b bounds) (missing []string) {
	if gone := drained(ms, b.arrivals(q)); len(gone) > 0 {
		missing = append(missing, fmt.Sprintf("no store gateway is known, and receivers %s left their samples in blocks",
			strings.Join(gone, ", ")))
	}
	if kept := now.Add(-b.retention); ms.Bucket != "" && q.mint < kept.UnixMilli() {
		missing = append(missing, fmt.Sprintf("no store gateway is known, and samples from before %s are in the bucket only",
			kept.UTC().Format(time.RFC3339)))
	}
	return missing
}

func inHistory(ms Membership, info series.Info) bool {
	return ms.ReplicationFactor > 0 && info.Role == series.RoleReceive && info.Instance != "" &&
		slices.ContainsFunc(ms.History, func(i ring.Incarnation) bool { return i.ID == info.Instance })
}

// drained are the receivers that took samples in a time range and left, having shipped them.
func drained(ms Membership, arrivals timeRange) (ids []string) {
	for _, i := range ms.History {
		if s := lifetime(i); i.Drained && s.mint <= arrivals.maxt && s.maxt >= arrivals.mint {
			ids = append(ids, i.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// worstMoment looks for a moment at which a sample of q may have arrived on receivers none of which answered. At each
// moment the incarnations that were members then count; only their beginnings and ends, and changes of the tenant's
// shard, change the picture.
func worstMoment(ms Membership, q timeRange, b bounds, answered []series.Info) string {
	if ms.ReplicationFactor <= 0 || q.mint > q.maxt {
		return ""
	}
	silent := slices.DeleteFunc(slices.Clone(ms.History), func(i ring.Incarnation) bool {
		return i.Drained || isAnswered(i,
			answered)
	})
	quorum := ring.Quorum(ms.ReplicationFactor)
	if len(silent) < quorum {
		return ""
	}
	var worst []string
	var at int64
	for _, moment := range moments(ms, b.arrivals(q)) {
		lost, names := lostCopies(ms, moment, silent)
		if lost >= quorum && len(names) > len(worst) {
			worst, at = names, moment
		}
	}
	if worst == nil {
		return ""
	}
	return fmt.Sprintf("receivers %s did not answer and may hold the only copies of samples at %s (replication factor %d)",
		strings.Join(worst, ", "), time.UnixMilli(min(max(at, q.mint),
			q.maxt)).UTC().Format(time.RFC3339), ms.ReplicationFactor)
}

// moments are those within a time timeRange, its beginning first, between which nothing changes.
func moments(ms Membership, within timeRange) []int64 {
	all := []int64{ms.Shard.Since.UnixMilli()}
	for _, i := range ms.History {
		s := lifetime(i)
		all = append(append(all, s.mint, s.maxt+1), placings(i)...)
	}
	all = slices.DeleteFunc(all, func(t int64) bool { return t <= within.mint || t > within.maxt })
	all = append(all, within.mint)
	slices.Sort(all)
	return slices.Compact(all)
}

// lifetime is when i took samples.
func lifetime(i ring.Incarnation) timeRange {
	s := timeRange{math.MinInt64, math.MaxInt64}
	if !i.Off {
		s.mint = i.Since.UnixMilli()
	}
	if !i.Until.IsZero() {
		s.maxt = i.Until.UnixMilli()
	}
	return s
}

// lostCopies is how many copies of one sample that arrived at time t the silent receivers may hold, and their names. A
// ring with members placed in at least as many zones as there are copies has one copy per zone, in a shard too; no zone
// is a zone as well.
func lostCopies(ms Membership, t int64, silent []ring.Incarnation) (int, []string) {
	zones, lost, lostZones := map[string]bool{}, map[string]string{}, map[string]bool{}
	for _, i := range ms.History {
		if surelyPlaced(i, t) {
			zones[i.Zone] = true
		}
	}
	for _, i := range silent {
		if s := lifetime(i); t >= s.mint && t <= s.maxt && ms.Shard.mayHold(i, ms.History, t) {
			lost[i.ID], lostZones[i.Zone] = called(i), true
		}
	}
	names := make([]string, 0, len(lost))
	for _, name := range lost {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(zones) >= ms.ReplicationFactor {
		return len(lostZones), names
	}
	return len(lost), names
}

// called is i as messages name it: one that is gone for good with the day on which that was found.
func called(i ring.Incarnation) string {
	if i.Until.IsZero() {
		return i.ID
	}
	return fmt.Sprintf("%s (lost on %s)", i.ID, i.Until.UTC().Format(time.DateOnly))
}

// isAnswered reports whether the data of i is in the answer: its receiver answered, and still has that disk.
func isAnswered(i ring.Incarnation, answered []series.Info) bool {
	return slices.ContainsFunc(answered, func(a series.Info) bool {
		if a.Role != series.RoleReceive || a.Instance != i.ID {
			return false
		}
		if a.Since.IsZero() || i.Since.IsZero() {
			return i.Until.IsZero()
		}
		return a.Since.Unix() == i.Since.Unix() // the ring keeps seconds
	})
}
