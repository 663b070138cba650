package notify

import "testing"

// TestTally: what Thanos counts once for all Alertmanagers. An alert is lost only when none of them took it, however
// late some of them answer.
func TestTally(t *testing.T) {
	type am = map[string]counts
	f := func(what string, looks []am, popped, overflow, lost float64) {
		t.Helper()
		var of tally
		for _, now := range looks {
			of.look(now)
		}
		if of.popped != popped || of.overflow != overflow || of.lost != lost {
			t.Errorf("%s: popped %v, overflow %v, lost %v; want %v, %v, %v", what, of.popped, of.overflow, of.lost, popped,
				overflow, lost)
		}
	}
	f("nothing", []am{{}, {"a": {}}}, 0, 0, 0)
	f("one takes all", []am{{"a": {sent: 5}}, {"a": {sent: 7}}}, 7, 0, 0)
	f("one takes none", []am{{"a": {failed: 5, dropped: 5}}, {"a": {failed: 7, dropped: 7}}}, 7, 0, 7)
	f("one of two takes all", []am{{"a": {sent: 5}, "b": {failed: 5, dropped: 5}}, {"a": {sent: 9}, "b": {failed: 9, dropped: 9}}},
		9, 0, 0)
	f("the other one fails late", []am{{"a": {sent: 5}, "b": {queued: 5}}, {"a": {sent: 5}, "b": {failed: 5, dropped: 5}},
		{"a": {sent: 6}, "b": {failed: 5, dropped: 5, queued: 1}}, {"a": {sent: 6}, "b": {failed: 6, dropped: 6}}}, 6, 0, 0)
	f("both fail, one of them late", []am{{"a": {failed: 5, dropped: 5}, "b": {queued: 5}},
		{"a": {failed: 5, dropped: 5}, "b": {failed: 5, dropped: 5}}, {"a": {failed: 8, dropped: 8}, "b": {failed: 5, dropped: 5}},
		{"a": {failed: 8, dropped: 8}, "b": {failed: 8, dropped: 8}}}, 8, 0, 8)
	f("both fail, and then take", []am{{"a": {failed: 5, dropped: 5}, "b": {failed: 5, dropped: 5}},
		{"a": {failed: 5, dropped: 5, sent: 5}, "b": {failed: 5, dropped: 5, sent: 5}}}, 10, 0, 5)
	f("a queue is full", []am{{"a": {sent: 5}, "b": {dropped: 3}}, {"a": {sent: 5}, "b": {dropped: 5, failed: 1}}}, 5, 4, 0)
	f("failed is counted before dropped", []am{{"a": {failed: 5}}, {"a": {failed: 5, dropped: 5}},
		{"a": {failed: 9, dropped: 5}}, {"a": {failed: 9, dropped: 9}}}, 9, 0, 9)
	f("one goes and comes back", []am{{"a": {sent: 5}}, {}, {"a": {sent: 2}}, {"a": {sent: 1}}}, 8, 0, 0)
}
