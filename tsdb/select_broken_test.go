package tsdb

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// TestBlocksOfBrokenTenant spoils one of three blocks. The others are read, and the answer says that it is not whole.
func TestBlocksOfBrokenTenant(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	start := time.Now().Add(-time.Hour).UnixMilli()
	at := func(i int) int64 { return start + int64(i)*60_000 }
	for i := range 3 {
		for j := range 2 {
			put(t, d, team, labels.FromStrings("__name__", "m", "i", fmt.Sprint(j)), float64(at(i)), float64(i))
		}
		put(t, d, team, labels.FromStrings("__name__", "n", "i", fmt.Sprint(i)), float64(at(i)), 1)
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, d, "other", labels.FromStrings("a", "b"), float64(start), 1)
	put(t, d, team, labels.FromStrings("__name__", "m", "i", "0"), float64(at(10)), 1) // in the head
	blocks, err := d.Blocks(team)
	if err != nil || len(blocks) != 3 {
		t.Fatalf("%d blocks %v", len(blocks), err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(blocks[1].Dir, "index"), 50); err != nil {
		t.Fatal(err)
	}
	breakLog(t, d.TenantDir(team))
	d = openDB(t, o)
	if st := d.Status()[1]; st.State != Broken {
		t.Fatalf("status %+v", st)
	}
	f := func(r *series.Request, want string) {
		t.Helper()
		set := d.Select(t.Context(), r)
		defer set.Close()
		got := ""
		for set.Next() {
			s := set.At()
			got += s.Labels.String() + fmt.Sprint(points(t, s))
		}
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		if errs.KindOf(set.Err()) != errs.Unavailable {
			t.Fatalf("the answer claims to be whole: %v", set.Err())
		}
	}
	m := labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")
	two := func(i int) string { return fmt.Sprintf(`{__name__="m", i="%d"}[{%d 0} {%d 2}]`, i, at(0), at(2)) }
	f(request(team, 0, 1<<60, m), two(0)+two(1))
	f(request(team, at(2), 1<<60, m),
		fmt.Sprintf(`{__name__="m", i="0"}[{%d 2}]{__name__="m", i="1"}[{%d 2}]`, at(2), at(2)))
	f(request(team, at(1), at(1), m), "")
	names := request(team, 0, 1<<60)
	names.SkipChunks = true
	f(names, `{__name__="m", i="0"}[]{__name__="m", i="1"}[]{__name__="n", i="0"}[]{__name__="n", i="2"}[]`)
	limited := request(team, 0, 1<<60)
	limited.Limit = 1
	set := d.Select(t.Context(), limited)
	defer set.Close()
	if !set.Next() || set.Next() {
		t.Fatal("the limit is not kept to")
	}
	if got := read(t, d, "other"); len(got) != 1 {
		t.Fatalf("the other tenant: %v", got)
	}
}

// TestOverlapOfBrokenTenant reads blocks that overlap, of which later ones have older samples: none is missing.
func TestOverlapOfBrokenTenant(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	start := time.Now().Add(-time.Hour).UnixMilli()
	for _, part := range []int{3, 0, 1, 2} {
		var tv []float64
		for i := part; i < 200; i += 4 {
			tv = append(tv, float64(start+int64(i)*10_000), float64(i))
		}
		put(t, d, team, labels.FromStrings("a", "b"), tv...)
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	breakLog(t, d.TenantDir(team))
	d = openDB(t, o)
	if n, err := selected(t, d, team, 0, math.MaxInt64); n != 200 || errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("%d samples, want 200; %v", n, err)
	}
}
