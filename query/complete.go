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

// evidence is what the responses to a request say of the endpoints.
type evidence struct {
	answered []series.Info     // of the endpoints that answered wholly, with the identity that their response has
	failed   []failure         // the other endpoints that should have answered
	covered  []series.Coverage // the blocks that responses cover
	seen     []series.Holding  // of all endpoints that may be asked, by their last Info, and of those that failed later
	pending  []string          // the buckets of which a gateway may still say what it covers
	part     bool              // the request names the endpoints to ask (storeMatch), so others do not count as missing
	// blockless says that what was asked for is never in blocks, so that nobody was asked for blocks.
	blockless bool
}

// addAnswered adds an endpoint that answered wholly, or counts as if it had. info is its last Info. What its response
// says replaces the identity of info, since the endpoint may have restarted with an empty disk after the last poll, or
// another process may have its address now. A gateway from before there were views sends no coverage: it covers a whole
// bucket if its Info says so, and no known block otherwise. early means that its coverage may still come.
func (e *evidence) addAnswered(info series.Info, said said, early bool) {
	if id := said.identity; id != nil {
		info.Instance, info.Since = id.Instance, id.Since
	}
	e.answered = append(e.answered, info)
	switch {
	case said.coverage != nil:
		e.covered = append(e.covered, *said.coverage)
	case info.Blocks.Whole && info.Blocks.Bucket != "" && info.Blocks.Contents == "":
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

// arrivals are the times at which samples with timestamps in q may have arrived.
func (b bounds) arrivals(q timeRange) timeRange {
	return timeRange{shift(q.mint, -b.future), shift(q.maxt, b.window)}
}

// shift adds d to t, and stops at the smallest and the largest time instead of overflowing.
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

// assess returns what may be missing from an answer over q, one line for each fault; none when it is complete. now is
// the time of the request. See docs/design/005 and, for blocks, 023.
//
// A failed receiver that is in the history is judged by the history. A failed store gateway loses nothing where the
// other gateways served all blocks of its bucket, or may still do so. Every other failure may have lost something.
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
		if inHistory(ms, f.info) || slices.Contains(e.pending, held.Bucket) ||
			series.StandsFor(held, e.covered, proven[held.Bucket]) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s did not answer: %v", f.name, f.err))
	}
	slices.Sort(missing)
	missing = slices.Compact(missing) // one gateway may have been asked for several groups
	isGateway := func(i series.Info) bool { return i.Role == series.RoleStore }
	hasFailedGateway := slices.ContainsFunc(e.failed, func(f failure) bool { return isGateway(f.info) })
	if !e.blockless && !hasFailedGateway && !slices.ContainsFunc(e.answered, isGateway) {
		missing = append(missing, unserved(ms, q, now, b)...)
	}
	// Samples older than the retention period are in blocks. Only samples that were that old when they arrived a moment
	// ago may still be in a head: hence the window.
	q.mint = max(q.mint, now.Add(-b.retention-b.window).UnixMilli())
	if text := worstMoment(ms, q, b, e.answered); text != "" {
		missing = append(missing, text)
	}
	return missing
}

// mostNamed is how many missing blocks a warning names.
const mostNamed = 5

// gapText is the warning about blocks that are missing: it names the bucket and the blocks, so that an operator knows
// where to look.
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

// unserved are warnings about samples that are in blocks, where no store gateway is known that could serve them.
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

// inHistory reports whether info is of a receiver that the history has, so that the history says what its failure
// loses.
func inHistory(ms Membership, info series.Info) bool {
	return ms.ReplicationFactor > 0 && info.Role == series.RoleReceive && info.Instance != "" &&
		slices.ContainsFunc(ms.History, func(i ring.Incarnation) bool { return i.ID == info.Instance })
}

// drained are the receivers that took samples in a time range, shipped them to the bucket, and left.
func drained(ms Membership, arrivals timeRange) (ids []string) {
	for _, i := range ms.History {
		if s := lifetime(i); i.Drained && s.mint <= arrivals.maxt && s.maxt >= arrivals.mint {
			ids = append(ids, i.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// worstMoment looks for a moment at which a sample of q may have been stored only by receivers that did not answer. It
// returns a warning about the worst such moment, "" when there is none. At each moment those incarnations count that
// were members then. It is enough to look at the moments at which an incarnation begins or ends, or the tenant's shard
// changes.
func worstMoment(ms Membership, q timeRange, b bounds, answered []series.Info) string {
	if ms.ReplicationFactor <= 0 || q.mint > q.maxt {
		return ""
	}
	silent := slices.DeleteFunc(slices.Clone(ms.History), func(i ring.Incarnation) bool {
		return i.Drained || isAnswered(i, answered)
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
	when := time.UnixMilli(min(max(at, q.mint), q.maxt)).UTC().Format(time.RFC3339)
	return fmt.Sprintf("receivers %s did not answer and may hold the only copies of samples at %s (replication factor %d)",
		strings.Join(worst, ", "), when, ms.ReplicationFactor)
}

// moments are the times in within at which something changes, and its beginning. Between two of them all is as at the
// first.
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

// lifetime is the time in which i took samples.
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

// lostCopies is how many copies of one sample that arrived at time t the silent receivers may hold, and their names. If
// members are placed in at least as many zones as there are copies, each zone has one copy, also within a shard.
// Members without a zone count as one zone.
func lostCopies(ms Membership, t int64, silent []ring.Incarnation) (int, []string) {
	zones, lost, lostZones := map[string]bool{}, map[string]string{}, map[string]bool{}
	for _, i := range ms.History {
		if surelyPlaced(i, t) {
			zones[i.Zone] = true
		}
	}
	for _, i := range silent {
		if s := lifetime(i); t >= s.mint && t <= s.maxt && ms.Shard.mayHold(i, ms.History, t) {
			lost[i.ID], lostZones[i.Zone] = displayName(i), true
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

// displayName is i's name in messages. For an incarnation that is lost for good it has the day on which that was found.
func displayName(i ring.Incarnation) string {
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
