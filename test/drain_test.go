package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// fleet is a distributor, receivers that come and go (RF=3), a store gateway and a querier over one bucket directory.
type fleet struct {
	t           *testing.T
	bucket      string
	join        []string
	distributor *node
	store       *node
	query       *node
	receivers   map[string]*node // those that should be there
}

const fleetSeries = 80

func startFleet(t *testing.T, receivers int) *fleet {
	f := &fleet{t: t, bucket: "--objstore.config=type: FILESYSTEM\nconfig: {directory: " + t.TempDir() + "}",
		receivers: map[string]*node{}}
	f.store, f.query, f.distributor = newNode(t, "store", "store"), newNode(t, "query", "query"), newNode(t, "distributor",
		"distributor")
	f.join = []string{"--gossip.join=" + f.store.gossipAddr, "--gossip.join=" + f.distributor.gossipAddr,
		"--ring.forget-after=12s"}
	f.store.args = append(f.store.args, "--data-dir="+f.store.dir, f.bucket, "--sync-block-duration=2s")
	nodes := []*node{f.store, f.query, f.distributor}
	for _, n := range nodes {
		n.args = append(n.args, f.join...)
		n.start()
	}
	for i := 1; i <= receivers; i++ {
		nodes = append(nodes, f.receiver("r"+strconv.Itoa(i)))
	}
	for _, n := range nodes {
		n.waitReady()
	}
	f.settled()
	return f
}

// receiver starts another receiver.
func (f *fleet) receiver(name string) *node {
	n := newNode(f.t, name, "receive")
	n.args = append(append(n.args, "--tsdb.path="+n.dir, "--drain-on-stop", "--drain.timeout=40s", f.bucket), f.join...)
	n.start()
	f.receivers[name] = n
	return n
}

// settled waits until those who route and ask see the receivers that should be there, and no other.
func (f *fleet) settled() {
	f.t.Helper()
	for _, n := range []*node{f.distributor, f.query} {
		eventually(f.t, 30*time.Second, func() error {
			page, err := get(n.url("/metrics"), nil)
			if err != nil {
				return err
			}
			for state, want := range map[string]float64{"active": float64(len(f.receivers)), "down": 0, "leaving": 0,
				"read-only": 0} {
				if err := metricOn(page, `hearth_ring_members{role="receive",state="`+state+`"}`, want); err != nil {
					return fmt.Errorf("%s: %w", n.name, err)
				}
			}
			return nil
		})
	}
}

// placed writes a batch of new series and waits until each is on three receivers. It returns how many each one has.
func (f *fleet) placed(job string) map[string]int {
	f.t.Helper()
	now := time.Now().UnixMilli()
	_, err := do(http.MethodPost, f.writeURL(), writeHeader(tenantHeader("acme")), writeBody(job, fleetSeries, now))
	if err != nil {
		f.t.Fatal(err)
	}
	var has map[string]int
	eventually(f.t, 10*time.Second, func() error {
		has = map[string]int{}
		copies := 0
		for name, r := range f.receivers {
			got, err := thanosSeries(f.t, r.grpc, []string{"hearth-tenant", "acme"},
				&thanospb.SeriesRequest{MinTime: now, MaxTime: now,
					Matchers: []*thanospb.LabelMatcher{{Type: thanospb.LabelMatcher_EQ, Name: "job", Value: job}}})
			if err != nil {
				return err
			}
			has[name] = len(got)
			copies += len(got)
		}
		if copies != 3*fleetSeries {
			return fmt.Errorf("%d copies of %d series: %v", copies, fleetSeries, has)
		}
		return nil
	})
	return has
}

func (f *fleet) writeURL() string { return "http://" + f.distributor.write + "/api/v1/receive" }

// watch asks for everything again and again, until the function it returns is called: every answer must be whole, and
// carry no warning.
func (f *fleet) watch(l *load) (stop func()) {
	stopped := make(chan struct{})
	var wg sync.WaitGroup
	answers := 0
	wg.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
			}
			if err := l.check(f.query.api("acme"), true); err != nil {
				f.t.Errorf("%s: %v", time.Now().Format("15:04:05.000"), err)
			}
			answers++
		}
	})
	return func() {
		close(stopped)
		wg.Wait()
		if answers < 20 {
			f.t.Errorf("only %d answers: the test shows little", answers)
		}
	}
}

// drainStatus is the answer of GET /ring/drain.
type drainStatus struct {
	Phase    string `json:"phase"`
	Pending  int    `json:"blocks_to_ship"`
	Shipped  int    `json:"blocks_shipped"`
	Gateways int    `json:"gateways"`
	Error    string `json:"error"`
}

func drainOf(n *node) (s drainStatus, err error) {
	b, err := get(n.url("/ring/drain"), nil)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// TestDrain takes one of four receivers away, adds another, and loses one for good, all under load: no write fails, and
// every answer is whole and without a warning.
func TestDrain(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 4)
	f.placed("before") // the ring is at work: what fails from here on is a failure
	l := startLoad(t, f.writeURL(), "steady", fleetSeries, 200*time.Millisecond, tenantHeader("acme"))
	l.more(10)
	stop := f.watch(l)

	gone := f.receivers["r1"]
	delete(f.receivers, "r1")
	gone.signal(syscall.SIGTERM)
	phases := map[string]drainStatus{}
	eventually(t, 40*time.Second, func() error {
		if s, err := drainOf(gone); err == nil {
			phases[s.Phase] = s
		}
		select {
		case <-gone.done:
			return nil
		default:
			return fmt.Errorf("r1 has not ended: %+v", phases)
		}
	})
	if code := gone.wait(time.Second); code != 0 {
		t.Errorf("r1 was drained and ended with status %d", code)
	}
	if _, ok := phases["read-only"]; !ok || phases["left"].Shipped == 0 || phases["left"].Gateways != 1 {
		t.Errorf("phases of the drain: %+v", phases)
	}
	f.settled()
	for name, n := range f.placed("drained") {
		if n != fleetSeries {
			t.Errorf("%s has %d of %d series: three copies on three receivers", name, n, fleetSeries)
		}
	}

	f.receiver("r5").waitReady()
	f.settled()
	if has := f.placed("joined"); has["r5"] < fleetSeries/3 {
		t.Errorf("the new receiver has not got its share: %v", has)
	}

	lost := f.receivers["r2"]
	delete(f.receivers, "r2")
	lost.kill()
	f.settled() // not before r2 is forgotten
	for name, n := range f.placed("forgotten") {
		if n != fleetSeries {
			t.Errorf("%s has %d of %d series: the share of the lost receiver was not placed again", name, n, fleetSeries)
		}
	}
	l.more(5)
	stop()
	l.stop()
	eventually(t, 10*time.Second, func() error { return l.check(f.query.api("acme"), true) })
	ring, err := get(f.distributor.url("/ring?format=json"), nil)
	if err != nil || strings.Count(string(ring), `"drained":true`) != 1 {
		t.Errorf("the history does not say that one member was drained: %s, %v", ring, err)
	}
}

// TestDrainAllInOne: of two processes with one copy of each series, one hands everything over to the other.
func TestDrainAllInOne(t *testing.T) {
	t.Parallel()
	bucket := "--objstore.config=type: FILESYSTEM\nconfig: {directory: " + t.TempDir() + "}"
	var nodes []*node
	for _, name := range []string{"a1", "a2"} {
		n := newNode(t, name, "all")
		n.args = append(n.args, "--remote-write.address="+n.write, "--data-dir="+n.dir, "--self-scrape.interval=0s",
			"--sync-block-duration=8s", "--drain.timeout=12s", bucket)
		nodes = append(nodes, n)
	}
	for i, n := range nodes {
		n.args = append(n.args, "--gossip.join="+nodes[1-i].gossipAddr)
		n.start()
	}
	a1, a2 := nodes[0], nodes[1]
	for _, n := range nodes {
		n.waitReady()
		eventually(t, 20*time.Second,
			func() error { return metricIs(n, `hearth_ring_members{role="receive",state="active"}`, 2) })
	}
	l := startLoad(t, a2.url("/api/v1/push"), "pair", 50, 200*time.Millisecond, nil)
	l.more(10)
	// A store gateway that starts waits until it knows the others. Until then answers say that it is missing.
	eventually(t, 30*time.Second, func() error { return l.check(a2.api("default-tenant"), true) })
	post := func(n *node, query string, want int) {
		t.Helper()
		if _, err := do(http.MethodPost, n.url("/ring/drain"+query), nil, nil); status(err) != want {
			t.Errorf("POST /ring/drain%s to %s: %v, want %d", query, n.name, err, want)
		}
	}
	if s, err := drainOf(a1); err != nil || s.Phase != "serving" {
		t.Errorf("before the drain: %+v, %v", s, err)
	}
	post(a1, "", 200)
	post(a1, "", 200)
	for n := 0; ; n++ {
		if err := l.check(a2.api("default-tenant"), true); err != nil {
			t.Errorf("during the drain: %v", err)
		}
		l.more(1)
		if s, _ := drainOf(a1); s.Phase != "" {
			continue
		}
		if code := a1.wait(20 * time.Second); code != 0 || n < 10 {
			t.Errorf("a1 ended with status %d, after %d looks", code, n)
		}
		break
	}
	l.more(5)
	l.stop()
	if err := l.check(a2.api("default-tenant"), true); err != nil {
		t.Errorf("after the drain: %v", err)
	}

	post(a2, "", 409) // the last one
	post(a2, "?force=true", 200)
	if code := a2.wait(40 * time.Second); code != 0 {
		t.Errorf("a2 ended with status %d", code)
	}
	if out := a2.output(); !strings.Contains(out, "no store gateway is known") ||
		!strings.Contains(out, "left before store gateways were seen") {
		t.Errorf("a2 does not say that nobody serves its blocks:\n%s", tail(a2.log, 20))
	}
}

// TestDrainFails: a member that cannot ship keeps its place and its data, says why, and does not end with status 0.
func TestDrainFails(t *testing.T) {
	t.Parallel()
	bucket := t.TempDir() + "/bucket"
	n := newNode(t, "r1", "receive")
	n.args = append(n.args[:len(n.args)-1], "--tsdb.path="+n.dir, "--drain-on-stop",
		"--objstore.config=type: FILESYSTEM\nconfig: {directory: "+bucket+"}")
	args := n.args
	n.start()
	n.waitReady()
	if _, err := do(http.MethodPost, "http://"+n.write+"/api/v1/receive", writeHeader(nil),
		writeBody("kept", 10, time.Now().UnixMilli())); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(bucket); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bucket, []byte("no directory"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.signal(syscall.SIGTERM)
	n.waitFor("drain cannot go on", 30*time.Second)
	eventually(t, 5*time.Second, func() error {
		if s, err := drainOf(n); err != nil || s.Phase != "shipping" || s.Pending != 1 || s.Error == "" {
			return fmt.Errorf("%+v, %v", s, err)
		}
		return nil
	})
	n.signal(syscall.SIGTERM)
	if code := n.wait(10 * time.Second); code != 1 || !strings.Contains(n.output(), "the drain was interrupted") {
		t.Errorf("interrupted: status %d\n%s", code, tail(n.log, 5))
	}

	n.args = append(args, "--drain.timeout=4s")
	n.start()
	n.waitReady()
	n.signal(syscall.SIGTERM)
	if code := n.wait(20 * time.Second); code != 1 ||
		!strings.Contains(n.output(), "the drain failed: after 4s not everything is in the bucket") {
		t.Errorf("failed: status %d\n%s", code, tail(n.log, 5))
	}

	if err := os.Remove(bucket); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.waitReady()
	eventually(t, 10*time.Second, func() error {
		got, err := thanosSeries(t, n.grpc, nil, &thanospb.SeriesRequest{MinTime: 0, MaxTime: time.Now().UnixMilli(),
			Matchers: []*thanospb.LabelMatcher{{Type: thanospb.LabelMatcher_EQ, Name: "job", Value: "kept"}}})
		if err != nil || len(got) != 10 {
			return fmt.Errorf("%d series of 10 are left: %w", len(got), err)
		}
		return nil
	})
}
