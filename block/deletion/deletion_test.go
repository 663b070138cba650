package deletion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var (
	asked = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	due   = asked.Add(24 * time.Hour)
	undo  = due.Add(-10 * time.Minute)
)

// madeAt is an id of that time.
func madeAt(at time.Time, n int) ulid.ULID {
	id := ulid.ULID{}
	_ = id.SetTime(ulid.Timestamp(at))
	id[15] = byte(n)
	return id
}

func entry() *Entry { return &Entry{Request: New("acme", asked, 24*time.Hour)} }

// TestStates is the state machine: each moment of a request, with each of the objects that may come later, whenever
// they were made and seen.
func TestStates(t *testing.T) {
	at := func(when time.Time) *Change { return &Change{At: when.UnixMilli()} }
	broken := errors.New("broken")
	f := func(name string, undone, renewed *Change, fault error, now time.Time, want State, takesOld, takesNew,
		writes bool) {
		t.Helper()
		e := entry()
		e.Undo, e.Renewal, e.Fault = undone, renewed, fault
		l := NewList([]*Entry{e}, nil)
		state := e.State(now)
		old, young := asked.Add(-time.Hour), due.Add(48*time.Hour)
		gotOld, gotNew := l.Takes("acme", old, now) != nil, l.Takes("acme", young, now) != nil
		gotWrites := l.Refusal("acme", now) == nil
		if state != want || gotOld != takesOld || gotNew != takesNew || gotWrites != writes {
			t.Errorf("%s: %s, takes old data %v, new data %v, takes writes %v", name, state, gotOld, gotNew, gotWrites)
		}
		if unknown := l.Takes("acme", time.Time{}, now) != nil; unknown != takesOld {
			t.Errorf("%s: takes what was made nobody knows when: %v", name, unknown)
		}
		if l.Takes("other", old, now) != nil || l.Refusal("other", now) != nil {
			t.Errorf("%s: another tenant", name)
		}
		if err := l.Refusal("acme", now); err != nil && (errs.KindOf(err) != errs.Invalid ||
			!strings.Contains(err.Error(), e.ID.String()) || !strings.Contains(err.Error(), `"acme"`)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	const no, yes = false, true
	f("asked", nil, nil, nil, asked, Waiting, no, no, no)
	f("a clock behind", nil, nil, nil, asked.Add(-time.Hour), Waiting, no, no, no)
	f("just before", nil, nil, nil, due.Add(-time.Millisecond), Waiting, no, no, no)
	f("due", nil, nil, nil, due, Due, yes, yes, no)
	f("for ever", nil, nil, nil, due.AddDate(50, 0, 0), Due, yes, yes, no)
	f("undone", at(asked.Add(time.Hour)), nil, nil, asked.Add(2*time.Hour), Undone, no, no, yes)
	f("undone, later", at(asked.Add(time.Hour)), nil, nil, due.Add(time.Hour), Undone, no, no, yes)
	f("undone at the last moment, seen after it was due", at(undo), nil, nil, due, Undone, no, no, yes)
	f("undone too late", at(undo.Add(time.Millisecond)), nil, nil, due.Add(-time.Second), Waiting, no, no, no)
	f("undone too late, and due", at(undo.Add(time.Millisecond)), nil, nil, due, Due, yes, yes, no)
	f("renewed", nil, at(due.Add(24*time.Hour)), nil, due.Add(72*time.Hour), Renewed, yes, no, yes)
	f("renewed before it was due", nil, at(asked.Add(time.Hour)), nil, asked.Add(2*time.Hour), Waiting, no, no, no)
	f("renewed before it was due, and due", nil, at(asked.Add(time.Hour)), nil, due, Due, yes, yes, no)
	f("renewed before it was due, later", nil, at(asked.Add(time.Hour)), nil, due.Add(time.Second), Renewed, yes, no, yes)
	f("renewed by a clock that is ahead", nil, at(due.Add(time.Hour)), nil, due.Add(time.Hour+time.Second-1), Due, yes, yes, no)
	f("and a second later", nil, at(due.Add(time.Hour)), nil, due.Add(time.Hour+time.Second), Renewed, yes, no, yes)
	f("undone and renewed", at(asked.Add(time.Hour)), at(due.Add(time.Hour)), nil, due.Add(2*time.Hour), Undone, no, no, yes)
	f("an undo that cannot be read", nil, nil, broken, asked.Add(time.Hour), Held, no, no, no)
	f("an undo that cannot be read, and due", nil, nil, broken, due.Add(time.Hour), Held, no, no, no)
	f("a renewal that cannot be read", at(undo.Add(time.Second)), nil, broken, due.Add(time.Hour), Held, no, no, no)
	f("undone, and a renewal that cannot be read", at(asked), nil, broken, due.Add(time.Hour), Undone, no, no, yes)
	if l := (*List)(nil); l.Refusal("acme", due) != nil || l.Takes("acme", asked, due) != nil || len(l.Entries()) != 0 ||
		l.Tenants() != nil || l.Unreadable() != nil {
		t.Error("no list")
	}
}

// TestTwoRequests: a tenant that was made anew is deleted once more.
func TestTwoRequests(t *testing.T) {
	first, second := entry(), &Entry{Request: New("acme", due.Add(48*time.Hour), time.Hour)}
	first.Renewal = &Change{At: due.Add(time.Hour).UnixMilli()}
	l := NewList([]*Entry{second, first}, nil)
	f := func(now, made time.Time, takes, writes bool) {
		t.Helper()
		if got := l.Takes("acme", made, now) != nil; got != takes || (l.Refusal("acme", now) == nil) != writes {
			t.Errorf("at %s, made %s: %v", now, made, got)
		}
	}
	f(due.Add(2*time.Hour), asked, true, false) // the second one is here, and its time comes
	f(due.Add(48*time.Hour), due.Add(2*time.Hour), false, false)
	f(due.Add(49*time.Hour), due.Add(2*time.Hour), true, false)
	if got := l.Count(due.Add(50 * time.Hour)); got[Due] != 1 || got[Renewed] != 1 {
		t.Error(got)
	}
	if l.Entries()[0] != first {
		t.Error("not in order")
	}
}

// TestBlocks: which blocks a request takes, with and without confirmed ones.
func TestBlocks(t *testing.T) {
	now := due.Add(time.Hour)
	before := func(hours, n int) ulid.ULID { return madeAt(asked.Add(-time.Duration(hours)*time.Hour), n) }
	a, b, c := before(50, 1), before(40, 2), before(30, 3)
	late := madeAt(asked.Add(time.Minute), 4)
	merged := madeAt(asked.Add(-40*time.Hour), 9)
	f := func(name string, e *Entry, blk Block, want bool) {
		t.Helper()
		if got := NewList([]*Entry{e}, nil).TakesBlock(e.Tenant, blk, now) != nil; got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	all := entry()
	f("any block", all, Block{ID: a, Sources: []ulid.ULID{a}}, true)
	f("any upload", all, Block{ID: late}, true)
	renewed := entry()
	renewed.Renewal = &Change{At: due.Add(30 * time.Minute).UnixMilli()}
	f("shipped again", renewed, Block{ID: a, Sources: []ulid.ULID{a}, Ours: true}, true)
	f("of the new tenant", renewed, Block{ID: madeAt(due.Add(31*time.Minute), 1), Ours: true}, false)
	again := Block{ID: madeAt(due.Add(31*time.Minute), 1), Sources: []ulid.ULID{a}, Ours: true}
	f("an old block, written again", renewed, again, true)
	some := entry()
	some.Confirmed = &Confirmed{Blocks: []ulid.ULID{a, merged}, Sources: []ulid.ULID{a, b, merged}}
	f("confirmed", some, Block{ID: a, Sources: []ulid.ULID{a}}, true)
	f("confirmed, made of others", some, Block{ID: merged, Sources: []ulid.ULID{b}}, true)
	f("made of confirmed ones", some, Block{ID: madeAt(now, 7), Sources: []ulid.ULID{a, b}, Ours: true}, true)
	f("a part of a confirmed one", some, Block{ID: b, Sources: []ulid.ULID{b}}, true)
	f("not confirmed", some, Block{ID: c, Sources: []ulid.ULID{c}, Ours: true}, false)
	f("made of one that is not confirmed", some, Block{ID: madeAt(now, 7), Sources: []ulid.ULID{a, c}, Ours: true}, false)
	f("of a receiver, since", some, Block{ID: late, Sources: []ulid.ULID{late}, Ours: true}, true)
	f("merged with one of a receiver", some, Block{ID: madeAt(now, 7), Sources: []ulid.ULID{a, late}, Ours: true}, true)
	f("uploaded since", some, Block{ID: late, Sources: []ulid.ULID{late}}, false)
	none := entry()
	none.Confirmed = &Confirmed{}
	f("nothing was there", none, Block{ID: a, Ours: true}, false)
}

// TestDecode: what is not exactly a request deletes nothing.
func TestDecode(t *testing.T) {
	r := New("acme", asked, time.Hour)
	r.By, r.Tool = "me", "test"
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if got, err := parseRequest(raw, r.ID); err != nil || got != r {
		t.Fatalf("%+v, %v", got, err)
	}
	f := func(name, text string, kind errs.Kind) {
		t.Helper()
		if _, err := parseRequest([]byte(text), r.ID); errs.KindOf(err) != kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("spaces", strings.ReplaceAll(text, ",", " ,\n"), errs.OK)
	f("nothing", "", errs.Invalid)
	f("cut short", text[:len(text)-1], errs.Invalid)
	f("null", "null", errs.Invalid)
	f("an array", "["+text+"]", errs.Invalid)
	f("two objects", text+text, errs.Invalid)
	f("something behind it", text+"x", errs.Invalid)
	f("a field of a later version that may limit it", strings.Replace(text, "{", `{"matchers":["a"],`, 1), errs.Invalid)
	f("a field twice", strings.Replace(text, "{", `{"tenant":"other",`, 1), errs.Invalid)
	f("a field in another case", strings.Replace(text, "{", `{"Tenant":"other",`, 1), errs.Invalid)
	f("a field that folds", strings.Replace(text, "{", `{"aſked":1,`, 1), errs.Invalid)
	f("a later version", strings.Replace(text, `"version":1`, `"version":2`, 1), errs.Unsupported)
	f("no version", strings.Replace(text, `"version":1,`, ``, 1), errs.Unsupported)
	f("another kind", strings.Replace(text, `"tenant",`, `"thing",`, 1), errs.Unsupported)
	f("series without any", strings.Replace(text, `"tenant",`, `"series",`, 1), errs.Invalid)
	f("no kind", strings.Replace(text, `"kind":"tenant",`, ``, 1), errs.Unsupported)
	f("no tenant", strings.Replace(text, `"acme"`, `""`, 1), errs.Invalid)
	f("a tenant that is a path", strings.Replace(text, `"acme"`, `"../x"`, 1), errs.Invalid)
	f("a pattern", strings.Replace(text, `"acme"`, `"acme|b"`, 1), errs.Invalid)
	f("the default tenant", strings.Replace(text, `"acme"`, `"default-tenant"`, 1), errs.Invalid)
	f("another id", strings.Replace(text, r.ID.String(), madeAt(asked, 3).String(), 1), errs.Invalid)
	f("due before it was asked", strings.Replace(text, fmt.Sprint(r.Due), "1", 1), errs.Invalid)
	f("never due", strings.Replace(text, fmt.Sprint(r.Due), fmt.Sprint(r.Due*1000), 1), errs.Invalid)
	f("a time that is no number", strings.Replace(text, fmt.Sprint(r.Due), `1e400`, 1), errs.Invalid)
	f("a long text", strings.Replace(text, `"me"`, `"`+strings.Repeat("x", 1001)+`"`, 1), errs.Invalid)
	f("nested", strings.Replace(text, "{", `{"confirmed":`+strings.Repeat("[", 1e5)+",", 1), errs.Invalid)
	f("blocks in disorder", strings.Replace(text, "{", `{"confirmed":{"blocks":["`+madeAt(asked, 2).String()+`","`+
		madeAt(asked, 1).String()+`"],"sources":[]},`, 1), errs.Invalid)
	f("huge", text+strings.Repeat(" ", maxObject), errs.Invalid)
	c := NewChange(r.ID, asked)
	raw, _ = json.Marshal(c)
	if got, err := parseChange(raw, r.ID); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"version":1,"id":"` + r.ID.String() + `","at":0,"by":"","tool":""}`, string(raw) + "]"} {
		if _, err := parseChange([]byte(bad), r.ID); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := New("acme", asked, time.Hour)
	r.Confirmed = &Confirmed{Blocks: []ulid.ULID{madeAt(asked, 1)}, Sources: []ulid.ULID{}}
	raw, _ := json.Marshal(r)
	f.Add(raw)
	raw, _ = json.Marshal(NewChange(r.ID, asked))
	f.Add(raw)
	ofSeries, _ := NewSeries("acme", Series{Selectors: []string{`{a=~"b.*"}`}, MaxTime: 5}, asked, time.Hour)
	ofSeries.ID = r.ID
	raw, _ = json.Marshal(ofSeries)
	f.Add(raw)
	f.Add([]byte(`{"version":1,"tenant":"a","tenant":"b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := parseRequest(b, r.ID); err == nil {
			again, err := json.Marshal(got)
			wide := got.Kind == KindTenant && (got.Series != nil || got.Tenant == tenant.Default && got.Confirmed == nil) ||
				got.Kind == KindSeries && (got.Series == nil || len(got.Series.Matchers()) == 0 || got.Series.MaxTime > got.Asked)
			if err != nil || got.Validate() != nil || wide {
				t.Fatalf("%+v, %v", got, err)
			}
			if second, err := parseRequest(again, r.ID); err != nil || second.Tenant != got.Tenant || second.Due != got.Due {
				t.Fatalf("%+v, %v", second, err)
			}
		}
		if got, err := parseChange(b, r.ID); err == nil && (got.At <= 0 || got.ID != r.ID) {
			t.Fatalf("%+v", got)
		}
	})
}

// counted counts the reads of a bucket, and fails some.
type counted struct {
	objstore.Bucket
	gets, lists int
	fails       string // reads of objects that have this in their name
	hides       string // listings do not have such objects
}

func (c *counted) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	c.gets++
	if c.fails != "" && strings.Contains(name, c.fails) {
		return nil, errors.New("injected")
	}
	return c.Bucket.Get(ctx, name)
}

func (c *counted) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	c.lists++
	if c.fails == "list" {
		return errors.New("injected")
	}
	return c.Bucket.Iter(ctx, dir, func(name string) error {
		if c.hides != "" && strings.Contains(name, c.hides) {
			return nil
		}
		return f(name)
	}, o...)
}

// TestReader: one listing for each look, each object is read once, and nothing that goes wrong deletes more.
func TestReader(t *testing.T) {
	bkt := &counted{Bucket: objstore.NewInMemBucket()}
	r := NewReader(bkt)
	read := func(gets int) *List {
		t.Helper()
		bkt.gets, bkt.lists = 0, 0
		l, err := r.Read(t.Context())
		if err != nil || bkt.lists != 1 || bkt.gets != gets {
			t.Fatalf("%d listings, %d reads, %v", bkt.lists, bkt.gets, err)
		}
		return l
	}
	state := func(l *List, now time.Time) State { t.Helper(); return l.Entries()[0].State(now) }
	if l := read(0); len(l.Entries()) != 0 {
		t.Error("an empty bucket")
	}
	q := New("acme", asked, 24*time.Hour)
	if err := Put(t.Context(), bkt, q); err != nil {
		t.Fatal(err)
	}
	if err := Put(t.Context(), bkt, q); errs.KindOf(err) != errs.Conflict {
		t.Errorf("written twice: %v", err)
	}
	for _, odd := range []string{"readme.txt", "clock/a.json", q.ID.String() + "-other.json", strings.ToLower(q.ID.String()) + ".json"} {
		put1(t, bkt, Folder+odd, "{}")
	}
	if l := read(1); state(l, due) != Due || len(l.Unreadable()) != 0 {
		t.Errorf("%v", l.Unreadable())
	}
	read(0)
	// A failed read of an undo holds the request; when it is read it counts.
	c := NewChange(q.ID, asked.Add(time.Hour))
	if err := PutUndo(t.Context(), bkt, c); err != nil {
		t.Fatal(err)
	}
	bkt.fails = "undo"
	if l := read(1); state(l, due) != Held || len(l.Unreadable()) != 1 {
		t.Errorf("%s, %v", state(l, due), l.Unreadable())
	}
	bkt.fails = ""
	if l := read(1); state(l, due) != Undone {
		t.Error(state(l, due))
	}
	// A listing that lacks it, and a listing that fails, change nothing.
	bkt.hides = "undo"
	if l := read(0); state(l, due) != Undone {
		t.Error(state(l, due))
	}
	bkt.hides, bkt.fails = "", "list"
	if _, err := r.Read(t.Context()); errs.KindOf(err) != errs.Unavailable {
		t.Error(err)
	}
	bkt.fails = ""
	// A request without its object, which somebody removed, has no effect.
	bkt.hides = q.ID.String() + ".json"
	if l := read(0); len(l.Entries()) != 0 {
		t.Error("removed")
	}
	bkt.hides = ""
	if l := read(2); state(l, due) != Undone {
		t.Error("again")
	}
	// Faulty objects have no effect, and are read again in case that they were being written.
	other := New("other", asked, time.Hour)
	put1(t, bkt, nameOf(other.ID, requestEnd), `{"version":1,`)
	if l := read(1); len(l.Entries()) != 1 || len(l.Unreadable()) != 1 {
		t.Error("faulty")
	}
	raw, _ := json.Marshal(other)
	put1(t, bkt, nameOf(other.ID, requestEnd), string(raw))
	if l := read(1); len(l.Entries()) != 2 || len(l.Unreadable()) != 0 {
		t.Error("repaired")
	}
	put1(t, bkt, nameOf(other.ID, renewalEnd), "")
	if l := read(1); l.Of("other")[0].State(due) != Held {
		t.Error("a renewal that cannot be read")
	}
	// Too many.
	for i := range maxObjects + 5 {
		put1(t, bkt, Folder+madeAt(time.UnixMilli(int64(i)), 1).String()+".json", "x")
	}
	l, err := NewReader(bkt).Read(t.Context())
	if err != nil || l.Unreadable()[Folder] == nil || len(l.Entries()) != 0 {
		t.Errorf("%v", err)
	}
}

func put1(t *testing.T, bkt objstore.Bucket, name, text string) {
	t.Helper()
	if err := bkt.Upload(t.Context(), name, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}
