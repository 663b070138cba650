package test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// trio is three receivers that gossip, write three copies, and a querier. Senders write to any of the receivers.
type trio struct {
	t         *testing.T
	receivers []*node
	query     *node
}

func startTrio(t *testing.T, more ...string) *trio {
	c := &trio{t: t, query: newNode(t, "query", "query")}
	for i := 1; i <= 3; i++ {
		r := newNode(t, "r"+strconv.Itoa(i), "receive")
		r.args = append(append(r.args, "--tsdb.path="+r.dir), more...)
		c.receivers = append(c.receivers, r)
	}
	nodes := append(append([]*node{}, c.receivers...), c.query)
	for _, n := range nodes {
		n.args = append(n.args, "--gossip.join="+c.receivers[0].gossipAddr, "--gossip.join="+c.receivers[1].gossipAddr)
		n.start()
	}
	for _, n := range nodes {
		n.waitReady()
		c.knowsAll(n)
	}
	return c
}

// knowsAll waits until n sees all receivers at work.
func (c *trio) knowsAll(n *node) {
	c.t.Helper()
	eventually(c.t, 30*time.Second,
		func() error { return metricIs(n, `hearth_ring_members{role="receive",state="active"}`, 3) })
}

// write sends a few series at the present time through n.
func (c *trio) write(n *node, job string) error {
	_, err := do(http.MethodPost, "http://"+n.write+"/api/v1/receive", writeHeader(nil),
		writeBody(job, 10, time.Now().UnixMilli()))
	return err
}

func (l *load) more(n int) {
	l.t.Helper()
	want := l.batches() + n
	eventually(l.t, 30*time.Second, func() error {
		if have := l.batches(); have < want {
			return fmt.Errorf("%d of %d batches acknowledged", have, want)
		}
		return nil
	})
}

// reader checks over and over that all of a load that has ended is there, without a warning.
type reader struct {
	reads   int
	failed  []error
	stopped chan struct{}
	done    sync.WaitGroup
}

func startReader(l *load, a api) *reader {
	r := &reader{stopped: make(chan struct{})}
	r.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.stopped:
				return
			case <-tick.C:
			}
			r.reads++
			if err := l.check(a, true); err != nil {
				r.failed = append(r.failed, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
			}
		}
	})
	return r
}

// stop fails the test if any answer was not whole.
func (r *reader) stop(t *testing.T) {
	t.Helper()
	close(r.stopped)
	r.done.Wait()
	if len(r.failed) > 0 || r.reads < 10 {
		t.Errorf("%d of %d reads were not whole: %v", len(r.failed), r.reads,
			errors.Join(r.failed[:min(5, len(r.failed))]...))
	}
}

// TestRollingRestart restarts each receiver under load: nobody who writes to the others notices, no sample is lost, and
// whoever reads meanwhile gets everything.
func TestRollingRestart(t *testing.T) {
	rolling(t, func(r *node) { r.stop(30 * time.Second) })
}

// TestRollingCrash is the same with receivers that die without a word.
func TestRollingCrash(t *testing.T) {
	rolling(t, func(r *node) { r.kill() })
}

func rolling(t *testing.T, end func(*node)) {
	c := startTrio(t)
	base := startLoad(t, "http://"+c.receivers[0].write+"/api/v1/receive", "base", 20, 50*time.Millisecond, nil)
	base.more(20)
	base.stop()
	eventually(t, 20*time.Second, func() error { return base.check(c.query.api("default-tenant"), true) })
	reads := startReader(base, c.query.api("default-tenant"))
	var loads []*load
	for i, r := range c.receivers {
		var now []*load
		for j, other := range c.receivers {
			if j == i {
				continue
			}
			l := startLoad(t, "http://"+other.write+"/api/v1/receive", fmt.Sprintf("restart-%s-write-%s", r.name, other.name),
				20, 50*time.Millisecond, nil)
			now = append(now, l)
		}
		for _, l := range now {
			l.more(5)
		}
		end(r)
		for _, l := range now {
			l.more(10) // without it
		}
		r.start()
		r.waitReady()
		for _, n := range c.receivers {
			c.knowsAll(n)
		}
		for _, l := range now {
			l.more(10)
			l.stop()
		}
		loads = append(loads, now...)
	}
	reads.stop(t)
	for _, l := range loads {
		eventually(t, 20*time.Second, func() error {
			if err := l.check(c.query.api("default-tenant"), true); err != nil {
				return fmt.Errorf("%s: %w", l.job, err)
			}
			return nil
		})
	}
}

// TestWipedDisk: a receiver that comes back with an empty disk. The other two hold a quorum of what it lost, so answers
// are complete and say nothing; when one of those is gone too, answers over old times say so.
func TestWipedDisk(t *testing.T) {
	c := startTrio(t)
	l := startLoad(t, "http://"+c.receivers[0].write+"/api/v1/receive", "wiped", 20, 50*time.Millisecond, nil)
	l.more(20)
	l.stop()
	for _, r := range c.receivers { // all three copies are there
		eventually(t, 20*time.Second, func() error { return metricIs(r, `prometheus_tsdb_head_series.*`, 20) })
	}
	victim := c.receivers[1]
	victim.kill()
	if err := os.RemoveAll(victim.dir); err != nil {
		t.Fatal(err)
	}
	wiped := time.Now()
	eventually(t, 3*time.Second, func() error { // disks are distinguished by the second in which they began
		if time.Now().Unix() <= wiped.Unix()+1 {
			return errors.New("the new disk would begin in the second in which the old one ended")
		}
		return nil
	})
	victim.start()
	victim.waitReady()
	c.knowsAll(c.query)
	eventually(t, 20*time.Second, func() error { return l.check(c.query.api("default-tenant"), true) })
	eventually(t, 20*time.Second, func() error { return c.write(victim, "after") })

	c.receivers[0].kill()
	eventually(t, 30*time.Second, func() error { // by the one copy that is left; whether that is all nobody can know
		if err := l.check(c.query.api("default-tenant"), false); err != nil {
			return err
		}
		ans, err := c.query.api("default-tenant").query(`count(load{job="wiped"})`, time.UnixMilli(l.acked[0]+1000))
		if err != nil {
			return err
		}
		if text := strings.Join(ans.Warnings, " "); !strings.Contains(text, "r1") {
			return fmt.Errorf("r1 is dead, r2 has lost its disk, and the warnings are %q", ans.Warnings)
		}
		return nil
	})
}

// TestStrangers: a process that does not belong to the cluster says why and ends; the cluster does not notice.
func TestStrangers(t *testing.T) {
	t.Parallel()
	bucket := func(dir string) string { return "--objstore.config=type: FILESYSTEM\nconfig: {directory: " + dir + "}" }
	ours := bucket(t.TempDir())
	c := startTrio(t, ours)
	joining := func(name string, more ...string) []string {
		n := newNode(t, name, "receive")
		return append(append(n.args, "--tsdb.path="+n.dir, "--gossip.join="+c.receivers[0].gossipAddr), more...)
	}
	other := joining("r4", ours)
	for i, a := range other {
		other[i] = strings.Replace(a, "--receive.replication-factor=3", "--receive.replication-factor=2", 1)
	}
	refuses(t, nil, other, "replication factor 2", "has 3")
	refuses(t, nil, joining("r5", bucket(t.TempDir())), "uses bucket", "all members of a cluster need the same")
	refuses(t, nil, joining("r6"), "no bucket")
	refuses(t, nil, joining("r2", ours), `instance id \"r2\"`, "in use", c.receivers[1].grpc)
	for _, r := range c.receivers {
		if err := c.write(r, "strangers"); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		c.knowsAll(r)
	}
}
