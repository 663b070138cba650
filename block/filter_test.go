package block

import (
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/tsdb"
	"go.yaml.in/yaml/v3"
)

func testID(i int) ulid.ULID { return ulid.MustParse(fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5FA%d", i)) }

// testMeta is block i of [mint, maxt) made of sources, with pairs of names and values as its external labels.
func testMeta(i int, mint, maxt, resolution int64, sources []int, external ...string) *Meta {
	m := &Meta{BlockMeta: tsdb.BlockMeta{ULID: testID(i), MinTime: mint, MaxTime: maxt}}
	for _, s := range sources {
		m.Compaction.Sources = append(m.Compaction.Sources, testID(s))
	}
	m.Thanos.Downsample.Resolution = resolution
	m.Thanos.Labels = map[string]string{}
	for j := 0; j+1 < len(external); j += 2 {
		m.Thanos.Labels[external[j]] = external[j+1]
	}
	return m
}

// TestReplacedWithinStream: whatever ids a block lists, it hides blocks of its own stream only.
func TestSupersededWithinStream(t *testing.T) {
	a := []string{"tenant_id", "a", "receive_replica", "r1"}
	old := testMeta(0, 0, 10, 0, []int{0}, a...)
	f := func(name string, by *Meta, want bool) {
		t.Helper()
		all := Replaced([]*Meta{old, by})
		if r, got := all[old.ULID]; got != want || got && (!r.Last || !slices.Equal(r.By, []*Meta{by})) {
			t.Errorf("%s: replaced %v, %+v, want %v", name, got, r, want)
		}
		if _, got := all[by.ULID]; got {
			t.Errorf("%s: the larger block is replaced", name)
		}
	}
	f("same stream", testMeta(1, 0, 20, 0, []int{0, 2}, a...), true)
	f("another tenant", testMeta(1, 0, 20, 0, []int{0, 2}, "tenant_id", "b", "receive_replica", "r1"), false)
	f("another replica", testMeta(1, 0, 20, 0, []int{0, 2}, "tenant_id", "a", "receive_replica", "r2"), false)
	f("without the replica", testMeta(1, 0, 20, 0, []int{0, 2}, "tenant_id", "a"), false)
	f("a label more", testMeta(1, 0, 20, 0, []int{0, 2}, append([]string{"zone", "x"}, a...)...), false)
	f("an empty value is a label, too", testMeta(1, 0, 20, 0, []int{0, 2}, append([]string{"zone", ""}, a...)...), false)
	f("no labels", testMeta(1, 0, 20, 0, []int{0, 2}), false)
	f("another resolution", testMeta(1, 0, 20, 300_000, []int{0, 2}, a...), false)
	f("other sources", testMeta(1, 0, 20, 0, []int{2, 3}, a...), false)
	f("the same source twice is not more", testMeta(1, 0, 20, 0, []int{0, 0}, a...), false)
	f("begins later", testMeta(1, 5, 20, 0, []int{0, 2}, a...), false)
	f("ends earlier", testMeta(1, 0, 9, 0, []int{0, 2}, a...), false)

	old = testMeta(0, 0, 10, 0, []int{3, 4}, a...)
	f("not all sources", testMeta(1, 0, 20, 0, []int{3, 5, 6}, a...), false)
	f("all sources", testMeta(1, 0, 20, 0, []int{3, 5, 4}, a...), true)
	old = testMeta(0, 0, 10, 0, []int{3, 4}, "tenant_id", "b")
	f("a first source that others share", testMeta(1, 0, 20, 0, []int{3, 4, 5}, a...), false)
}

// TestSourcesOf: a receiver lets a block go when its samples are served, and only then.
func TestSourcesOf(t *testing.T) {
	a, b := []string{"tenant_id", "a"}, []string{"tenant_id", "b"}
	f := func(name string, want bool, by *Meta, inBucket ...*Meta) {
		t.Helper()
		all := map[ulid.ULID]*Meta{by.ULID: by}
		for _, m := range inBucket {
			all[m.ULID] = m
		}
		if got := (View{Metas: all}).SourcesOf([]*Meta{by})[testID(0)]; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	f("itself", true, testMeta(0, 0, 10, 0, []int{0}, a...))
	f("compacted and deleted", true, testMeta(1, 0, 20, 0, []int{0, 2}, a...))
	f("compacted", true, testMeta(1, 0, 20, 0, []int{0, 2}, a...), testMeta(0, 0, 10, 0, []int{0}, a...))
	f("downsampled", false, testMeta(1, 0, 20, 300_000, []int{0, 2}, a...))
	f("of another tenant", false, testMeta(1, 0, 20, 0, []int{0, 2}, b...), testMeta(0, 0, 10, 0, []int{0}, a...))
	f("of a shorter time", false, testMeta(1, 0, 5, 0, []int{0, 2}, a...), testMeta(0, 0, 10, 0, []int{0}, a...))
}

// TestSelect is a table of views: the ids of the blocks that pass, in order.
func TestSelect(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	v := View{Metas: map[ulid.ULID]*Meta{}, Deletions: map[ulid.ULID]DeletionMark{}}
	add := func(i int, mint, maxt, resolution int64, sources ...int) {
		v.Metas[testID(i)] = testMeta(i, mint, maxt, resolution, sources)
	}
	names := func(metas []*Meta) string {
		var out []string
		for _, m := range metas {
			out = append(out, m.ULID.String()[ulid.EncodedSize-1:])
		}
		return strings.Join(out, " ")
	}
	f := func(want string, filters ...Filter) {
		t.Helper()
		if got := names(v.Select(filters...)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	all := func(broken ...int) []Filter {
		return []Filter{Within(0, 1000), NotMarkedBefore(now.Add(-time.Hour)), func(_ View, metas []*Meta) []*Meta {
			replaced := Replaced(slices.DeleteFunc(slices.Clone(metas), func(m *Meta) bool {
				return slices.ContainsFunc(broken, func(i int) bool { return testID(i) == m.ULID })
			}))
			return slices.DeleteFunc(metas, func(m *Meta) bool { return replaced[m.ULID].By != nil })
		}}
	}
	f("")
	add(0, 0, 10, 0, 0)
	add(1, 10, 20, 0, 1)
	f("0 1", all()...)
	add(2, 0, 20, 0, 0, 1)
	f("0 2 1")
	f("2", all()...)
	f("0 2 1", all(2)...)
	add(3, 0, 20, 300, 0, 1) // downsampled: replaces nothing
	f("2 3", all()...)
	add(4, 0, 20, 0, 0, 1) // the other part of a split output
	f("2 3 4", all()...)
	add(5, 15, 40, 0, 1) // reaches further than what has its sources
	f("2 3 4 5", all()...)
	add(6, 2000, 3000, 0, 6)
	f("2 3 4 5", all()...)
	v.Deletions[testID(3)] = DeletionMark{DeletionTime: now.Add(-2 * time.Hour).Unix()}
	v.Deletions[testID(5)] = DeletionMark{DeletionTime: now.Add(-time.Minute).Unix()}
	f("2 4 5", all()...)

	// The end of a block is not in it, the end of a window is.
	f("0 2 3 4", Within(0, 9))
	f("0 2 3 4 1", Within(0, 10))
	f("2 3 4 1 5", Within(10, 15))
	f("6", Within(2999, 9999))
	f("", Within(3000, 9999))
	f("0 2 4 1 6", Within(0, 9999), NotMarkedBefore(now))

	// A block that another filter takes out takes out no other.
	v.Deletions[testID(2)] = DeletionMark{DeletionTime: now.Add(-2 * time.Hour).Unix()}
	v.Deletions[testID(4)] = v.Deletions[testID(2)]
	f("0 1 5", all()...)
	if len(v.Metas) != 7 {
		t.Errorf("the view was changed: %d blocks", len(v.Metas))
	}
}

// TestChosen: rules choose blocks by external labels and id, as those of Thanos do.
func TestChosen(t *testing.T) {
	v := View{Metas: map[ulid.ULID]*Meta{}}
	for i := range 10 {
		v.Metas[testID(i)] = testMeta(i, int64(i), int64(i+1), 0, []int{i}, "tenant_id", string(rune('a'+i%2)))
	}
	f := func(rules string, want ...int) {
		t.Helper()
		var parsed []*relabel.Config
		if err := yaml.Unmarshal([]byte(rules), &parsed); err != nil {
			t.Fatal(err)
		}
		for _, r := range parsed {
			if err := r.Validate(model.UTF8Validation); err != nil {
				t.Fatal(err)
			}
		}
		var got []int
		for _, m := range v.Select(Chosen(parsed)) {
			got = append(got, int(m.MinTime))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", rules, got, want)
		}
	}
	f("[]", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	f(`[{action: keep, source_labels: [tenant_id], regex: a}]`, 0, 2, 4, 6, 8)
	f(`[{action: drop, source_labels: [tenant_id], regex: a}, {action: drop, source_labels: [__block_id], regex: .*5}]`,
		1, 3, 7, 9)
	// Each block is in one of the shards: the hash is the last 8 bytes of the MD5 of the id.
	shard := `[{action: hashmod, source_labels: [__block_id], target_label: shard, modulus: 3},
		{action: keep, source_labels: [shard], regex: %d}]`
	var all []int
	for i := range 3 {
		var want []int
		for j := range 10 {
			sum := md5.Sum([]byte(testID(j).String()))
			if binary.BigEndian.Uint64(sum[8:])%3 == uint64(i) {
				want = append(want, j)
			}
		}
		f(fmt.Sprintf(shard, i), want...)
		all = append(all, want...)
	}
	if len(all) != 10 {
		t.Errorf("the shards together have %v", all)
	}
	if got := v.Metas[testID(0)].Thanos.Labels; len(got) != 1 {
		t.Errorf("rules changed a meta: %v", got)
	}
}

func TestUploadedBefore(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	f := func(source string, made, uploaded time.Duration, want bool) {
		t.Helper()
		m := testMeta(0, 0, 1, 0, []int{0})
		_ = m.ULID.SetTime(uint64(now.Add(-made).UnixMilli()))
		m.Thanos.Source = source
		if uploaded > 0 {
			m.Thanos.UploadTime = now.Add(-uploaded)
		}
		v := View{Metas: map[ulid.ULID]*Meta{m.ULID: m}}
		if got := len(v.Select(UploadedBefore(now.Add(-30*time.Minute)))) == 1; got != want {
			t.Errorf("%s, made %s ago, uploaded %s ago: %v", source, made, uploaded, got)
		}
	}
	f(SourceReceive, time.Hour, 0, true)
	f(SourceReceive, time.Minute, 0, false)
	f(SourceReceive, time.Hour, time.Minute, false)
	f(SourceReceive, time.Hour, 30*time.Minute, true)
	f(SourceSidecar, time.Minute, time.Hour, true)
	f(SourceCompactor, time.Minute, time.Minute, true)
	f("compactor.repair", time.Minute, time.Minute, true)
	f("bucket.repair", time.Minute, time.Minute, true)
}
