package rewrite

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

func bucketAt(t *testing.T, dir string) objstore.Bucket {
	t.Helper()
	bkt, err := filesystem.NewBucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	return bkt
}

func rulesOf(t *testing.T, text string) (out []*relabel.Config) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	for _, rule := range out {
		if err := rule.Validate(model.UTF8Validation); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// small makes many runs out of a random block.
func small(t *testing.T) Options { return Options{Dir: t.TempDir(), Memory: 3 * 64 << 10, Hash: true} }

// TestRandom: random selectors of all types and relabelling rules leave what a plain map of samples says, in a block
// that Prometheus reads. Chunks of series that keep their labels stay byte for byte where no interval cuts them.
func TestRandom(t *testing.T) {
	rounds := 2 * len(ruleTexts)
	if os.Getenv("HEARTH_LONG") != "" {
		rounds = 2000
	}
	var changed, cut, united int
	for round := range rounds {
		r := rand.New(rand.NewPCG(7, uint64(round)))
		m := randomBlock(t, r, 5+r.IntN(35))
		cfg := &Config{Deletions: randomDeletions(r)}
		if round%2 == 0 {
			cfg.Relabels = rulesOf(t, ruleTexts[round/2%len(ruleTexts)])
		}
		want, _ := m.apply(cfg)
		opts := small(t)
		preview, err := Preview(t.Context(), m.bkt, m.meta, cfg, opts)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		out, stats, err := Block(t.Context(), m.bkt, m.meta, cfg, opts)
		if err != nil || stats != preview {
			t.Fatalf("round %d: %v %v, and before %v", round, err, stats, preview)
		}
		if left, err := os.ReadDir(opts.Dir); err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v %v", left, err)
		}
		if stats.Read != int64(len(m.content)) {
			t.Errorf("round %d: %v of %d", round, stats, len(m.content))
		}
		if !stats.Changed() {
			compare(t, m.content, want)
			continue
		}
		changed++
		cut += int(stats.Cut)
		united += int(stats.United)
		if len(want) == 0 {
			if out != nil {
				t.Fatalf("round %d: a block of nothing: %v", round, stats)
			}
			continue
		}
		if out == nil {
			t.Fatalf("round %d: no block: %v", round, stats)
		}
		got, chunksOf := read(t, m.dir, out.ULID)
		compare(t, got, want)
		_, before := read(t, m.dir, m.meta.ULID)
		sameBytes(t, m, cfg, before, chunksOf)
	}
	if changed < rounds/3 || cut == 0 || united == 0 {
		t.Errorf("%d of %d blocks changed, %d series cut, %d united: the test tries too little", changed, rounds, cut, united)
	}
}

// sameBytes fails if a chunk that nothing cuts was written anew.
func sameBytes(t *testing.T, m *made, cfg *Config, before, after map[string][]chunks.Meta) {
	t.Helper()
	if len(cfg.Relabels) > 0 {
		return
	}
	for text, metas := range before {
		for _, c := range metas {
			var times []int64
			touched := false
			in := map[int64]sample{}
			decode(t, c.Chunk, in)
			for ts := range in {
				times = append(times, ts)
				touched = touched || slices.ContainsFunc(cfg.Deletions, func(d Deletion) bool {
					return d.deletes(m.series[text], ts)
				})
			}
			if !touched && !slices.ContainsFunc(after[text], func(a chunks.Meta) bool {
				return a.MinTime == c.MinTime && a.MaxTime == c.MaxTime && bytes.Equal(a.Chunk.Bytes(), c.Chunk.Bytes())
			}) {
				t.Fatalf("%s: the chunk from %d to %d, of %d samples, is not as it was", text, c.MinTime, c.MaxTime, len(times))
			}
		}
	}
}

// TestMeta: readers of ours take the old block, and the blocks that it replaced, for replaced ones; also after another
// rewrite. Unknown fields stay.
func TestMeta(t *testing.T) {
	m := randomBlock(t, rand.New(rand.NewPCG(1, 1)), 20)
	first, err := ParseDeletions("x", []byte(`[{matchers: '{kind="1"}', request_id: r1}]`))
	if err != nil {
		t.Fatal(err)
	}
	one, _, err := Block(t.Context(), m.bkt, m.meta, &Config{Deletions: first}, small(t))
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := Block(t.Context(), m.bkt, m.meta, &Config{Deletions: first}, small(t))
	if err != nil || again.ULID != one.ULID {
		t.Errorf("a second run: %v %v, want %v", err, again, one.ULID)
	}
	fetch := func(id ulid.ULID) *block.Meta {
		meta, err := block.FetchMeta(t.Context(), m.bkt, id)
		if err != nil {
			t.Fatal(err)
		}
		return meta
	}
	cfg := &Config{Relabels: rulesOf(t, `[{action: labeldrop, regex: job}]`)}
	two, _, err := Block(t.Context(), m.bkt, fetch(one.ULID), cfg, small(t))
	if err != nil {
		t.Fatal(err)
	}
	metas := []*block.Meta{m.meta, fetch(one.ULID), fetch(two.ULID)}
	for range 2 {
		replaced := block.Replaced(metas)
		for _, id := range []ulid.ULID{m.meta.ULID, one.ULID} {
			if by := replaced[id].By; len(by) != 1 || by[0].ULID != two.ULID {
				t.Errorf("%s is replaced by %v", id, by)
			}
		}
		if _, ok := replaced[two.ULID]; ok {
			t.Error("the last one is replaced")
		}
		slices.Reverse(metas)
	}
	last := fetch(two.ULID)
	text := string(last.Thanos.Rewrites)
	for _, want := range []string{`"sources":["` + m.meta.ULID.String(),
		`"deletions_applied":[{"matchers":[{"Type":0,"Name":"kind","Value":"1"}]`,
		`"request_id":"r1"`, `"relabels_applied":[{`, `"sources":["` + one.ULID.String()} {
		if !strings.Contains(strings.Join(strings.Fields(text), ""), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if last.Thanos.Source != block.SourceRewrite || !slices.Equal(last.Compaction.Sources, []ulid.ULID{two.ULID}) ||
		last.MinTime != m.meta.MinTime || last.MaxTime != m.meta.MaxTime || last.Stats == m.meta.Stats ||
		last.Thanos.UploadTime.IsZero() {
		t.Errorf("%+v", last)
	}
}

// TestRefused: series that get the same labels, parts of a split block, and blocks that were marked meanwhile.
func TestRefused(t *testing.T) {
	m := randomBlock(t, rand.New(rand.NewPCG(2, 1)), 20)
	cfg := &Config{Relabels: rulesOf(t, `[{action: labeldrop, regex: "id|i|job|kind"}]`)}
	refused := func(meta *block.Meta, opts Options, want string) {
		t.Helper()
		before := names(t, m.bkt)
		_, _, err := Block(t.Context(), m.bkt, meta, cfg, opts)
		if errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		for _, name := range names(t, m.bkt) {
			if !slices.Contains(before, name) && strings.HasSuffix(name, "/meta.json") {
				t.Errorf("%s was written", name)
			}
		}
	}
	apart := small(t)
	apart.Apart = true
	refused(m.meta, apart, "15 series get labels that another series has")
	part := *m.meta
	part.Origin = &block.Origin{ID: part.ULID, Sources: []ulid.ULID{part.ULID}, Shard: 1, Of: 2}
	refused(&part, small(t), "is part 1 of 2")
	if err := block.MarkDeletion(t.Context(), m.bkt, m.meta.ULID, "d", m.meta.ULID.Timestamp()); err != nil {
		t.Fatal(err)
	}
	refused(m.meta, small(t), "was marked for deletion")
}

func names(t *testing.T, bkt objstore.Bucket) (all []string) {
	t.Helper()
	if err := bkt.Iter(t.Context(), "", func(name string) error {
		all = append(all, name)
		return nil
	}, objstore.WithRecursiveIter()); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestOthersStay: what somebody has in the directory for scratch files stays.
func TestOthersStay(t *testing.T) {
	m := randomBlock(t, rand.New(rand.NewPCG(3, 1)), 9)
	cfg := kindOne()
	id, err := NewID(m.meta, cfg)
	if err != nil {
		t.Fatal(err)
	}
	opts := small(t)
	for _, name := range []string{"mine", id.String() + "/change.log", id.String() + "/" + blockFolder + "/half"} {
		path := filepath.Join(opts.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	opts.Log = &log
	_, stats, err := Block(t.Context(), m.bkt, m.meta, cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mine", filepath.Join(id.String(), "change.log")} {
		if _, err := os.Stat(filepath.Join(opts.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(opts.Dir, id.String(), blockFolder)); !os.IsNotExist(err) {
		t.Error(err)
	}
	if stats.Deleted != 2 || strings.Count(log.String(), "Deleted {") != 2 {
		t.Errorf("%v\n%s", stats, &log)
	}
}

// TestParse: each fault of a configuration is named with its line, and none is taken for something that it is not.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		`[{matcher: '{a="b"}'}]`:                                        "matcher",
		`[{matchers: '{a="b"}', interval: []}]`:                         "interval",
		`[{matchers: '{a="b"}', intervals: [{min: 1, maxt: 2}]}]`:       "min",
		`[{matchers: '{a="b"}', intervals: [{mint: 1}]}]`:               "both needed",
		`[{matchers: '{a="b"}', intervals: [{mint: 3, maxt: 2}]}]`:      "mint 3 is after maxt 2",
		`[{matchers: '{}'}]`:                                            "matchers",
		`[{intervals: [{mint: 1, maxt: 2}]}]`:                           "matchers: is missing",
		`[{matchers: '{a='}]`:                                           "matchers",
		`{matchers: '{a="b"}'}`:                                         "x:1",
		"- matchers: '{a=\"b\"}'\n- matchers: ''":                       "x:2: entry 2",
		`[{matchers: '{a="b"}', intervals: [{mint: "soon", maxt: 2}]}]`: "mint",
		`[{matchers: '{a="b"}', request_id: 5, matchers: '{a=~".*"}'}]`: "matchers",
		`[{matchers: ['{a="b"}']}]`:                                     "matchers",
		`[null]`:                                                        "an entry is empty",
		`[{matchers: '{a="b"}', intervals: []}]`:                        "intervals: are empty",
		`[{matchers: '{a="b"}', intervals: }]`:                          "intervals: are empty",
		`[{matchers: '{a="b"}', intervals: [null]}]`:                    "intervals: are empty",
	} {
		_, err := ParseDeletions("x", []byte(text))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	got, err := ParseDeletions("x", []byte(`
- {matchers: '{a="b", c!~"d.*"}', intervals: [{mint: -5, maxt: 7}], request_id: r}
- {matchers: '{job=""}'}`))
	if err != nil || len(got) != 2 || len(got[0].Matchers) != 2 || got[0].Intervals[0] != (Interval{-5, 7}) ||
		got[0].RequestID != "r" || !got[1].Matchers[0].Matches("") {
		t.Errorf("%v %v", got, err)
	}
	if got, err := ParseDeletions("x", nil); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
}

// TestIntervals: those of several deletions become one list, in whole windows.
func TestIntervals(t *testing.T) {
	all := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "a", ".*")}
	none := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "x")}
	get := func(string) string { return "" }
	for _, c := range []struct {
		resolution int64
		in         []Deletion
		want       []Interval
	}{
		{0, []Deletion{{Matchers: all, Intervals: []Interval{{5, 9}, {1, 2}, {8, 12}}}}, []Interval{{1, 2}, {5, 12}}},
		{0, []Deletion{{Matchers: none}}, nil},
		{0, []Deletion{{Matchers: all, Intervals: []Interval{{5, 9}}}, {Matchers: all}}, []Interval{everything}},
		{10, []Deletion{{Matchers: all, Intervals: []Interval{{15, 15}, {-1, -1}, {19, 20}}}},
			[]Interval{{-10, -1}, {10, 29}}},
		{10, []Deletion{{Matchers: all, Intervals: []Interval{{-1 << 63, 1<<63 - 1}}}},
			[]Interval{{-farthest - 6, farthest + 5}}},
	} {
		if got := intervals(c.in, get, c.resolution); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}

// kindOne deletes one kind of series.
func kindOne() *Config {
	kind := labels.MustNewMatcher(labels.MatchEqual, "kind", "1")
	return &Config{Deletions: []Deletion{{Matchers: []*labels.Matcher{kind}}}}
}

// TestFaults: whatever upload fails after it had its effect, and all after it: no reader sees half a block, and a
// second run leaves what an undisturbed one leaves.
func TestFaults(t *testing.T) {
	cfg := kindOne()
	m := randomBlock(t, rand.New(rand.NewPCG(4, 1)), 9)
	id, err := NewID(m.meta, cfg)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for at := 1; ; at++ {
		for _, name := range names(t, m.bkt) {
			if strings.HasPrefix(name, id.String()) || strings.HasPrefix(name, "debug/") {
				if err := m.bkt.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
		}
		f := &faulty{Bucket: m.bkt, at: at}
		_, _, err := Block(t.Context(), f, m.meta, cfg, small(t))
		if f.n < at {
			break
		}
		if err != nil {
			failed++
		}
		if slices.Contains(names(t, m.bkt), block.Object(id, block.MetaName)) {
			read(t, m.dir, id)
		}
		if _, _, err := Block(t.Context(), m.bkt, m.meta, cfg, small(t)); err != nil {
			t.Fatalf("request %d, again: %v", at, err)
		}
		got, _ := read(t, m.dir, id)
		want, _ := m.apply(cfg)
		compare(t, got, want)
	}
	if failed < 4 {
		t.Errorf("%d runs failed", failed)
	}
}

// faulty fails all uploads from number at on, the first one after it had its effect.
type faulty struct {
	objstore.Bucket
	n, at int
}

// Upload implements objstore.Bucket.
func (f *faulty) Upload(ctx context.Context, name string, r io.Reader,
	opts ...objstore.ObjectUploadOption) error {
	if f.n++; f.n < f.at {
		return f.Bucket.Upload(ctx, name, r, opts...)
	}
	if f.n == f.at {
		_ = f.Bucket.Upload(ctx, name, r, opts...)
	}
	return context.DeadlineExceeded
}
