package replicate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
)

func id(n int) ulid.ULID { return ulid.MustParse(fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5F%02d", n)) }

func put(t *testing.T, bkt objstore.Bucket, name, text string) {
	t.Helper()
	if err := bkt.Upload(t.Context(), name, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

// putBlock writes block n, whose time is the earlier the larger n is. Every second one has checksums.
func putBlock(t *testing.T, bkt objstore.Bucket, n int) {
	t.Helper()
	m := block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id(n), Version: 1, MinTime: int64(1000 - n), MaxTime: int64(1001 - n)}}
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
	m.Thanos.Labels = map[string]string{"tenant_id": "a", "n": fmt.Sprint(n)}
	for _, rel := range []string{"chunks/000001", "chunks/000002", "index", "index-header"} {
		text := fmt.Sprintf("%s of %d", rel, n)
		f := block.File{RelPath: rel, SizeBytes: int64(len(text))}
		if n%2 == 0 {
			f.Hash = &block.Hash{Func: "SHA256", Value: fmt.Sprintf("%x", sha256.Sum256([]byte(text)))}
		}
		m.Thanos.Files = append(m.Thanos.Files, f)
		put(t, bkt, block.Object(id(n), rel), text)
	}
	put(t, bkt, block.Object(id(n), "parquet/0.parquet"), "of another program")
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	put(t, bkt, block.Object(id(n), block.MetaName), b.String())
}

func markNoCompact(t *testing.T, bkt objstore.Bucket, n int) {
	t.Helper()
	if err := block.MarkNoCompact(t.Context(), bkt, id(n), block.ReasonManual, "d", time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
}

func markDeletion(t *testing.T, bkt objstore.Bucket, n int) {
	t.Helper()
	if err := block.MarkDeletion(t.Context(), bkt, id(n), "d", time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
}

// source has four blocks, of which 2 has two marks, and what is no block.
func source(t *testing.T) *objstore.InMemBucket {
	t.Helper()
	bkt := objstore.NewInMemBucket()
	for n := 1; n <= 4; n++ {
		putBlock(t, bkt, n)
	}
	markNoCompact(t, bkt, 2)
	markDeletion(t, bkt, 2)
	put(t, bkt, block.Object(id(9), "index"), "of an upload that is under way")
	put(t, bkt, "notes.txt", "of somebody else")
	return bkt
}

func contents(bkt *objstore.InMemBucket) map[string]string {
	all := map[string]string{}
	for name, raw := range bkt.Objects() {
		all[name] = string(raw)
	}
	return all
}

// copied is what a target has once everything is copied from source.
func copied(t *testing.T) map[string]string {
	t.Helper()
	all := contents(source(t))
	delete(all, "notes.txt")
	delete(all, block.Object(id(9), "index"))
	return all
}

var all = Choice{Resolutions: []int64{0}, Levels: []int{1}}

func run(t *testing.T, from, to objstore.Bucket, opts Options) (Report, error) {
	t.Helper()
	if opts.Filters == nil {
		opts.Filters = []block.Filter{all.Filter()}
	}
	return New(slog.New(slog.DiscardHandler), from, to, NewMetrics(nil), opts).Run(t.Context())
}

// faulty is a bucket of which a request fails, or all from there on. Both buckets of a pass count together.
type faulty struct {
	objstore.Bucket
	at *faultAt
	// sent are the names of uploads that began.
	sent []string
}

type faultAt struct {
	mu    sync.Mutex
	n, at int
	all   bool
	how   string // before, after or half of the effect
}

func (f *faultAt) fails() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return f.n == f.at || f.all && f.n > f.at
}

var errFault = errors.New("injected")

func (f *faulty) Iter(ctx context.Context, dir string, fn func(string) error, o ...objstore.IterOption) error {
	if f.at.fails() {
		return errFault
	}
	return f.Bucket.Iter(ctx, dir, fn, o...)
}

func (f *faulty) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if f.at.fails() {
		return nil, errFault
	}
	return f.Bucket.Get(ctx, name)
}

func (f *faulty) Exists(ctx context.Context, name string) (bool, error) {
	if f.at.fails() {
		return false, errFault
	}
	return f.Bucket.Exists(ctx, name)
}

func (f *faulty) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if f.at.fails() {
		return objstore.ObjectAttributes{}, errFault
	}
	return f.Bucket.Attributes(ctx, name)
}

func (f *faulty) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	f.at.mu.Lock()
	f.sent = append(f.sent, name)
	f.at.mu.Unlock()
	fails := f.at.fails()
	if fails && f.at.how == "before" {
		return errFault
	}
	if fails && f.at.how == "half" {
		raw, err := io.ReadAll(r)
		return errors.Join(errFault, err, f.Bucket.Upload(ctx, name, bytes.NewReader(raw[:len(raw)/2]), o...))
	}
	if fails && f.at.how == "zeros" { // what a crash leaves in a directory
		raw, err := io.ReadAll(r)
		return errors.Join(errFault, err, f.Bucket.Upload(ctx, name, bytes.NewReader(make([]byte, len(raw))), o...))
	}
	if err := f.Bucket.Upload(ctx, name, r, o...); err != nil || !fails {
		return err
	}
	return errFault
}

func (f *faulty) Delete(ctx context.Context, name string) error {
	fails := f.at.fails()
	if fails && f.at.how != "after" {
		return errFault
	}
	if err := f.Bucket.Delete(ctx, name); err != nil || !fails {
		return err
	}
	return errFault
}

// visible reports blocks of a target that have a meta.json and not all else.
func visible(got, want map[string]string) (faults []string) {
	for n := 1; n <= 4; n++ {
		if got[block.Object(id(n), block.MetaName)] != want[block.Object(id(n), block.MetaName)] {
			continue // a torn one is no block
		}
		for name, text := range want {
			if i, ok := block.ParseID(name); ok && i == id(n) && got[name] != text {
				faults = append(faults, name)
			}
		}
	}
	return faults
}

// TestFaults: whatever request fails, before, in or after its effect, alone or with all that follow, no block is
// visible that is not whole, the next pass ends in what an undisturbed one ends in, and it sends no object that was
// whole. The target has a torn block in the beginning, and one that Thanos copied without its marks.
func TestFaults(t *testing.T) {
	want := copied(t)
	start := func() *objstore.InMemBucket {
		to := objstore.NewInMemBucket()
		for name, text := range want {
			if i, ok := block.ParseID(name); ok && i == id(2) && !block.IsMark(strings.TrimPrefix(name, i.String()+"/")) {
				put(t, to, name, text)
			}
		}
		put(t, to, block.Object(id(1), "index"), "torn")
		put(t, to, block.Object(id(1), block.MetaName), want[block.Object(id(1), block.MetaName)])
		return to
	}
	count := &faultAt{}
	to := start()
	report, err := run(t, &faulty{Bucket: source(t), at: count}, &faulty{Bucket: to, at: count}, Options{})
	if err != nil || !report.Equal || report.Source != 4 || report.Repaired != 1 || report.Copied != 2 ||
		report.Whole != 1 {
		t.Fatalf("%v %+v", err, report)
	}
	if !maps.Equal(contents(to), want) {
		t.Fatalf("%v", contents(to))
	}
	for at := 1; at <= count.n; at++ {
		for _, how := range []string{"before", "half", "zeros", "after"} {
			for _, all := range []bool{false, true} {
				where := fmt.Sprintf("request %d of %d, %s, all %v", at, count.n, how, all)
				to := start()
				f := &faultAt{at: at, how: how, all: all}
				_, err := run(t, &faulty{Bucket: source(t), at: f}, &faulty{Bucket: to, at: f}, Options{})
				left := contents(to)
				// That an index of the bucket cannot be read does no harm.
				if errs.KindOf(err) != errs.Unavailable && (err != nil || all || !maps.Equal(left, want)) {
					t.Errorf("%s: %v", where, err)
				}
				torn := visible(contents(start()), want) // block 1 is so from the beginning
				for _, name := range visible(left, want) {
					if !slices.Contains(torn, name) {
						t.Errorf("%s: visible without %s", where, name)
					}
				}
				again := &faulty{Bucket: to, at: &faultAt{}}
				if r, err := run(t, source(t), again, Options{}); err != nil || !r.Equal {
					t.Errorf("%s, again: %v %+v", where, err, r)
				}
				if got := contents(to); !maps.Equal(got, want) {
					t.Errorf("%s, again: %v", where, got)
				}
				rewritten := slices.Contains(again.sent, block.Object(id(1), "index"))
				for i, name := range again.sent {
					if slices.Contains(again.sent[:i], name) || left[name] == want[name] && left[name] != "" &&
						(!rewritten || name != block.Object(id(1), block.MetaName)) {
						t.Errorf("%s: %s was sent twice", where, name)
					}
				}
			}
		}
	}
}

// TestOrder: blocks become visible oldest first, however many are copied at once, and every worker is used.
func TestOrder(t *testing.T) {
	from, to := objstore.NewInMemBucket(), objstore.NewInMemBucket()
	for n := 1; n <= 40; n++ {
		putBlock(t, from, n)
	}
	record := &faulty{Bucket: to, at: &faultAt{}}
	if r, err := run(t, from, record, Options{Concurrency: 8}); err != nil || r.Copied != 40 || r.Objects != 40*6 {
		t.Fatalf("%v %+v", err, r)
	}
	var order []int
	for _, name := range record.sent {
		if i, _ := block.ParseID(name); strings.HasSuffix(name, block.MetaName) {
			for n := 1; n <= 40; n++ {
				if id(n) == i {
					order = append(order, -n)
				}
			}
		}
	}
	if len(order) != 40 || !slices.IsSorted(order) {
		t.Errorf("%v", order)
	}
}

// TestPasses: what a pass does with each state of source and target.
func TestPasses(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(from, to *objstore.InMemBucket)
		opts    Options
		results string // of blocks that were not whole, newest last
		report  string
		kind    errs.Kind
	}{
		"nothing in the target": {results: "4 copied 3 copied 2 copied 1 copied", report: "source 4 target 4 missing [] extra [] marks 0"},
		"not the marked ones": {opts: Options{SkipMarked: true}, results: "4 copied 3 copied 1 copied",
			report: "source 3 target 3 missing [] extra [] marks 0"},
		"the marked one gets its marks": {opts: Options{SkipMarked: true},
			change:  func(_, to *objstore.InMemBucket) { putBlock(t, to, 2) },
			results: "4 copied 3 copied 2 whole 1 copied", report: "source 4 target 4 missing [] extra [] marks 0"},
		"some": {opts: Options{Filters: []block.Filter{Choice{Blocks: []ulid.ULID{id(3)}}.Filter()}}, results: "3 copied",
			report: "source 1 target 1 missing [] extra [] marks 0"},
		"only in the target": {change: func(_, to *objstore.InMemBucket) { putBlock(t, to, 7); putBlock(t, to, 8); markDeletion(t, to, 8) },
			results: "4 copied 3 copied 2 copied 1 copied", kind: errs.Conflict,
			report: "source 4 target 4 missing [] extra [" + id(7).String() + "] marks 0"},
		"a mark only in the target": {change: func(_, to *objstore.InMemBucket) { putBlock(t, to, 3); markNoCompact(t, to, 3) },
			results: "4 copied 2 copied 1 copied", kind: errs.Conflict, report: "source 4 target 4 missing [] extra [] marks 1"},
		"the target deletes it": {change: func(_, to *objstore.InMemBucket) {
			put(t, to, block.Object(id(3), "index"), "rest")
			markDeletion(t, to, 3)
		}, results: "4 copied 3 refused 2 copied 1 copied", kind: errs.Conflict,
			report: "source 4 target 3 missing [" + id(3).String() + "] extra [] marks 0"},
		"the source is torn": {change: func(from, _ *objstore.InMemBucket) { put(t, from, block.Object(id(3), "index"), "torn") },
			results: "4 copied 3 failed 2 copied 1 copied", kind: errs.Conflict,
			report: "source 4 target 3 missing [" + id(3).String() + "] extra [] marks 0"},
		"the source has too much": {change: func(from, _ *objstore.InMemBucket) {
			put(t, from, block.Object(id(3), "index"), "index of 3 and more")
		}, results: "4 copied 3 failed 2 copied 1 copied", kind: errs.Conflict,
			report: "source 4 target 3 missing [" + id(3).String() + "] extra [] marks 0"},
		"the source has other bytes": {change: func(from, _ *objstore.InMemBucket) { put(t, from, block.Object(id(2), "index"), "INDEX of 2") },
			results: "4 copied 3 copied 2 failed 1 copied", kind: errs.Conflict,
			report: "source 4 target 3 missing [" + id(2).String() + "] extra [] marks 0"},
		"the source lacks a file": {change: func(from, _ *objstore.InMemBucket) { _ = from.Delete(t.Context(), block.Object(id(3), "index")) },
			results: "4 copied 3 failed 2 copied 1 copied", kind: errs.Conflict,
			report: "source 4 target 3 missing [" + id(3).String() + "] extra [] marks 0"},
		"torn in the target": {change: func(_, to *objstore.InMemBucket) {
			putBlock(t, to, 3)
			put(t, to, block.Object(id(3), "chunks/000002"), "")
			putBlock(t, to, 1)
			_ = to.Delete(t.Context(), block.Object(id(1), "parquet/0.parquet"))
		}, results: "4 copied 3 repaired 2 copied 1 repaired", report: "source 4 target 4 missing [] extra [] marks 0"},
		"another meta.json in the target": {change: func(_, to *objstore.InMemBucket) {
			putBlock(t, to, 3)
			put(t, to, block.Object(id(3), block.MetaName), "{")
		}, results: "4 copied 3 repaired 2 copied 1 copied", report: "source 4 target 4 missing [] extra [] marks 0"},
		"a torn meta.json in the source": {change: func(from, _ *objstore.InMemBucket) { put(t, from, block.Object(id(3), block.MetaName), "{") },
			results: "4 copied 2 copied 1 copied", report: "source 3 target 3 missing [] extra [] marks 0"},
	} {
		from, to := source(t), objstore.NewInMemBucket()
		if c.change != nil {
			c.change(from, to)
		}
		r, err := run(t, from, to, c.opts)
		var results []string
		for _, o := range r.Blocks {
			for n := 1; n <= 9; n++ {
				if id(n) == o.Block {
					results = append(results, fmt.Sprintf("%d %s", n, o.Result))
				}
			}
		}
		if got := strings.Join(results, " "); got != c.results {
			t.Errorf("%s: %s, want %s", name, got, c.results)
		}
		got := fmt.Sprintf("source %d target %d missing %v extra %v marks %d", r.Source, r.Target, r.Missing, r.Extra, len(r.Marks))
		if got != c.report || errs.KindOf(err) != c.kind || r.Equal != (err == nil) {
			t.Errorf("%s: %v: %s, want %s", name, err, got, c.report)
		}
	}
}

// goneAt loses a block when its meta.json is read for the second time in a pass.
type goneAt struct {
	*objstore.InMemBucket
	lose ulid.ULID
	n    int
}

func (g *goneAt) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == block.Object(g.lose, block.MetaName) {
		if g.n++; g.n == 3 { // of the view, of the copy, and before the target's is written
			_ = block.Delete(ctx, g.InMemBucket, g.lose)
		}
	}
	return g.InMemBucket.Get(ctx, name)
}

// TestGone: a block that the source loses meanwhile does not come up in the target, and is no difference.
func TestGone(t *testing.T) {
	from, to := &goneAt{source(t), id(3), 0}, objstore.NewInMemBucket()
	r, err := run(t, from, to, Options{})
	if err != nil || !r.Equal || r.Source != 3 || contents(to)[block.Object(id(3), block.MetaName)] != "" {
		t.Errorf("%v %+v", err, r)
	}
}

// TestLoop: a Replicator looks once at a block that is whole. Marks that come later are copied, and what the target
// loses is copied again.
func TestLoop(t *testing.T) {
	from, to := source(t), objstore.NewInMemBucket()
	count := &faultAt{}
	reg := prometheus.NewRegistry()
	r := New(slog.New(slog.DiscardHandler), &faulty{Bucket: from, at: count}, to, NewMetrics(reg),
		Options{Filters: []block.Filter{all.Filter()}})
	for _, step := range []struct {
		change  func()
		objects int
	}{{nil, 4*6 + 2}, {nil, 0}, {func() { markDeletion(t, from, 3) }, 1}, {func() {
		if err := block.Delete(t.Context(), to, id(4)); err != nil {
			t.Fatal(err)
		}
	}, 6}, {func() { putBlock(t, from, 5) }, 6}} {
		if step.change != nil {
			step.change()
		}
		report, err := r.Run(t.Context())
		if err != nil || report.Objects != step.objects {
			t.Errorf("%v %+v", err, report)
		}
	}
	before := count.n
	if _, err := r.Run(t.Context()); err != nil || count.n-before > 40 { // two listings of five blocks with their folders
		t.Errorf("%v: %d requests to the source for nothing", err, count.n-before)
	}
	if n := testutil.ToFloat64(r.metrics.objects); n != 4*6+2+1+6+6 {
		t.Errorf("%v objects", n)
	}
	if n := testutil.ToFloat64(r.metrics.blocks); n != 6 {
		t.Errorf("%v blocks", n)
	}
	if n := testutil.ToFloat64(r.metrics.runs.WithLabelValues("success")); n != 6 {
		t.Errorf("%v passes", n)
	}
}

// TestChoice: the filters of Thanos's tool.
func TestChoice(t *testing.T) {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id(1)}}
	m.Compaction.Level, m.Thanos.Downsample.Resolution = 2, 300_000
	m.Thanos.Labels = map[string]string{"a": "b"}
	is := func(kind labels.MatchType, name, value string) []*labels.Matcher {
		return []*labels.Matcher{labels.MustNewMatcher(kind, name, value)}
	}
	for i, c := range []struct {
		Choice
		want bool
	}{
		{Choice{Resolutions: []int64{0, 300_000}, Levels: []int{1, 2}}, true},
		{Choice{Resolutions: []int64{0}, Levels: []int{1, 2}}, false},
		{Choice{Resolutions: []int64{300_000}, Levels: []int{1}}, false},
		{Choice{Blocks: []ulid.ULID{id(1)}}, true},
		{Choice{Blocks: []ulid.ULID{id(2)}, Resolutions: []int64{300_000}, Levels: []int{2}}, false},
		{Choice{Resolutions: []int64{300_000}, Levels: []int{2}, Matchers: is(labels.MatchRegexp, "a", "b|c")}, true},
		{Choice{Resolutions: []int64{300_000}, Levels: []int{2}, Matchers: is(labels.MatchNotEqual, "a", "b")}, false},
		{Choice{Resolutions: []int64{300_000}, Levels: []int{2}, Matchers: is(labels.MatchEqual, "x", "")}, true},
	} {
		if c.has(m) != c.want {
			t.Errorf("%d: %v", i, !c.want)
		}
	}
	m.Thanos.Labels = map[string]string{}
	if (Choice{Blocks: []ulid.ULID{id(1)}}).has(m) {
		t.Error("a block of nobody")
	}
}

// TestAllowed: into whose bucket blocks may be copied.
func TestAllowed(t *testing.T) {
	const mine = `{"uuid":"u1","cluster_label":"c","tenant_label":"tenant_id","replica_label":"r"}`
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			source, target string
			mimir          bool // the target
			kind           errs.Kind
			claimed        string
		}{
			"nobody's":          {},
			"from ours":         {source: mine, claimed: "c"},
			"of ours":           {source: mine, target: mine, claimed: "c"},
			"of another":        {source: mine, target: strings.Replace(mine, `"c"`, `"d"`, 1), kind: errs.Conflict, claimed: "d"},
			"of somebody":       {target: mine, kind: errs.Conflict, claimed: "c"},
			"other names":       {source: mine, target: strings.Replace(mine, `"tenant_id"`, `"t"`, 1), kind: errs.Conflict, claimed: "c"},
			"an old one":        {source: mine, target: `{"uuid":"u2"}`},
			"broken":            {target: "{", kind: errs.Invalid},
			"in Mimir's layout": {source: mine, mimir: true, kind: errs.Conflict},
		} {
			from, to := source(t), objstore.NewInMemBucket()
			if c.source != "" {
				put(t, from, "hearth/bucket.json", c.source)
			}
			if c.target != "" {
				put(t, to, "hearth/bucket.json", c.target)
			}
			if c.mimir {
				put(t, to, "team/"+block.Object(id(1), block.MetaName), "{}")
				put(t, to, "team/bucket-index.json.gz", "x")
			}
			before := len(to.Objects())
			if err := Allowed(t.Context(), from, to); errs.KindOf(err) != c.kind {
				t.Errorf("%s: %v", name, err)
			}
			got, err := block.ReadIdentity(t.Context(), to)
			claimed := err == nil && got.UUID != "" && got.Cluster == c.claimed
			if c.claimed != "" && !claimed || c.claimed == "" && before != len(to.Objects()) {
				t.Errorf("%s: %v %+v", name, err, got)
			}
		}
		from, to := objstore.NewInMemBucket(), objstore.NewInMemBucket()
		put(t, from, "team/"+block.Object(id(1), block.MetaName), "{}")
		put(t, from, "team/bucket-index.json.gz", "x")
		if err := Allowed(t.Context(), from, to); errs.KindOf(err) != errs.Invalid {
			t.Error(err)
		}
	})
}

// TestDeletedTenant: a block of a tenant that is deleted in the target is not copied there.
func TestDeletedTenant(t *testing.T) {
	from, to := source(t), objstore.NewInMemBucket()
	put(t, to, "hearth/bucket.json", `{"uuid":"u","tenant_label":"tenant_id"}`)
	if err := deletion.Put(t.Context(), to, deletion.New("a", time.Now().Add(-time.Hour), time.Minute)); err != nil {
		t.Fatal(err)
	}
	r, err := run(t, from, to, Options{})
	if errs.KindOf(err) != errs.Conflict || len(r.Blocks) != 4 || r.Blocks[0].Result != Refused ||
		!strings.Contains(r.Blocks[0].Why, `tenant "a" is deleted`) {
		t.Errorf("%v %+v", err, r)
	}
	for name := range contents(to) {
		if _, ok := block.ParseID(name); ok {
			t.Errorf("the target has %s", name)
		}
	}
}
