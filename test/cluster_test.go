package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// node is one process of a cluster and where it listens.
type node struct {
	*process
	t                             *testing.T
	name                          string
	http, grpc, write, gossipAddr string
	args                          []string
	dir                           string
}

func (n *node) start() {
	n.process = hearth(n.t, n.name, n.args...)
}

func (n *node) waitReady() {
	n.process.ready("http://"+n.http+"/-/ready", 60*time.Second)
}

func (n *node) api(tenant string) api {
	return api{base: "http://" + n.http, header: tenantHeader(tenant)}
}

// cluster is a distributor, three receivers in three zones (RF=3), a store gateway and a querier over one S3 bucket.
type cluster struct {
	t           *testing.T
	distributor *node
	receivers   []*node
	store       *node
	query       *node
}

func newNode(t *testing.T, name, role string) *node {
	ports := freePorts(t, 4)
	n := &node{t: t, name: name, http: addr(ports[0]), grpc: addr(ports[1]),
		write: addr(ports[2]), gossipAddr: addr(ports[3]), dir: filepath.Join(t.TempDir(), name)}
	n.args = []string{role, "--http-address=" + n.http, "--grpc-address=" + n.grpc, "--gossip.address=" + n.gossipAddr,
		"--gossip.instance-id=" + name}
	if role == "receive" || role == "distributor" {
		n.args = append(n.args, "--remote-write.address="+n.write, "--receive.replication-factor=3")
	}
	return n
}

// startCluster starts one; storing are more arguments of receivers.
func startCluster(t *testing.T, objstore string, storing ...string) *cluster {
	c := &cluster{t: t, distributor: newNode(t, "distributor", "distributor"),
		store: newNode(t, "store", "store"), query: newNode(t, "query", "query")}
	for i := 1; i <= 3; i++ {
		r := newNode(t, "r"+strconv.Itoa(i), "receive")
		r.args = append(r.args, "--tsdb.path="+r.dir, "--ring.zone=z"+strconv.Itoa(i), "--objstore.config="+objstore)
		r.args = append(r.args, storing...)
		c.receivers = append(c.receivers, r)
	}
	c.store.args = append(c.store.args, "--data-dir="+c.store.dir, "--objstore.config="+objstore,
		"--sync-block-duration=2s")
	for _, n := range c.nodes() {
		n.args = append(n.args, "--gossip.join="+c.receivers[0].gossipAddr, "--gossip.join="+c.receivers[1].gossipAddr)
		n.start()
	}
	for _, n := range c.nodes() {
		n.waitReady()
	}
	// Writes need the whole ring: the distributor learns of the members by gossip.
	eventually(t, 30*time.Second, func() error {
		b, err := get("http://"+c.distributor.http+"/ring?format=json", nil)
		if err != nil {
			return err
		}
		for _, r := range c.receivers {
			if !strings.Contains(string(b), `"`+r.name+`"`) {
				return fmt.Errorf("%s is not in the distributor's ring: %s", r.name, b)
			}
		}
		return nil
	})
	return c
}

func (c *cluster) nodes() []*node {
	return append(append([]*node{}, c.receivers...), c.distributor, c.store, c.query)
}

func (c *cluster) writeURL() string { return "http://" + c.distributor.write + "/api/v1/receive" }

func (c *cluster) flush() error {
	for _, r := range c.receivers {
		if _, err := do(http.MethodPost, "http://"+r.http+"/api/v1/admin/flush", nil, nil); err != nil {
			return fmt.Errorf("flush %s: %w", r.name, err)
		}
	}
	return nil
}

// TestCluster loses a receiver under load, flushes in a loop, loses all receivers with their disks, and still answers.
func TestCluster(t *testing.T) {
	t.Parallel()
	objstore, _ := startS3(t)
	c := startCluster(t, objstore)
	l := startLoad(t, c.writeURL(), "cluster", 200, 200*time.Millisecond, tenantHeader("acme"))
	more := func(n int) {
		t.Helper()
		want := l.batches() + n
		eventually(t, 60*time.Second, func() error {
			if have := l.batches(); have < want {
				return fmt.Errorf("%d of %d batches acknowledged, failures %v", have, want, l.failed)
			}
			return nil
		})
	}
	whole := func(when string) {
		t.Helper()
		eventually(t, 20*time.Second, func() error {
			if err := l.check(c.query.api("acme"), true); err != nil {
				return fmt.Errorf("%s: %w", when, err)
			}
			return nil
		})
	}

	more(20)
	c.receivers[1].kill()
	more(40)
	whole("one receiver of three is dead") // complete and without a warning
	c.receivers[1].start()
	c.receivers[1].waitReady()
	more(20)
	whole("the receiver is back")

	for range 5 {
		if err := c.flush(); err != nil {
			t.Fatal(err)
		}
		more(5)
	}
	whole("after flushes under load")
	l.stop()
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	whole("after the last flush")

	for _, r := range c.receivers {
		r.stop(60 * time.Second)
		if err := os.RemoveAll(r.dir); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 60*time.Second, func() error { return l.check(c.query.api("acme"), false) })
	// Without any receiver the querier cannot know that their heads were empty: it must say so.
	ans, err := c.query.api("acme").query(`count(load)`, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(ans.Warnings) == 0 {
		t.Error("no receiver is there and the answer is silent about it")
	}
}

// TestAllInOneCluster joins three all-in-one processes by flags over one bucket directory.
func TestAllInOneCluster(t *testing.T) {
	t.Parallel()
	bucket := t.TempDir()
	var nodes []*node
	for i := 1; i <= 3; i++ {
		n := newNode(t, "a"+strconv.Itoa(i), "all")
		n.args = append(n.args, "--remote-write.address="+n.write, "--receive.replication-factor=3", "--data-dir="+n.dir,
			"--self-scrape.interval=0s", "--objstore.config=type: FILESYSTEM\nconfig: {directory: "+bucket+"}")
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.args = append(n.args, "--gossip.join="+nodes[0].gossipAddr, "--gossip.join="+nodes[1].gossipAddr)
		n.start()
	}
	for _, n := range nodes {
		n.waitReady()
	}
	l := startLoad(t, "http://"+nodes[0].http+"/api/v1/push", "trio", 50, 200*time.Millisecond, nil)
	eventually(t, 60*time.Second, func() error {
		if l.batches() < 20 {
			return fmt.Errorf("%d batches, failures %v", l.batches(), l.failed)
		}
		return nil
	})
	// What was refused before the ring had a quorum is not the matter here: a sender tries again.
	l.mu.Lock()
	l.failed = nil
	l.mu.Unlock()
	nodes[2].kill()
	l.more(15)
	l.stop()
	for _, n := range nodes[:2] {
		eventually(t, 20*time.Second, func() error { return l.check(n.api("default-tenant"), true) })
	}
	if _, err := do(http.MethodPost, "http://"+nodes[0].http+"/api/v1/admin/flush", nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[:2] {
		eventually(t, 20*time.Second, func() error { return l.check(n.api("default-tenant"), true) })
	}
}
