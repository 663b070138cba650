package distributor

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/internal/wire/otlp"
	"github.com/hearth-metrics/hearth/ring"
)

func relabelRules(t testing.TB, text string) (rules []*relabel.Config) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

// texts are the series that a member stored.
func (c *cluster) texts(member string) (all []string) {
	m := c.member(member)
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.series {
		all = append(all, labelsText([]byte(s)))
	}
	slices.Sort(all)
	return all
}

const someRules = `
- {source_labels: [__name__], regex: debug_.*, action: drop}
- {regex: pod_uid, action: labeldrop}
- {source_labels: [env], regex: (.*)-eu, target_label: region, replacement: eu-$1}
- {source_labels: [anonymous], regex: "1", target_label: __name__, replacement: ""}
`

func TestRelabel(t *testing.T) {
	f := func(rules string, in []string, want ...string) {
		t.Helper()
		opts := DefaultOptions()
		opts.Relabel = relabelRules(t, rules)
		c := newCluster(t, newFakeRing(1, "a"), opts)
		b := wire.NewBatch("acme")
		defer freed(t, b)
		defer c.close() // before: the member is done with it
		b.Add(labels.FromStrings("__name__", "plain")).Samples = []wire.Sample{{T: 1}}
		b.Add(labels.FromStrings(in...)).Samples = []wire.Sample{{T: 1}, {T: 2}}
		for range 2 { // the second time by memory
			r := c.push(b)
			if r.Err() != nil || r.Series != 2 || r.Samples+r.Dropped.Samples != 3 ||
				(r.Dropped.Samples == 2) != (len(want) == 0) {
				t.Fatalf("%+v: %v", r, r.Err())
			}
		}
		want = append(want, `{__name__="plain"}`)
		slices.Sort(want)
		want = slices.Compact(want)
		if got := c.texts("a"); !slices.Equal(got, want) {
			t.Fatalf("stored %v, want %v", got, want)
		}
	}
	f(someRules, []string{"__name__", "up", "job", "x"}, `{__name__="up", job="x"}`)
	f(someRules, []string{"__name__", "debug_x", "job", "x"})
	f(someRules, []string{"__name__", "up", "pod_uid", "x"}, `{__name__="up"}`)
	f(someRules, []string{"__name__", "up", "env", "prod-eu", "zone", "1"},
		`{__name__="up", env="prod-eu", region="eu-prod", zone="1"}`)
	f(`[{action: labelmap, regex: x_(.+), replacement: a_$1}]`, []string{"__name__", "up", "x_b", "1"},
		`{__name__="up", a_b="1", x_b="1"}`)
	f(`[{action: keep, source_labels: [__name__], regex: plain}]`, []string{"__name__", "up"})
	f(`[{action: labeldrop, regex: "__name__|job"}, {target_label: __name__, replacement: plain}]`,
		[]string{"__name__", "up", "job", "x"}, `{__name__="plain"}`)
}

// Rules that make a series unusable reject it, and name it; the rest is stored.
func TestRelabelSpoils(t *testing.T) {
	opts := DefaultOptions()
	opts.Relabel = relabelRules(t, someRules)
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	for range 2 {
		b := batch(3)
		b.Add(labels.FromStrings("__name__", "m", "anonymous", "1")).Samples = []wire.Sample{{T: 1}}
		r := c.push(b)
		if r.Kind() != errs.Invalid || r.Samples != 3 || len(r.Failures) != 1 || r.Failures[0].Series != 3 {
			t.Fatalf("%+v", r)
		}
		if text := r.Err().Error(); !strings.Contains(text, "no metric name") || !strings.Contains(text, `anonymous="1"`) {
			t.Fatal(text)
		}
	}
}

// A label without a name would make receivers refuse all that travels with it.
func TestRelabelSpoilsNames(t *testing.T) {
	opts := DefaultOptions()
	opts.Relabel = relabelRules(t, `[{action: labelmap, regex: x_(.*), replacement: $1}]`)
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	c.member("a").become(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) { // as rpc does
		b, err := wire.DecodeShard(wire.AppendShard(nil, s))
		if err == nil {
			b.Release()
		}
		return nil, err
	})
	b := batch(3)
	b.Add(labels.FromStrings("__name__", "m", "x_", "1")).Samples = []wire.Sample{{T: 1}}
	r := c.push(b)
	if r.Kind() != errs.Invalid || r.Samples != 3 || len(r.Failures) != 1 || r.Failures[0].Series != 3 {
		t.Fatalf("%+v", r)
	}
	if text := r.Err().Error(); !strings.Contains(text, "no name") || !strings.Contains(text, `x_="1"`) {
		t.Fatal(text)
	}
}

// A failure of a series that stands elsewhere after relabelling names where it stood.
func TestRelabelKeepsPlaces(t *testing.T) {
	opts := limited(tenant.Limits{LabelsPerSeries: 2})
	opts.Relabel = relabelRules(t, someRules)
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	b := wire.NewBatch("acme")
	for _, pairs := range [][]string{{"debug_1", "a", "b"}, {"m", "a", "b"}, {"debug_2", "a", "b"}, {"m", "a", "b", "c", "d"}} {
		b.Add(labels.FromStrings(append([]string{"__name__"}, pairs...)...)).Samples = []wire.Sample{{T: 1}}
	}
	if r := c.push(b); len(r.Failures) != 1 || r.Failures[0].Series != 3 || r.Samples != 1 || r.Dropped.Samples != 2 {
		t.Fatalf("%+v", r)
	}
}

// A request of which nothing is left is a success in every protocol, even without a ring, and its senders are not told
// that samples are missing.
func TestRelabelDropsAll(t *testing.T) {
	opts := DefaultOptions()
	opts.Relabel = relabelRules(t, `[{action: drop, source_labels: [__name__], regex: .*}]`)
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	c.Distributor.ring.placement = func() ring.Placement { return nil }
	if w := c.do(httpRequest{content: contentV1, body: bodyV1(sample1("__name__", "up"))}); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	w := c.do(httpRequest{content: contentV2, body: bodyV2([]string{"__name__", "up"}, []string{"__name__", "down"})})
	if w.Code != 204 || w.Header().Get("X-Prometheus-Remote-Write-Samples-Written") != "2" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	translator, err := otlp.New(otlp.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(otlpBody(contentJSON, "a")))
	req.Header.Set("Content-Type", contentJSON)
	if c.OTLPHandler(translator).ServeHTTP(rec, req); rec.Code != 503 { // its metadata finds no ring
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	if n := testutil.ToFloat64(c.metrics.relabelDropped); n != 5 { // not those of the request that is to come again
		t.Errorf("%v samples counted, want 5", n)
	}
	if n := testutil.ToFloat64(c.metrics.samples); n != 0 {
		t.Errorf("%v samples counted as written, want none", n)
	}
}

// Rules that change count for the next request, and bad ones change nothing.
func TestSetRelabel(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	defer c.close()
	f := func(rules string, valid bool, dropped int) {
		t.Helper()
		if err := c.SetRelabel(relabelRules(t, rules)); (err == nil) != valid {
			t.Fatalf("%s: %v", rules, err)
		}
		if r := c.push(batch(10)); r.Dropped.Samples != dropped || r.Samples != 10-dropped {
			t.Fatalf("%s: %+v", rules, r)
		}
	}
	f(`[{action: drop, source_labels: [i], regex: "3"}]`, true, 1)
	f(`[{action: hashmod, source_labels: [i], target_label: x}]`, false, 1)
	f(`[{action: keep, source_labels: [i], regex: "3"}]`, true, 9)
	f(`[]`, true, 0)
}

// What is remembered is right whoever asks, for more series than there are places.
func TestRelabelTogether(t *testing.T) {
	r := &rules{configs: relabelRules(t,
		`[{source_labels: [i], target_label: j, replacement: "<$1>"}, {action: drop, source_labels: [i], regex: ".*7"}]`)}
	if err := validateRelabel(r.configs); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			b := batch(500)
			for i := range b.Series {
				s := &b.Series[i]
				s.Key.Lo %= 100 // few places
				e := r.of(s)
				n := fmt.Sprint(i)
				if strings.HasSuffix(n, "7") != (e.fate == dropped) ||
					e.fate != dropped && string(e.labels) != "__name__\xffm\xffi\xff"+n+"\xffj\xff<"+n+">\xff" {
					t.Errorf("series %s became %+v", n, e)
				}
			}
		})
	}
	all.Wait()
	var held int64
	for i := range r.places {
		if e := r.places[i].Load(); e != nil {
			held += e.size()
		}
	}
	if held != r.bytes.Load() || held == 0 {
		t.Errorf("%d bytes are remembered, %d accounted for", held, r.bytes.Load())
	}
}

// BenchmarkRelabel is what rules cost per series that is known.
func BenchmarkRelabel(b *testing.B) {
	f := func(name, text string) {
		b.Run(name, func(b *testing.B) {
			opts := DefaultOptions()
			opts.Relabel = relabelRules(b, text)
			c := newCluster(b, newFakeRing(1, "a"), opts)
			defer c.close()
			c.Distributor.ring.placement = func() ring.Placement { return &ring.Single{} }
			c.Distributor.dial = func(ring.Member) (Writer, error) { return Local{nowhere{}}, nil }
			request := batch(2000)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Push(context.Background(), request); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/series")
		})
	}
	f("no rules", `[]`)
	f("nothing changes", `[{action: drop, source_labels: [__name__], regex: "debug_.*"}]`)
	f("all change", `[{target_label: region, replacement: eu}]`)
}
