package query

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/ring"
)

// at is a moment of the tests' day in hours.
func at(hour float64) time.Time {
	return time.UnixMilli(1_700_000_000_000).Add(time.Duration(hour * float64(time.Hour)))
}

// incarnation is a member from one hour to another, 0 for a present one. The ring took it up at once.
func incarnation(id, zone string, since, until float64, drained bool) ring.Incarnation {
	i := ring.Incarnation{Member: ring.Member{ID: id, Zone: zone}, Since: at(since), Placed: at(since).Add(-settling),
		Drained: drained}
	if until > 0 {
		i.Until = at(until)
	}
	return i
}

func live(ids ...string) (out []series.Info) {
	for _, id := range ids {
		id, since, _ := strings.Cut(id, "@")
		info := series.Info{Instance: id, Role: "receive", Since: at(0)}
		if since != "" {
			info.Since = at(float64(since[0] - '0'))
		}
		out = append(out, info)
	}
	return out
}

// whole is what a gateway says that serves all of a bucket.
func whole(bucket string) series.Holding { return series.Holding{Bucket: bucket, Whole: bucket != ""} }

// shown is the evidence of sources whose responses say nothing of themselves.
func shown(answered []series.Info, failed []failure) evidence {
	e := evidence{failed: failed}
	for _, i := range answered {
		e.addAnswered(i, said{}, false)
	}
	return e
}

// long is a retention that ends before the tests' day, and no lateness.
var long = bounds{retention: 1000 * time.Hour}

func TestReceiversComplete(t *testing.T) {
	day := timeRange{at(0).UnixMilli(), at(24).UnixMilli()}
	f := func(name string, rf int, q timeRange, history []ring.Incarnation, answered []series.Info, want string) {
		t.Helper()
		got := strings.Join(
			assess(Membership{ReplicationFactor: rf, History: history}, q, at(24), long, shown(answered, nil)), "|")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	member := func(id string) ring.Incarnation { return incarnation(id, "", 0, 0, false) }
	zoned := func(id, zone string) ring.Incarnation { return incarnation(id, zone, 0, 0, false) }
	three := []ring.Incarnation{member("a"), member("b"), member("c")}
	f("all", 3, day, three, live("a", "b", "c"), "")
	f("one missing of RF 3", 3, day, three, live("a", "c"), "")
	f("two missing of RF 3", 3, day, three, live("b"), "receivers a, c did not answer")
	f("RF 1", 1, day, three, live("a", "b"), "receivers c ")
	f("RF 2, one missing", 2, day, three, live("a", "b"), "")
	f("RF 2, two missing", 2, day, three, live("b"), "receivers a, c ")
	f("RF 5, two missing", 5, day, append(three[:3:3], member("d"), member("e")), live("a", "b", "c"), "")
	f("RF 5, three missing", 5, day, append(three[:3:3], member("d"), member("e")), live("a", "b"), "receivers c, d, e ")
	f("RF not known", 0, day, three, nil, "")

	zones := []ring.Incarnation{zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), zoned("b2", "b"), zoned("c1", "c"),
		zoned("c2", "c")}
	f("a zone missing", 3, day, zones, live("b1", "b2", "c1", "c2"), "")
	f("two zones touched", 3, day, zones, live("a2", "b2", "c1", "c2"), "receivers a1, b1 ")
	f("a zone missing, RF 1", 1, day, zones, live("b1", "b2", "c1", "c2"), "receivers a1, a2 ")
	f("fewer zones than copies", 3, day, zones[:4], live("b1", "b2"), "receivers a1, a2 ")

	// b lost its disk at 5 and came back; what it held before is gone.
	lostDisk := []ring.Incarnation{member("a"), incarnation("b", "", 0, 5, false), incarnation("b", "", 5, 0, false),
		member("c")}
	f("lost disk", 3, day, lostDisk, live("a", "b@5", "c"), "")
	f("lost disk and one missing", 3, day, lostDisk, live("b@5", "c"), "receivers a, b (lost on "+at(5).UTC().Format(
		time.DateOnly)+") did not answer and may hold the only copies of samples at "+at(0).UTC().Format(time.RFC3339))
	f("lost disk and one missing, later", 3, timeRange{at(6).UnixMilli(), at(9).UnixMilli()}, lostDisk, live("b@5", "c"),
		"")
	f(
		"two disks lost one after another, with time between",
		3,
		timeRange{at(3).UnixMilli(), at(9).UnixMilli()},
		[]ring.Incarnation{incarnation("a", "", 0, 2, false), incarnation("a", "", 2, 0, false),
			incarnation("b", "", 0, 5, false), incarnation("b", "", 5, 0, false), member("c")},
		live("a@2", "b@5", "c"),
		"",
	)
	f(
		"the same, from the beginning",
		3,
		day,
		[]ring.Incarnation{incarnation("a", "", 0, 2, false), incarnation("a", "", 2, 0, false),
			incarnation("b", "", 0, 5, false), incarnation("b", "", 5, 0, false), member("c")},
		live("a@2", "b@5", "c"),
		"receivers a (lost on 2023-11-15), b (lost on 2023-11-15) ",
	)

	f(
		"drained members are not missed",
		3,
		day,
		[]ring.Incarnation{member("a"), incarnation("b", "", 0, 5, true), incarnation("c", "", 0, 6, true), member("d"),
			member("e")},
		append(live("a", "d", "e"), series.Info{Role: "store"}),
		"",
	)
	f(
		"forgotten ones are",
		3,
		day,
		[]ring.Incarnation{member("a"), incarnation("b", "", 0, 5, false), incarnation("c", "", 0, 6, false), member("d"),
			member("e")},
		live("a", "d", "e"),
		"receivers b (lost on 2023-11-15), c (lost on 2023-11-15) ",
	)
	f(
		"but not after their end",
		3,
		timeRange{at(7).UnixMilli(), at(9).UnixMilli()},
		[]ring.Incarnation{member("a"), incarnation("b", "", 0, 5, false), incarnation("c", "", 0, 6, false), member("d"),
			member("e")},
		live("a", "d", "e"),
		"",
	)
	f("zones no longer enough after an end", 3, day,
		[]ring.Incarnation{zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), incarnation("c1", "c", 0, 5, true)},
		live("b1"), "receivers a1, a2 ")
}

func TestWindowAndRetention(t *testing.T) {
	young := []ring.Incarnation{incarnation("a", "", 10, 0, false)}
	f := func(mint, maxt, retained float64, window time.Duration, complete bool) {
		t.Helper()
		b := bounds{retention: at(30).Sub(at(retained)) - window, window: window}
		got := assess(Membership{ReplicationFactor: 1, History: young}, timeRange{at(mint).UnixMilli(), at(maxt).UnixMilli()},
			at(30), b, shown(nil, nil))
		if (len(got) == 0) != complete {
			t.Errorf("%v to %v, window %s: %q", mint, maxt, window, got)
		}
	}
	f(0, 9, 0, 0, true)
	f(0, 9, 0, 2*time.Hour, false) // it may have taken samples of 8 h
	f(0, 7, 0, 2*time.Hour, true)
	f(9, 11, 0, 0, false)
	f(9, 11, 12, 0, true) // all of that is in blocks

	old := []ring.Incarnation{incarnation("a", "", 0, 0, false)}
	late := func(maxt float64, complete bool) {
		t.Helper()
		b := bounds{retention: 2 * time.Hour, window: 3 * time.Hour}
		if got := assess(Membership{ReplicationFactor: 1, History: old}, timeRange{at(1).UnixMilli(), at(maxt).UnixMilli()},
			at(20), b, shown(nil, nil)); (len(got) == 0) != complete {
			t.Errorf("to %v: %q", maxt, got)
		}
	}
	late(19, false)
	late(17.5, false) // of 17.5 h it may have taken a sample just now
	late(14.5, true)
}

// TestDrained: what a drained receiver held is in blocks, so somebody must serve these.
func TestDrained(t *testing.T) {
	history := []ring.Incarnation{incarnation("a", "", 0, 0, false), incarnation("b", "", 0, 5, true)}
	store := series.Info{Instance: "s", Role: "store", Blocks: whole("bucket")}
	f := func(name string, mint, maxt float64, answered []series.Info, failed []failure, want string) {
		t.Helper()
		got := strings.Join(
			assess(Membership{ReplicationFactor: 1, History: history}, timeRange{at(mint).UnixMilli(), at(maxt).UnixMilli()},
				at(24), long, shown(answered, failed)),
			"|",
		)
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	lone := "no store gateway is known, and receivers b left their samples in blocks"
	f("served", 1, 9, append(live("a"), store), nil, "")
	f("nobody serves", 1, 9, live("a"), nil, lone)
	f("after it left", 6, 9, live("a"), nil, "")
	f("the gateway failed", 1, 9, live("a"), []failure{{"store s", store, errors.New("down")}},
		"store s did not answer: down")
	f("a Thanos store serves", 1, 9, append(live("a"), series.Info{Role: "store"}), nil, "")
}

func TestOthersComplete(t *testing.T) {
	down := errors.New("down")
	history := Membership{ReplicationFactor: 3,
		History: []ring.Incarnation{incarnation("a", "", 0, 0, false), incarnation("b", "", 0, 0, false),
			incarnation("c", "", 0, 0, false)}}
	store := func(name, bucket string) series.Info {
		return series.Info{Instance: name, Role: "store", Blocks: whole(bucket)}
	}
	f := func(ms Membership, answered []series.Info, failed []failure, want ...string) {
		t.Helper()
		got := assess(ms, timeRange{at(0).UnixMilli(), at(9).UnixMilli()}, at(24), long, shown(answered, failed))
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(Membership{}, nil, nil)
	f(Membership{}, live("a"), []failure{{"receive b", live("b")[0], down}}, "receive b did not answer: down")
	f(history, live("a", "c"), []failure{{"receive b", live("b")[0], down}})
	f(history, live("a", "b", "c"), []failure{{"receive x", live("x")[0], down}}, "receive x did not answer: down")
	f(history, live("a", "b", "c"), []failure{{"store s", store("s", ""), down}}, "store s did not answer: down")
	f(history, append(live("a", "b", "c"), store("t", "bucket")), []failure{{"store s", store("s", "bucket"), down}})
	f(history, append(live("a", "b", "c"), store("t", "other")), []failure{{"store s", store("s", "bucket"), down}},
		"store s did not answer: down")
}
