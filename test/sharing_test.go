package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
)

// sharers are store gateways that share one bucket, two owners for each block, and a querier that finds them by gossip.
type sharers struct {
	t      *testing.T
	plan   blocks.Plan
	bucket string
	query  *node
	live   map[string]*node // the gateways that should be there
	flags  []string         // more arguments of gateways
	// patience is how long the gateways may take until they agree.
	patience time.Duration
	come     int          // blocks that came since the start
	grown    atomic.Int64 // windows that came, whose blocks all gateways know
	// rough says that more gateways are away than there are copies to lose. Then answers may name what they lack.
	rough atomic.Bool
}

const sharedCopies = 2

// startSharers starts gateways of a bucket with the id named. "" is a bucket to which no Hearth process ever wrote.
func startSharers(t *testing.T, named string, names ...string) *sharers {
	return startSharersOf(t, t.TempDir(), named, nil, names...)
}

// startSharersOf starts them with more arguments, on a bucket in dir.
func startSharersOf(t *testing.T, dir, named string, flags []string, names ...string) *sharers {
	s := &sharers{t: t, plan: blocks.DefaultPlan(), query: newNode(t, "query", "query"), live: map[string]*node{},
		bucket: "--objstore.config=type: FILESYSTEM\nconfig: {directory: " + dir + "}", flags: flags,
		patience: 60 * time.Second}
	s.plan.Blocks, s.plan.Tenants, s.plan.Interval = 30, 2, 10*time.Minute
	if err := blocks.Write(t.Context(), dir, s.plan); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(flags, layoutMimir) {
		for _, m := range metasIn(t, dir) {
			home := filepath.Join(dir, m.Thanos.Labels["tenant_id"])
			if err := os.MkdirAll(home, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, m.ULID.String()), filepath.Join(home, m.ULID.String())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if named != "" { // a receiver would have written it
		if err := os.Mkdir(filepath.Join(dir, "hearth"), 0o755); err != nil {
			t.Fatal(err)
		}
		id := fmt.Appendf(nil, `{"uuid":%q}`, named)
		if err := os.WriteFile(filepath.Join(dir, "hearth/bucket.json"), id, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		s.add(newNode(t, name, "store"))
	}
	for _, g := range s.live {
		s.query.args = append(s.query.args, "--gossip.join="+g.gossipAddr)
	}
	s.query.start()
	s.query.waitReady()
	s.settled()
	return s
}

// add starts a gateway. The querier's gossip address is known to all, so that a gateway which comes later finds the
// others.
func (s *sharers) add(g *node) {
	if s.live[g.name] = g; g.process == nil {
		g.args = append(g.args, "--gossip.join="+s.query.gossipAddr, "--data-dir="+g.dir, s.bucket,
			fmt.Sprintf("--store.replication-factor=%d", sharedCopies))
		g.args = append(g.args, s.flags...)
	}
	g.start()
}

// remove says that a gateway should not be there any more.
func (s *sharers) remove(name string) *node {
	g := s.live[name]
	delete(s.live, name)
	return g
}

// settled waits until the gateways that should be there own each block sharedCopies times, and until the querier
// sees as many. It goes on to know one that crashed.
func (s *sharers) settled() {
	s.t.Helper()
	for _, g := range s.live {
		g.waitReady()
	}
	eventually(s.t, s.patience, func() error {
		var want, served float64
		have := map[string]float64{}
		for name, g := range s.live {
			m, err := metricsOf(s.t, g)
			if err != nil {
				return err
			}
			have[name] = m.values["hearth_store_owned_blocks"]
			want += have[name]
			served += m.values["hearth_store_blocks"]
		}
		if all := sharedCopies * (s.plan.Blocks + s.come); want != float64(all) || served < want {
			return fmt.Errorf("the gateways own %v blocks and serve %v, want %d", have, served, all)
		}
		m, err := metricsOf(s.t, s.query)
		if err != nil {
			return err
		}
		up := m.values[`hearth_query_endpoints{role="store",state="up"}`]
		if up != float64(len(s.live)) {
			return fmt.Errorf("the querier sees %v gateways, want %d", up, len(s.live))
		}
		return nil
	})
}

func metricsOf(t *testing.T, n *node) (metricsPage, error) {
	page, err := get(n.url("/metrics"), nil)
	if err != nil {
		return metricsPage{}, fmt.Errorf("%s: %w", n.name, err)
	}
	return parseMetrics(t, string(page)), nil
}

// check asks for all samples of a tenant, for its series in each window of blocks, and for label values in the window
// numbered round, of which one block alone has them. The answers must be whole and carry no warning.
func (s *sharers) check(tenant string, round int) error {
	a, window := s.query.api(tenant), s.plan.Window
	grown := int(s.grown.Load())
	windows, end := s.plan.Blocks/s.plan.Tenants+grown, s.plan.End.Add(time.Duration(grown)*window)
	series := s.plan.Shape.Series()
	judge := func(what string, ans answer, err error, got, want string) error {
		if err == nil && (got != want || len(ans.Warnings) > 0) {
			err = fmt.Errorf("the answer is %s, want %s; its warnings are %q", got, want, ans.Warnings)
			if len(ans.Warnings) > 0 {
				err = incomplete{err}
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}

	length := time.Duration(windows) * window
	ans, err := a.query(fmt.Sprintf(`sum(count_over_time({job!=""}[%ds]))`, int(length.Seconds())),
		end.Add(-time.Millisecond))
	want := strconv.Itoa(series * windows * int(window/s.plan.Interval))
	if err := judge("all samples", ans, err, sampleValues(ans), want); err != nil {
		return err
	}
	ans, err = a.queryRange(`count({job!=""})`, end.Add(-length), end.Add(-window), window)
	want = strings.Join(slices.Repeat([]string{strconv.Itoa(series)}, windows), " ")
	if err := judge("series of each window", ans, err, sampleValues(ans), want); err != nil {
		return err
	}
	from := end.Add(-time.Duration(round%windows+1) * window)
	ans, err = a.get("label/namespace/values", url.Values{"start": {seconds(from)},
		"end": {seconds(from.Add(window - time.Millisecond))}})
	var names []string
	for i := range s.plan.Shape.Namespaces {
		names = append(names, blocks.Namespace(i))
	}
	return judge("label values", ans, err, string(ans.Data), jsonOf(names))
}

// incomplete is the error of an answer that says that it may lack something.
type incomplete struct{ error }

// sampleValues are the values of an answer of one series, which may be instant or a range.
func sampleValues(ans answer) string {
	var data struct {
		Result []struct {
			Value  []any
			Values [][]any
		}
	}
	if err := json.Unmarshal(ans.Data, &data); err != nil || len(data.Result) != 1 {
		return string(ans.Data)
	}
	var all []string
	for _, v := range append(data.Result[0].Values, data.Result[0].Value) {
		if len(v) == 2 {
			all = append(all, fmt.Sprint(v[1]))
		}
	}
	return strings.Join(all, " ")
}

// readers ask for everything again and again, as each tenant.
type readers struct {
	answers atomic.Int64
	// short and failed are how many of them named what they lack, and were errors, while it was rough.
	short, failed atomic.Int64
	stopped       chan struct{}
	once          sync.Once // closes stopped
	done          sync.WaitGroup
}

// read begins to read. Every answer must be whole and carry no warning, as long as the readers run and it is not rough.
func (s *sharers) read() *readers {
	r := &readers{stopped: make(chan struct{})}
	s.t.Cleanup(r.stop)
	for i := range s.plan.Tenants {
		r.done.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for round := 0; ; round++ {
				rough := s.rough.Load()
				err := s.check(blocks.Tenant(i), round)
				var refused *statusError
				switch rough = rough || s.rough.Load(); {
				case rough && errors.As(err, new(incomplete)):
					r.short.Add(1)
				case rough && errors.As(err, &refused) && refused.code/100 == 5:
					r.failed.Add(1)
				case err != nil:
					s.t.Errorf("%s: %v", time.Now().Format("15:04:05.000"), err)
				}
				r.answers.Add(1)
				select {
				case <-r.stopped:
					return
				case <-tick.C:
				}
			}
		})
	}
	return r
}

// stop is idempotent.
func (r *readers) stop() {
	r.once.Do(func() { close(r.stopped) })
	r.done.Wait()
}

// more waits for more answers.
func (r *readers) more(t *testing.T, n int64) {
	t.Helper()
	want := r.answers.Load() + n
	eventually(t, 3*time.Minute, func() error {
		if have := r.answers.Load(); have < want {
			return fmt.Errorf("%d answers of %d", have, want)
		}
		return nil
	})
}

// readOnce asks as one tenant while nobody else does: each of its blocks is read by one gateway, and none is asked for
// again.
func (s *sharers) readOnce() {
	s.t.Helper()
	const blocksRead = "thanos_bucket_store_series_blocks_queried_sum"
	const again = "hearth_query_blocks_asked_again_total"
	count := func() (read, asked float64) {
		for _, n := range append(slices.Collect(maps.Values(s.live)), s.query) {
			m, err := metricsOf(s.t, n)
			if err != nil {
				s.t.Fatal(err)
			}
			read, asked = read+m.values[blocksRead], asked+m.values[again]
		}
		return read, asked
	}
	read, asked := count()
	if err := s.check(blocks.Tenant(1), 0); err != nil {
		s.t.Error(err)
	}
	// Two of the questions are selects of all of the tenant's blocks.
	nowRead, nowAsked := count()
	if want := float64(2 * (s.plan.Blocks + s.come) / s.plan.Tenants); nowRead-read != want || nowAsked != asked {
		s.t.Errorf("%v blocks were read and %v asked for again, want %v and 0", nowRead-read, nowAsked-asked, want)
	}
}

// TestSharing: gateways that share a bucket crash, come back, leave and join while readers ask for everything. Every
// answer is whole and carries no warning. When the gateways agree, each block is read once.
func TestSharing(t *testing.T) {
	t.Parallel()
	playSharing(startSharers(t, "shared", "s1", "s2", "s3"))
}

// TestSharingUnnamed is the same with a bucket to which no Hearth process ever wrote. Besides, a gateway on another
// such bucket, which the querier knows by its address, fails: nobody stands in for it.
func TestSharingUnnamed(t *testing.T) {
	t.Parallel()
	s := startSharers(t, "", "s1", "s2", "s3")
	playSharing(s)

	dir := t.TempDir()
	plan := s.plan
	plan.Blocks, plan.End = 2, plan.End.Add(-365*24*time.Hour)
	if err := blocks.Write(t.Context(), dir, plan); err != nil {
		t.Fatal(err)
	}
	other := newNode(t, "other", "store")
	other.args = append(other.args, "--data-dir="+other.dir,
		"--objstore.config=type: FILESYSTEM\nconfig: {directory: "+dir+"}")
	other.start()
	other.waitReady()
	s.query.stop(30 * time.Second)
	s.query.args = append(s.query.args, "--endpoint="+other.grpc)
	s.query.start()
	s.query.waitReady()
	eventually(t, 30*time.Second, func() error { return s.check(blocks.Tenant(1), 0) })
	other.kill()
	eventually(t, 30*time.Second, func() error {
		if err := s.check(blocks.Tenant(1), 0); err == nil || !strings.Contains(err.Error(), other.grpc) {
			return fmt.Errorf("the gateway that failed is not named: %v", err)
		}
		return nil
	})
}

// layoutMimir is the flag of gateways of a bucket in Mimir's layout.
const layoutMimir = "--objstore.layout=mimir"

// TestSharingMimir: gateways share a bucket in Mimir's layout, which never has an id, as any other one. Each block is
// read once, and when one gateway crashes, answers stay whole.
func TestSharingMimir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startSharersOf(t, dir, "", []string{layoutMimir}, "s1", "s2", "s3")
	s.readOnce()
	r := s.read()
	r.more(t, 10)
	s.remove("s2").kill()
	r.more(t, 20)
	s.add(newNode(t, "s4", "store"))
	s.live["s4"].waitReady()
	r.more(t, 10)
	r.stop()
	if left := metasIn(t, dir); len(left) > 0 {
		t.Errorf("%d blocks are at the root", len(left))
	}
	if _, err := os.Stat(filepath.Join(dir, "hearth")); err == nil {
		t.Error("Hearth wrote into the bucket")
	}
}

func playSharing(s *sharers) {
	t := s.t
	s.readOnce()
	r := s.read()
	r.more(t, 10)
	settled := func(when string) {
		t.Helper()
		s.settled()
		r.more(t, 10)
		t.Logf("%s %s", time.Now().Format("15:04:05.000"), when)
	}

	crashed := s.remove("s2")
	crashed.kill()
	settled("a gateway crashed")
	s.add(crashed)
	settled("it came back")
	s.remove("s3").stop(30 * time.Second)
	settled("a gateway left")
	s.add(newNode(t, "s4", "store"))
	settled("another one joined")

	r.stop()
	s.readOnce()
}
