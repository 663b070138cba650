package distributor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
	"github.com/hearth-metrics/hearth/ring/election"
)

func TestFindPair(t *testing.T) {
	f := func(n haLabels, ls labels.Labels, want string) {
		t.Helper()
		canonical := wire.AppendLabels(nil, ls)
		m, ok := n.find(canonical)
		got := ""
		if ok {
			got = fmt.Sprintf("%s/%s %q", m.cluster, m.replica, string(canonical[:m.from])+string(canonical[m.to:]))
		}
		if got != want {
			t.Errorf("%v in %s: got %s, want %s", n, ls, got, want)
		}
	}
	usual := haLabels{haClusterLabel, haReplicaLabel}
	f(usual, labels.FromStrings("__name__", "up", "__replica__", "a", "cluster", "eu", "job", "j"),
		`eu/a "__name__\xffup\xffcluster\xffeu\xffjob\xffj\xff"`)
	f(usual, labels.FromStrings("__name__", "up", "__replica__", "a", "b", "cluster", "cluster", "eu"),
		`eu/a "__name__\xffup\xffb\xffcluster\xffcluster\xffeu\xff"`)
	f(usual, labels.FromStrings("__name__", "up", "cluster", "eu", "job", "j"), "")
	f(usual, labels.FromStrings("__name__", "up", "__replica__", "a", "job", "cluster"), "")
	f(usual, labels.FromStrings("__name__", "cluster", "z", "__replica__"), "")
	f(haLabels{"a", "z"}, labels.FromStrings("__name__", "up", "a", "eu", "b", "c", "z", "r"),
		`eu/r "__name__\xffup\xffa\xffeu\xffb\xffc\xff"`)
	f(haLabels{"z", "a"}, labels.FromStrings("__name__", "up", "a", "r", "b", "c", "z", "eu"),
		`eu/r "__name__\xffup\xffb\xffc\xffz\xffeu\xff"`)
}

// paired are options with pairs for all tenants.
func paired(change func(*tenant.Limits)) Options {
	o := DefaultOptions()
	l := tenant.Limits{HAPairs: true}
	if change != nil {
		change(&l)
	}
	o.Limits = tenant.Fixed(l)
	return o
}

// ofReplica is a batch of n series of a replica of a cluster, and one of neither.
func ofReplica(cluster, replica string, n int) *wire.Batch {
	b := wire.NewBatch("acme")
	for i := range n {
		s := b.Add(labels.FromStrings("__name__", "m", "__replica__", replica, "cluster", cluster, "i", fmt.Sprint(i)))
		s.Samples = []wire.Sample{{T: 1000, V: 1}}
	}
	s := b.Add(labels.FromStrings("__name__", "alone", "from", replica))
	s.Samples = []wire.Sample{{T: 1000, V: 1}}
	return b
}

// stored is what m has, as texts.
func (m *fakeMember) stored() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var texts []string
	for l, n := range m.series {
		texts = append(texts, fmt.Sprintf("%s x%d", labelsText([]byte(l)), n))
	}
	slices.Sort(texts)
	return texts
}

func TestPairsAreDeduplicated(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), paired(nil))
	defer c.close()
	first, second := ofReplica("eu", "one", 2), ofReplica("eu", "two", 2)
	for range 2 {
		if r := c.push(first); r.Samples != 3 || r.Duplicates.Samples != 0 || r.Err() != nil {
			t.Fatalf("%+v", r)
		}
		if r := c.push(second); r.Samples != 1 || r.Duplicates.Samples != 2 || r.Err() != nil {
			t.Fatalf("%+v", r)
		}
	}
	want := []string{
		`{__name__="alone", from="one"} x2`, `{__name__="alone", from="two"} x2`,
		`{__name__="m", cluster="eu", i="0"} x2`, `{__name__="m", cluster="eu", i="1"} x2`,
	}
	if got := c.member("a").stored(); !slices.Equal(got, want) {
		t.Fatalf("stored %q\nwant %q", got, want)
	}
	if n := testutil.ToFloat64(c.pairs.metrics.dropped.WithLabelValues("acme", "eu")); n != 4 {
		t.Fatalf("%v samples counted as dropped", n)
	}
	freed(t, first)
	freed(t, second)
}

// TestPairsOfOneRequest: series of several clusters and replicas in one request are judged each by its own labels, and
// failures name the place a series had in the request.
func TestPairsOfOneRequest(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), paired(nil))
	defer c.close()
	b := wire.NewBatch("acme")
	add := func(i int, cluster, replica string) {
		s := b.Add(labels.FromStrings("__name__", "m", "cluster", cluster, "__replica__", replica, "i", fmt.Sprint(i)))
		s.Samples = []wire.Sample{{T: 1000, V: 1}}
	}
	add(0, "", "one") // no cluster: as it is
	add(1, "eu", "one")
	add(2, "us", "two")
	add(3, "eu", "two")
	add(4, "us", "one")
	add(5, "eu", "one")
	add(6, "eu", strings.Repeat("x", election.MaxName+1))
	c.member("a").become(refusing(errs.Conflict, 3)) // series 5, the fourth that is let in
	r := c.push(b)
	if r.Samples != 3 || r.Duplicates.Samples != 2 || len(r.Failures) != 2 || r.Failures[0].Series != 6 ||
		r.Failures[1].Series != 5 {
		t.Fatalf("%+v", r)
	}
	want := []string{
		`{__name__="m", __replica__="one", i="0"} x1`,
		`{__name__="m", cluster="eu", i="1"} x1`,
		`{__name__="m", cluster="us", i="2"} x1`,
	}
	if got := c.member("a").stored(); !slices.Equal(got, want) {
		t.Fatalf("stored %q\nwant %q", got, want)
	}
	freed(t, b)
}

func TestPairsOff(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), paired(func(l *tenant.Limits) { l.HAPairs = false }))
	defer c.close()
	if r := c.push(ofReplica("eu", "one", 1)); r.Samples != 2 {
		t.Fatalf("%+v", r)
	}
	want := []string{`{__name__="alone", from="one"} x1`, `{__name__="m", __replica__="one", cluster="eu", i="0"} x1`}
	if got := c.member("a").stored(); !slices.Equal(got, want) {
		t.Fatalf("stored %q", got)
	}
}

func TestTooManyClusters(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), paired(func(l *tenant.Limits) { l.HAClusters = 2 }))
	defer c.close()
	c.push(ofReplica("one", "a", 1))
	c.push(ofReplica("two", "a", 1))
	r := c.push(ofReplica("three", "a", 1))
	if r.Kind() != errs.Limited || r.Samples != 1 {
		t.Fatalf("%+v", r)
	}
	for _, word := range []string{"acme", "three", "ha_clusters 2", "--runtime-config.file"} {
		if !strings.Contains(r.Err().Error(), word) {
			t.Errorf("%q is not in: %v", word, r.Err())
		}
	}
	if r := c.push(ofReplica("two", "a", 1)); r.Err() != nil {
		t.Fatal(r.Err())
	}
}

// TestPairsCountOnce: a series that is taken out for its replica or its cluster is not judged a second time for its
// labels, and a limit that is kept here is not counted as a receiver's.
func TestPairsCountOnce(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), paired(func(l *tenant.Limits) { l.HAClusters, l.LabelValueBytes = 1, 10 }))
	defer c.close()
	c.push(ofReplica("eu", "one", 1))
	long := func(cluster, replica string) *wire.Batch {
		b := wire.NewBatch("acme")
		b.Add(labels.FromStrings("__name__", "m", "__replica__", replica, "cluster", cluster, "long", "more than ten")).Samples = []wire.Sample{
			{T: 1}}
		return b
	}
	if r := c.push(long("eu", "two")); len(r.Failures) != 0 || r.Duplicates.Samples != 1 {
		t.Errorf("a replica that is not elected: %+v", r)
	}
	if r := c.push(long("us", "one")); len(r.Failures) != 1 || r.Kind() != errs.Limited {
		t.Errorf("one cluster more: %+v", r)
	}
	lost := func(reason string) float64 {
		return testutil.ToFloat64(c.metrics.limitedSamples.WithLabelValues("acme", reason))
	}
	if here, there := lost("ha_clusters"), lost("other"); here != 1 || there != 0 {
		t.Errorf("%v samples are counted as lost to ha_clusters and %v to receivers, want 1 and 0", here, there)
	}
}

// TestPairsAnswer: a request that is dropped whole is answered as one that is stored, with its counts: nothing failed
// that its sender should be alarmed about.
func TestPairsAnswer(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), paired(nil))
	defer c.close()
	for _, replica := range []string{"one", "two"} {
		w := c.do(
			httpRequest{content: contentV2, body: bodyV2([]string{"__name__", "m", "cluster", "eu", "__replica__", replica})})
		if w.Code != http.StatusNoContent {
			t.Fatalf("status %d %s", w.Code, w.Body)
		}
		for _, what := range []string{"Samples", "Histograms", "Exemplars"} {
			if got := w.Header().Get("X-Prometheus-Remote-Write-" + what + "-Written"); got != "1" {
				t.Errorf("replica %s: %s written %q", replica, what, got)
			}
		}
	}
	if _, writes := c.member("a").count(); writes != 1 {
		t.Fatalf("%d writes to the member", writes)
	}
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), paired(nil))
		defer c.close()
		one, two := ofReplica("eu", "one", 1), ofReplica("eu", "two", 1)
		send := func(b *wire.Batch, stored bool) {
			t.Helper()
			r := c.push(b)
			if (r.Samples == 2) != stored {
				t.Fatalf("%+v, want stored=%v", r, stored)
			}
		}
		for range 10 { // both are well
			send(one, true)
			send(two, false)
			time.Sleep(15 * time.Second)
		}
		send(two, false) // 15s after the last of one
		time.Sleep(15 * time.Second)
		send(two, false)
		time.Sleep(time.Second)
		send(two, true)
		send(one, false) // is back, and waits
		time.Sleep(20 * time.Second)
		send(two, true)
		send(one, false)
		time.Sleep(31 * time.Second)
		send(one, true)
		send(two, false)
		time.Sleep(haIdle + time.Minute)
		if n := c.pairs.followed(); n != 0 {
			t.Fatalf("%d tenants of which nothing was heard are remembered", n)
		}
		if n := testutil.CollectAndCount(c.pairs.metrics.dropped) + testutil.CollectAndCount(
			c.pairs.metrics.clusters); n != 0 {
			t.Fatalf("%d metrics of clusters that are forgotten", n)
		}
		send(two, true)
	})
}

// followed is of how many tenants pairs are followed.
func (t *haTracker) followed() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.tenants)
}

// pairOf are two distributors that hear of each other over b.
func pairOf(t *testing.T, b Elections) (c, d *cluster) {
	opts := paired(nil)
	opts.HA.Elections = b
	return newCluster(t, newFakeRing(1, "a"), opts), newCluster(t, newFakeRing(1, "a"), opts)
}

func TestProcessesAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{}
		c, d := pairOf(t, b)
		defer c.close()
		defer d.close()
		synctest.Wait() // both watch
		one, two := ofReplica("eu", "one", 1), ofReplica("eu", "two", 1)
		send := func(c *cluster, b *wire.Batch, stored bool) {
			t.Helper()
			r := c.push(b)
			if (r.Samples == 2) != stored {
				t.Fatalf("%+v, want stored=%v", r, stored)
			}
		}
		send(c, one, true)
		synctest.Wait()
		send(d, two, false)
		for range 20 { // the replicas keep to their own process, and the elected one's tells the other that it lives
			time.Sleep(10 * time.Second)
			send(c, one, true)
			send(d, two, false)
		}
		time.Sleep(9 * time.Second) // one is dead; what c said last may be of 20s before
		send(d, two, false)
		time.Sleep(24 * time.Second) // and a moment late
		send(d, two, true)
		synctest.Wait()
		send(c, one, false)

		// Apart each of them elects one: double samples, which have the same labels and are united by reads.
		b.mu.Lock()
		b.cut = true
		b.mu.Unlock()
		for range 4 {
			time.Sleep(10 * time.Second)
			send(d, two, true)
		}
		send(c, one, true)
		time.Sleep(time.Second)
		send(d, two, true)
		b.mu.Lock()
		b.cut = false
		b.mu.Unlock()
		time.Sleep(haListen + haTick)
		send(c, one, true) // the newest election is believed by both
		send(d, two, false)
	})
}

func TestElectionsThatCannotBePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{fail: true}
		c, d := pairOf(t, b)
		defer c.close()
		defer d.close()
		synctest.Wait() // both watch
		one, two := ofReplica("eu", "one", 1), ofReplica("eu", "two", 1)
		c.push(one)
		time.Sleep(3 * time.Second)
		b.mu.Lock()
		b.fail = false
		b.mu.Unlock()
		time.Sleep(2 * time.Second)
		if r := d.push(two); r.Duplicates.Samples != 1 {
			t.Fatalf("it was not tried again: %+v", r)
		}
		// A process that comes later knows before its first sample.
		opts := paired(nil)
		opts.HA.Elections = b
		e := newCluster(t, newFakeRing(1, "a"), opts)
		defer e.close()
		if r := e.push(two); r.Duplicates.Samples != 1 {
			t.Fatalf("%+v", r)
		}
		time.Sleep(haIdle + time.Minute)
		for _, x := range []*cluster{c, d, e} {
			if x.pairs.followed() != 0 {
				t.Fatal("not forgotten")
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if s := b.all["acme"]["eu"]; !s.Gone() {
			t.Fatalf("others are not told that it is forgotten: %+v", s)
		}
	})
}

func TestHAOptions(t *testing.T) {
	f := func(good bool, change func(o *HAOptions)) {
		t.Helper()
		o := DefaultHAOptions()
		change(&o)
		if err := o.Validate(); (err == nil) != good {
			t.Errorf("%+v: %v", o, err)
		}
	}
	f(true, func(*HAOptions) {})
	f(true, func(o *HAOptions) { o.UpdateTimeoutJitter, o.FailoverTimeout = 0, 16*time.Second })
	f(false, func(o *HAOptions) { o.UpdateTimeoutJitter, o.FailoverTimeout = 0, 15*time.Second })
	f(false, func(o *HAOptions) { o.UpdateTimeout = 0 })
	f(false, func(o *HAOptions) { o.UpdateTimeoutJitter = -1 })
	f(false, func(o *HAOptions) { o.FailoverTimeout = 0 })
}

// BenchmarkPairs is what HA pairs add to a push of 2,000 series of 12 labels, per series.
func BenchmarkPairs(b *testing.B) {
	const n = 2000
	f := func(name string, opts Options, replica string, want int) {
		b.Run(name, func(b *testing.B) {
			c := newCluster(b, newFakeRing(1, "unused"), opts)
			defer c.close()
			c.Distributor.ring.placement = func() ring.Placement { return &ring.Single{} }
			c.Distributor.dial = func(ring.Member) (Writer, error) { return Local{nowhere{}}, nil }
			c.push(ofReplica("eu", "one", 1))
			request := wire.NewBatch("acme")
			for i := range n {
				s := request.Add(
					labels.FromStrings("__name__", "http_server_requests_seconds_bucket", "__replica__", replica, "cluster", "eu",
						"container", "app", "endpoint", "metrics", "instance", fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250), "job",
						"shop-backend", "le", "0.005", "namespace", "production", "node", "node-17", "pod",
						fmt.Sprintf("shop-backend-7f9c-%d", i), "service", "shop"))
				s.Samples = []wire.Sample{{T: 1000, V: 1}}
			}
			b.ReportAllocs()
			for b.Loop() {
				if r, err := c.Push(context.Background(), request); err != nil || r.Samples != want {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/series")
		})
	}
	f("off", paired(func(l *tenant.Limits) { l.HAPairs = false }), "one", n)
	f("elected", paired(nil), "one", n)
	f("standby", paired(nil), "two", 0)
}

// bus carries elections between trackers as gossip would.
type bus struct {
	mu       sync.Mutex
	all      map[tenant.ID]map[string]election.State
	cut      bool // nothing arrives
	fail     bool
	watchers []func(tenant.ID, map[string]election.State)
}

func (b *bus) Publish(_ context.Context, id tenant.ID, states map[string]election.State) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail {
		return errors.New("no bus")
	}
	if b.all == nil {
		b.all = map[tenant.ID]map[string]election.State{}
	}
	if b.all[id] == nil {
		b.all[id] = map[string]election.State{}
	}
	for cluster, s := range states {
		b.all[id][cluster] = election.Merge(b.all[id][cluster], s)
	}
	if !b.cut {
		for _, f := range b.watchers {
			f(id, maps.Clone(b.all[id]))
		}
	}
	return nil
}

func (b *bus) All(_ context.Context, f func(tenant.ID, map[string]election.State)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut {
		return errors.New("cut")
	}
	for id, states := range b.all {
		f(id, states)
	}
	return nil
}

func (b *bus) Watch(ctx context.Context, f func(tenant.ID, map[string]election.State)) {
	b.mu.Lock()
	b.watchers = append(b.watchers, f)
	b.mu.Unlock()
	<-ctx.Done()
}

// batchOf is a batch of one series of a replica with samples at those times; a time of 0 is a stale marker of now.
func batchOf(cluster, replica string, at ...time.Time) *wire.Batch {
	b := wire.NewBatch("acme")
	s := b.Add(labels.FromStrings("__name__", "m", "__replica__", replica, "cluster", cluster))
	for _, t := range at {
		if t.IsZero() {
			s.Samples = append(s.Samples, wire.Sample{T: time.Now().UnixMilli(), V: math.Float64frombits(value.StaleNaN)})
		} else {
			s.Samples = append(s.Samples, wire.Sample{T: t.UnixMilli(), V: 1})
		}
	}
	return b
}

// away is a member that stores nothing now.
func away(context.Context, wire.Shard) ([]wire.Failure, error) {
	return nil, errs.E(errs.Unavailable, "away")
}

// TestElectedOfWhichNothingIsStored: whatever keeps the elected replica's samples from being stored, it is replaced in
// time, and another's are stored then. Where this process sees that they are not stored, the other's are not dropped
// meanwhile.
func TestElectedOfWhichNothingIsStored(t *testing.T) {
	good := func(c *cluster) { c.member("a").become(nil) }
	f := func(name string, opts Options, spoil func(c *cluster), batch func() *wire.Batch, waits bool) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, newFakeRing(1, "a"), opts)
				defer c.close()
				if r := c.push(batchOf("eu", "one", time.Now())); r.Samples != 1 {
					t.Fatalf("%+v", r)
				}
				if r := c.push(batchOf("eu", "two", time.Now())); r.Duplicates.Samples != 1 {
					t.Fatalf("%+v", r)
				}
				for range 3 {
					time.Sleep(10 * time.Second)
					spoil(c)
					_, _ = c.Push(t.Context(), batch())
					good(c)
					r := c.push(batchOf("eu", "two", time.Now()))
					if r.Samples != 0 || waits != (r.Kind() == errs.Unavailable) || waits == (r.Duplicates.Samples == 1) {
						t.Fatalf("while the elected one fails: %+v", r)
					}
				}
				time.Sleep(time.Second)
				spoil(c)
				_, _ = c.Push(t.Context(), batch())
				good(c)
				if r := c.push(batchOf("eu", "two", time.Now())); r.Samples != 1 {
					t.Fatalf("it is not replaced: %+v", r)
				}
				if r := c.push(batchOf("eu", "one", time.Now())); r.Duplicates.Samples != 1 {
					t.Fatalf("two are elected: %+v", r)
				}
			})
		})
	}
	one := func() *wire.Batch { return batchOf("eu", "one", time.Now()) }
	answers := func(kind errs.Kind) func(c *cluster) {
		return func(c *cluster) { c.member("a").become(refusing(kind, 0)) }
	}
	f("too old", paired(nil), answers(errs.Conflict), one, true)
	f("invalid", paired(nil), answers(errs.Invalid), one, true)
	f("over a receiver's limit", paired(nil), answers(errs.Limited), one, true)
	f("no quorum", paired(nil), func(c *cluster) { c.member("a").become(away) }, one, true)
	f("over a limit of labels", paired(func(l *tenant.Limits) { l.LabelValueBytes = 10 }), good, func() *wire.Batch {
		b := wire.NewBatch("acme")
		s := b.Add(labels.FromStrings("__name__", "m", "__replica__", "one", "cluster", "eu", "x", "much too long"))
		s.Samples = []wire.Sample{{T: time.Now().UnixMilli(), V: 1}}
		return b
	}, true)
	f("request too large", paired(func(l *tenant.Limits) { l.RequestSamples = 1 }), good, func() *wire.Batch {
		return batchOf("eu", "one", time.Now(), time.Now().Add(-1))
	}, false) // refused before it is read: the other's are dropped as if it were silent
	f("stale markers", paired(nil), good, func() *wire.Batch { return batchOf("eu", "one", time.Time{}) }, false)
	f("nothing", paired(nil), good, func() *wire.Batch { return batchOf("eu", "one") }, false)
}

// TestElectedFailsAgainAndAgain: a replica that sends something that is stored, and then something that is not, cannot
// keep the other one at 503 for longer than the failover timeout.
func TestElectedFailsAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), paired(nil))
		defer c.close()
		start, waited := time.Now(), 0
		for time.Since(start) < 5*time.Minute {
			c.push(batchOf("eu", "one", time.Now()))
			c.member("a").become(refusing(errs.Invalid, 0))
			c.push(batchOf("eu", "one", time.Now().Add(-time.Second)))
			c.member("a").become(nil)
			r := c.push(batchOf("eu", "two", time.Now()))
			if r.Samples == 1 {
				if since := time.Since(start); since <= c.pairs.opts.FailoverTimeout {
					t.Fatalf("replaced after %s", since)
				}
				return
			}
			if r.Kind() != errs.Unavailable {
				t.Fatalf("after %s: %+v", time.Since(start), r)
			}
			waited++
			time.Sleep(time.Second)
		}
		t.Fatalf("it was told to wait %d times", waited)
	})
}

// TestRunsOfOneRequest: what a request has of a replica is judged as a whole, also where series of other pairs lie
// between.
func TestRunsOfOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), paired(func(l *tenant.Limits) { l.LabelValueBytes = 10 }))
		defer c.close()
		for range 60 {
			b := wire.NewBatch("acme")
			for _, pair := range []struct{ cluster, x string }{{"eu", "good"}, {"us", "good"}, {"eu", "much too long"}} {
				s := b.Add(labels.FromStrings("__name__", "m", "__replica__", "one", "cluster", pair.cluster, "x", pair.x))
				s.Samples = []wire.Sample{{T: time.Now().UnixMilli(), V: 1}}
			}
			if r := c.push(b); r.Samples != 2 {
				t.Fatalf("%+v", r)
			}
			if r := c.push(batchOf("eu", "two", time.Now())); r.Duplicates.Samples != 1 {
				t.Fatalf("%+v", r)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestElectedStaysBehind: a replica that sends the same old samples again and again, which are stored already, is
// replaced.
func TestElectedStaysBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), paired(nil))
		defer c.close()
		old, start := time.Now(), time.Now()
		for time.Since(start) < 3*time.Minute {
			c.push(batchOf("eu", "one", old))
			if r := c.push(batchOf("eu", "two", time.Now())); r.Samples == 1 {
				if since := time.Since(start); since < time.Minute+30*time.Second {
					t.Fatalf("replaced after %s", since)
				}
				return
			}
			time.Sleep(5 * time.Second)
		}
		t.Fatal("it is not replaced")
	})
}

// TestPairsAfterAnOutage: while nothing can be stored of anybody nobody's samples are dropped, and afterwards one
// replica's are stored without a gap, whoever comes first.
func TestPairsAfterAnOutage(t *testing.T) {
	for _, first := range []string{"one", "two"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, newFakeRing(1, "a"), paired(nil))
			defer c.close()
			c.push(batchOf("eu", "one", time.Now()))
			c.push(batchOf("eu", "two", time.Now()))
			time.Sleep(10 * time.Second)
			c.member("a").become(away)
			for range 60 {
				for _, replica := range []string{"one", "two"} {
					if r := c.push(batchOf("eu", replica, time.Now())); r.Kind() != errs.Unavailable {
						t.Fatalf("samples of %s are not to be sent again: %+v", replica, r)
					}
				}
				time.Sleep(10 * time.Second)
			}
			if n := testutil.ToFloat64(c.pairs.metrics.elections.WithLabelValues("acme", "eu")); n != 1 {
				t.Fatalf("%v elections", n)
			}
			c.member("a").become(nil)
			second := map[string]string{"one": "two", "two": "one"}[first]
			if r := c.push(batchOf("eu", first, time.Now())); r.Samples != 1 {
				t.Fatalf("%+v", r)
			}
			if r := c.push(batchOf("eu", second, time.Now())); r.Duplicates.Samples != 1 {
				t.Fatalf("%+v", r)
			}
		})
	}
}

// TestTellingGoesOnWhenTheClockIsSet: other processes hear that the elected replica's samples are stored, whatever the
// wall clocks of processes say.
func TestTellingGoesOnWhenTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{}
		c, d := pairOf(t, b)
		defer c.close()
		defer d.close()
		synctest.Wait()
		for i := range 40 {
			if i == 10 { // Received is by a clock that was a day ahead
				b.mu.Lock()
				s := b.all["acme"]["eu"]
				s.Received += (24 * time.Hour).Milliseconds()
				b.all["acme"]["eu"] = s
				b.mu.Unlock()
			}
			if r := c.push(batchOf("eu", "one", time.Now())); r.Samples != 1 {
				t.Fatalf("round %d: %+v", i, r)
			}
			synctest.Wait()
			if r := d.push(batchOf("eu", "two", time.Now())); r.Samples != 0 {
				t.Fatalf("round %d: the other process elects another replica though this one's are stored: %+v", i, r)
			}
			time.Sleep(10 * time.Second)
		}
	})
}

// TestElectionsOfWrongClocks: processes whose clocks are hours or years apart agree on who is elected, and fail over
// in time.
func TestElectionsOfWrongClocks(t *testing.T) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour, 10 * 365 * 24 * time.Hour,
		-10 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := &bus{}
			opts := paired(nil)
			opts.HA.Elections = b
			d := newCluster(t, newFakeRing(1, "a"), opts)
			defer d.close()
			opts.HA.now = func() time.Time { return time.Now().Add(off) }
			c := newCluster(t, newFakeRing(1, "a"), opts)
			defer c.close()
			synctest.Wait() // both watch
			send := func(to *cluster, replica string, stored bool) {
				t.Helper()
				if r := to.push(batchOf("eu", replica, time.Now())); (r.Samples == 1) != stored {
					t.Fatalf("clock off by %s: %s: %+v, want stored=%v", off, replica, r, stored)
				}
				synctest.Wait()
			}
			for range 20 {
				send(c, "one", true)
				send(d, "two", false)
				time.Sleep(10 * time.Second)
			}
			time.Sleep(35 * time.Second) // one is dead
			send(d, "two", true)
			time.Sleep(2 * haTick)
			for range 20 { // and back, and waits
				send(c, "one", false)
				send(d, "two", true)
				time.Sleep(10 * time.Second)
			}
			time.Sleep(35 * time.Second)
			send(c, "one", true)
			time.Sleep(2 * haTick)
			send(d, "two", false)
			if n := testutil.ToFloat64(d.pairs.metrics.elections.WithLabelValues("acme", "eu")); n != 3 {
				t.Fatalf("clock off by %s: %v elections, want 3", off, n)
			}
		})
	}
}
