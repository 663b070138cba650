package deletion

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// someSeries is a request for samples of the day before it was asked.
func someSeries(t testing.TB, id tenant.ID, selectors ...string) Request {
	t.Helper()
	r, err := NewSeries(id, Series{Selectors: selectors, MinTime: asked.Add(-24 * time.Hour).UnixMilli(),
		MaxTime: asked.UnixMilli()}, asked, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSeriesStates: a request for series hides at once, deletes once it is due, and touches neither writes nor blocks.
func TestSeriesStates(t *testing.T) {
	at := func(when time.Time) *Change { return &Change{At: when.UnixMilli()} }
	f := func(name string, undone, ended *Change, fault error, now time.Time, want State, hides, erases bool) {
		t.Helper()
		e := &Entry{Request: someSeries(t, "acme", `{a="b"}`), Undo: undone, Renewal: ended, Fault: fault}
		l := NewList([]*Entry{e}, nil)
		mint, maxt := e.Series.MinTime, e.Series.MaxTime
		if got := e.State(now); got != want || (l.Hidden("acme", mint, mint, now) != nil) != hides ||
			(l.Erased("acme", maxt, maxt+1, now) != nil) != erases || l.CountSeries(now)[want] != 1 {
			t.Errorf("%s: %s", name, got)
		}
		for _, none := range [][]*Entry{l.Hidden("other", mint, maxt, now), l.Hidden("acme", maxt+1, maxt+2, now),
			l.Hidden("acme", mint-2, mint-1, now), l.Erased("other", mint, maxt, now), l.Entries(), l.Of("acme")} {
			if none != nil {
				t.Errorf("%s: %v", name, none)
			}
		}
		if l.Refusal("acme", now) != nil || l.Takes("acme", asked.Add(-time.Hour), now) != nil ||
			l.TakesBlock("acme", Block{ID: madeAt(asked, 1)}, now) != nil || l.Tenants() != nil {
			t.Errorf("%s: it is taken for a tenant's", name)
		}
	}
	const no, yes = false, true
	f("asked", nil, nil, nil, asked, Waiting, yes, no)
	f("due", nil, nil, nil, due, Due, yes, yes)
	f("for ever", nil, nil, nil, due.AddDate(50, 0, 0), Due, yes, yes)
	f("undone", at(asked.Add(time.Hour)), nil, nil, due, Undone, no, no)
	f("undone too late", at(undo.Add(time.Millisecond)), nil, nil, due, Due, yes, yes)
	f("ended", nil, at(due.Add(time.Hour)), nil, due.Add(2*time.Hour), Ended, no, no)
	f("ended, and the clock is behind", nil, at(due.Add(time.Hour)), nil, due.Add(time.Minute), Due, yes, yes)
	f("an end before it was due", nil, at(asked), nil, due, Due, yes, yes)
	f("an undo that cannot be read", nil, nil, errs.E(errs.Invalid, "x"), due, Held, yes, no)
	var none *List
	if none.Hidden("acme", 0, 1, due) != nil || none.SeriesRequests() != nil || none.SeriesTenants() != nil {
		t.Error("no list")
	}
}

// TestSeriesDecode: what is not exactly a request for series hides and deletes nothing.
func TestSeriesDecode(t *testing.T) {
	r := someSeries(t, tenant.Default, `{a="b"}`, `up{c=~"d.*"}`)
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	got, err := parseRequest(raw, r.ID)
	if err != nil || len(got.Series.Matchers()) != 2 || len(got.Series.Matchers()[1]) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	f := func(name, old, new string, kind errs.Kind) {
		t.Helper()
		changed := strings.Replace(text, old, new, 1)
		if _, err := parseRequest([]byte(changed), r.ID); changed == text || errs.KindOf(err) != kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	selectors := `["{a=\"b\"}","up{c=~\"d.*\"}"]`
	list := func(n int, one string) string { return "[" + strings.Repeat(one+",", n-1) + one + "]" }
	f("of a tenant", `"kind":"series"`, `"kind":"tenant"`, errs.Invalid)
	f("without series", `"series":{`, `"confirmed":{`, errs.Invalid)
	f("no selector", selectors, `[]`, errs.Invalid)
	f("null", selectors, `null`, errs.Invalid)
	f("an empty selector", selectors, `[""]`, errs.Invalid)
	f("all series, by mistake", selectors, `["{}"]`, errs.Invalid)
	f("also a label that is absent", selectors, `["{a=\"\"}"]`, errs.Invalid)
	f("all series", selectors, `["{__name__=~\".+\"}"]`, errs.OK)
	f("no selector but an expression", selectors, `["sum(up)"]`, errs.Invalid)
	f("a broken pattern", selectors, `["{a=~\"(\"}"]`, errs.Invalid)
	f("a large pattern", selectors, `["{a=~\"`+strings.Repeat("x{1000}", 200)+`\"}"]`, errs.TooLarge)
	f("many selectors", selectors, list(17, `"a"`), errs.TooLarge)
	f("many matchers", selectors, list(16, `"{a=\"1\",b=\"1\",c=\"1\",d=\"1\",e=\"1\"}"`), errs.TooLarge)
	f("much text", selectors, `["{a=\"`+strings.Repeat("x", maxSelectorText)+`\"}"]`, errs.TooLarge)
	f("a field more", `"series":{`, `"series":{"not":1,`, errs.Invalid)
	f("a field twice", `"series":{`, `"series":{"mint":1,`, errs.Invalid)
	f("ends before it begins", fmt.Sprint(`"mint":`, r.Series.MinTime), fmt.Sprint(`"mint":`, r.Asked+1), errs.Invalid)
	f("ends in the future", fmt.Sprint(`"maxt":`, r.Series.MaxTime), fmt.Sprint(`"maxt":`, r.Asked+1), errs.Invalid)
	f("a time that is no number", fmt.Sprint(`"maxt":`, r.Series.MaxTime), `"maxt":1e400`, errs.Invalid)

	future, err := NewSeries("acme", Series{Selectors: []string{"up"}, MaxTime: due.UnixMilli()}, asked, time.Hour)
	if err != nil || future.Series.MaxTime != asked.UnixMilli() {
		t.Errorf("%+v, %v", future, err)
	}
}

// TestTooManySeriesRequests: the oldest ones that are in effect count, and the list says which others do not.
func TestTooManySeriesRequests(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	for i := range MaxSeriesRequests + 3 {
		r := someSeries(t, "acme", fmt.Sprintf(`{i="%d"}`, i))
		r.ID = madeAt(asked.Add(time.Duration(i)*time.Second), 1)
		if err := Put(t.Context(), bkt, r); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // undone: it does not count
			if err := PutUndo(t.Context(), bkt, NewChange(r.ID, asked)); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := someSeries(t, "other", `{i="0"}`)
	if err := Put(t.Context(), bkt, other); err != nil {
		t.Fatal(err)
	}
	l, err := NewReader(bkt).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hidden := l.Hidden("acme", 0, asked.UnixMilli(), asked)
	if len(hidden) != MaxSeriesRequests || hidden[0].Series.Selectors[0] != `{i="1"}` || len(l.Unreadable()) != 2 ||
		errs.KindOf(l.Fault()) != errs.Exhausted || len(l.Hidden("other", 0, asked.UnixMilli(), asked)) != 1 ||
		len(l.SeriesTenants()) != 2 {
		t.Errorf("%d hide, %v", len(hidden), l.Fault())
	}
}
