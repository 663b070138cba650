package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// asWritten are labels in the order of pairs, whatever is wrong with them.
func asWritten(pairs ...string) labels.Labels {
	var b labels.ScratchBuilder
	for i := 0; i < len(pairs); i += 2 {
		b.Add(pairs[i], pairs[i+1])
	}
	return b.Labels()
}

// makeOdd writes a local block of series that Prometheus would not take, each with samples at 1000 and 2000.
func makeOdd(t *testing.T, in ...labels.Labels) string {
	t.Helper()
	var all []rawSeries
	for _, ls := range in {
		all = append(all, rawSeries{ls, []chunks.Meta{{MinTime: 1000, MaxTime: 1000, Chunk: xor(t, 1000, 1)},
			{MinTime: 2000, MaxTime: 2000, Chunk: xor(t, 2000, 2)}}})
	}
	return writeBlock(t, all)
}

// TestOddSeries: a series that is not as it should be is put right, or left out with a warning that names it, and all
// others of the block are served.
func TestOddSeries(t *testing.T) {
	const first, last = `{__name__="a"} `, `{__name__="z"}`
	for name, f := range map[string]struct {
		odd  labels.Labels
		want string
	}{
		"unsorted labels":  {asWritten("__name__", "m", "z", "1", "b", "2"), first + `{__name__="m", b="2", z="1"} ` + last},
		"the name is last": {asWritten("z", "1", "__name__", "b"), first + `{__name__="b", z="1"} ` + last},
		"an empty value":   {asWritten("__name__", "m", "b", "", "c", "1"), first + `{__name__="m", c="1"} ` + last},
		"a name twice":     {asWritten("__name__", "m", "b", "1", "b", "2"), first + last + ` warning: block ID: skipped series with a label name that is there twice (1), such as {__name__="m", b="1", b="2"}`},
		"not UTF-8":        {asWritten("__name__", "m", "b", "\xff"), first + last + ` warning: block ID: skipped series with a label that is not UTF-8 (1), such as {__name__="m", b="\xff"}`},
		"a huge value":     {asWritten("__name__", "m", "b", strings.Repeat("x", 1<<20)), first + `{__name__="m", b="` + strings.Repeat("x", 1<<20) + `"} ` + last},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := inMemory(t)
			id := upload(t, bkt, makeOdd(t, asWritten("__name__", "a"), f.odd, asWritten("__name__", "z")), ring(team, "r1"))
			g := opened(t, bkt)
			got := strings.ReplaceAll(seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))), id.String(), "ID")
			if got != f.want {
				t.Errorf("got %.400s\nwant %.400s", got, f.want)
			}
			values, _, err := g.LabelValues(t.Context(), "__name__",
				ask(team, 0, 5000, match(labels.MatchNotEqual, "__name__", "q")))
			if err != nil || len(values) < 2 || values[0] != "a" || values[len(values)-1] != "z" {
				t.Errorf("values %q, %v", values, err)
			}
		})
	}
}

// TestFaultyMeta: what is in a block whose meta.json is faulty is not known, and answers that may need it say so,
// until it is marked for deletion. What meta.json says wrongly of things that are not needed changes nothing.
func TestFaultyMeta(t *testing.T) {
	bkt := inMemory(t)
	a, _ := twoBlocks(t, bkt)
	put := func(edit func(string) string) {
		damage(t, bkt, block.Object(a, block.MetaName), func(b []byte) []byte { return []byte(edit(string(b))) })
	}
	whole := seriesOf(t, opened(t, bkt).Select(t.Context(), ask(team, 0, 5000)))
	var good string
	put(func(s string) string { good = s; return s })
	for _, stats := range []string{`{"series_max_size": 1152921504606846976, "chunk_max_size": 1152921504606846976}`, `{"series_max_size": 1, "chunk_max_size": -1}`, `"none"`} {
		put(func(string) string {
			return strings.Replace(good, `"index_stats": {`, `"index_stats": `+stats+`, "was": {`, 1)
		})
		if got := seriesOf(t, opened(t, bkt).Select(t.Context(), ask(team, 0, 5000))); got != whole {
			t.Errorf("index_stats %s: %s", stats, got)
		}
	}
	for _, size := range []string{"1", "10", "1152921504606846976"} {
		put(func(string) string {
			at := strings.Index(good, `"rel_path": "chunks/000001"`)
			head, tail, _ := strings.Cut(good[at:], `"size_bytes": `)
			return good[:at] + head + `"size_bytes": ` + size + tail[strings.IndexAny(tail, ",\n"):]
		})
		if got := seriesOf(t, opened(t, bkt).Select(t.Context(), ask(team, 0, 5000))); got != whole {
			t.Errorf("size %s: %s", size, got)
		}
	}

	put(func(string) string { return good[:len(good)/2] })
	passed := uploading
	f := func(mint, maxt int64, warned bool) {
		t.Helper()
		now := a.Timestamp().Add(passed) // the gateway goes on to look at the bucket
		later := func(o *Options) { o.Now = func() time.Time { return now } }
		got := seriesOf(t, opened(t, bkt, later).Select(t.Context(), ask(team, mint, maxt)))
		if strings.Contains(got, "warning: block "+a.String()+" cannot be read: ") != warned ||
			mint == 0 && !strings.HasPrefix(got, goodPart) {
			t.Errorf("%d to %d: %s", mint, maxt, got)
		}
	}
	f(0, 5000, true)
	passed = uploading - time.Millisecond // it may be on its way
	f(0, 5000, false)
	passed = uploading
	future := time.Now().Add(24 * time.Hour).UnixMilli()
	f(future, future+1000, false)
	if err := bkt.Upload(t.Context(), block.Object(a, block.DeletionMarkName), strings.NewReader("{")); err != nil {
		t.Fatal(err)
	}
	f(0, 5000, true)
	mark := fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":1}`, a)
	if err := bkt.Upload(t.Context(), block.Object(a, block.DeletionMarkName), strings.NewReader(mark)); err != nil {
		t.Fatal(err)
	}
	f(0, 5000, false)
}

// TestLabelValuesByPostings compares the values with those that the selected series have.
func TestLabelValuesByPostings(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	bkt := inMemory(t)
	for range 3 {
		upload(t, bkt, makeBlock(t, randomSeries(rnd, 60, 0, 10_000)),
			map[string]string{"tenant_id": string(team), "cluster": "c"})
	}
	g := opened(t, bkt)
	names, _, err := g.LabelNames(t.Context(), ask(team, 0, 10_000))
	if err != nil || len(names) < 3 {
		t.Fatalf("%q, %v", names, err)
	}
	for range 200 {
		r := ask(team, 0, 10_000, randomMatchers(rnd)...)
		name := names[rnd.IntN(len(names))]
		want := map[string]bool{}
		set := g.Select(t.Context(), r)
		for set.Next() {
			if v := set.At().Labels.Get(name); v != "" {
				want[v] = true
			}
		}
		if set.Err() != nil || set.Close() != nil {
			t.Fatal(set.Err())
		}
		got, w, err := g.LabelValues(t.Context(), name, r)
		if err != nil || len(w) > 0 || !slices.Equal(got, sorted(want, 0)) {
			t.Fatalf("%s of %v: got %q, want %q; %q, %v", name, r.Matchers, got, sorted(want, 0), w, err)
		}
	}
}

// BenchmarkLabelValues asks for the values of a label of the series that a matcher selects, half of 20,000: by
// LabelValues, and by reading the series.
func BenchmarkLabelValues(b *testing.B) {
	var in []sourcetest.Series
	for i := range 20_000 {
		in = append(in, sourcetest.Series{
			Labels: labels.FromStrings("__name__", "up", "instance", fmt.Sprintf("i%05d", i), "job", fmt.Sprint("j", i%10),
				"zone", fmt.Sprint("z", i%2)),
			Samples: []sourcetest.Sample{{T: 1000, V: 1}},
		})
	}
	bkt := onDisk(b)
	upload(b, bkt, makeBlock(b, in), ring(team, "r1"))
	g := opened(b, bkt)
	r := ask(team, 0, 5000, match(labels.MatchEqual, "zone", "z1"))
	b.Run("values", func(b *testing.B) {
		for b.Loop() {
			if found, _, err := g.LabelValues(b.Context(), "job", r); err != nil || len(found) != 5 {
				b.Fatalf("%q, %v", found, err)
			}
		}
	})
	b.Run("series", func(b *testing.B) {
		for b.Loop() {
			of := *r
			of.SkipChunks = true
			set := g.Select(b.Context(), &of)
			found := map[string]bool{}
			for set.Next() {
				found[set.At().Labels.Get("job")] = true
			}
			if err := set.Close(); err != nil || len(found) != 5 {
				b.Fatalf("%v, %v", found, err)
			}
		}
	})
}
