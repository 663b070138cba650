package ship

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func id(i int) ulid.ULID {
	return ulid.MustNew(uint64(1_700_000_000_000+i*1000), strings.NewReader("0123456789"))
}

// TestLedger is a life of a directory: which blocks are tried, in which order, after what happened.
func TestLedger(t *testing.T) {
	l := &ledger{uploaded: map[ulid.ULID]time.Time{id(0): {}, id(9): {}}}
	var todo []*pending
	update := func(want string, ids ...int) {
		t.Helper()
		var blocks []Block
		for _, i := range ids {
			blocks = append(blocks, Block{ID: id(i)})
		}
		todo = l.update(blocks)
		var got []string
		for _, p := range todo {
			got = append(got, fmt.Sprint(int(p.ID.Time()-1_700_000_000_000)/1000))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("to do: %s, want %s", s, want)
		}
	}
	status := func(pending, oldest int) {
		t.Helper()
		want := Status{Pending: pending}
		if pending > 0 {
			want.Oldest = id(oldest).Timestamp()
		}
		if got := l.status(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	update("1 2 3", 0, 1, 2, 3)
	status(3, 1)
	if len(l.uploaded) != 1 {
		t.Errorf("a block that is gone counts as uploaded: %v", l.uploaded)
	}
	todo[0].failed++ // the bucket did not take block 1
	update("2 3 1", 0, 1, 2, 3)
	if all := l.done(id(2), time.Time{}); len(all) != 2 || all[0] != id(0) || all[1] != id(2) {
		t.Errorf("in the bucket: %v", all)
	}
	status(2, 1)
	update("3 4 1", 0, 1, 2, 3, 4)
	update("3 4", 2, 3, 4) // block 1 was deleted
	status(2, 3)
	update("")
	status(0, 0)
	update("2", 2) // a name that comes again is another block
}

// TestPass: what each outcome means for what follows.
func TestPass(t *testing.T) {
	now, retry := time.Unix(1000, 0), time.Second
	f := func(outcomes string, dark, refused bool) {
		t.Helper()
		var p pass
		for _, o := range outcomes {
			b := &pending{}
			err := map[rune]error{'o': nil, 'i': errs.E(errs.Invalid, "x"), 'u': errs.E(errs.Unavailable, "x"),
				'l': errs.E(errs.Internal, "x")}[o]
			p.note(b, err, now, retry)
			if waits := b.wait.waits(now); waits != (o == 'i') {
				t.Errorf("%c: waits %v", o, waits)
			}
			if (b.failed > 0) != (o == 'u' || o == 'l') {
				t.Errorf("%c: failed %d times", o, b.failed)
			}
		}
		if p.dark != dark || p.refused() != refused {
			t.Errorf("%q: dark %v, refused %v", outcomes, p.dark, p.refused())
		}
	}
	f("", false, false)
	f("oo", false, false)
	f("ii", false, false) // faulty blocks are no fault of the bucket
	f("iu", true, true)
	f("ou", true, false)
	f("l", true, true)
}

func TestBackoff(t *testing.T) {
	now, b := time.Unix(1000, 0), backoff{}
	if b.waits(now) {
		t.Error("waits without a failure")
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 32, 32} {
		b.failed(now, time.Second)
		if end := now.Add(want * time.Second); !b.waits(end.Add(-1)) || b.waits(end) {
			t.Errorf("waits until %s, want %s", b.retryAt, end)
		}
	}
}

func TestStatusWith(t *testing.T) {
	at := func(s int64) Status { return Status{1, time.Unix(s, 0)} }
	f := func(want Status, all ...Status) {
		t.Helper()
		var sum Status
		for _, s := range all {
			sum = sum.with(s)
		}
		if sum != want {
			t.Errorf("%v: %v, want %v", all, sum, want)
		}
	}
	f(Status{})
	f(Status{}, Status{}, Status{})
	f(Status{3, time.Unix(5, 0)}, at(7), Status{}, at(5), at(6))
}
