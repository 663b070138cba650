package test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// soakForm is what the short and the long form differ in.
type soakForm struct {
	steps            int // how many; 0 = as many as begin within duration
	duration         time.Duration
	share            []trouble
	longest          time.Duration // of a stop or a partition
	forget           time.Duration // --ring.forget-after
	shards, series   int           // per tenant, and per shard
	net              network
	bucket           soakBucket
	maximumResidence int64    // bytes of resident memory that a process may have
	args             []string // of receivers
}

// soakBucket is an object store that can be made to fail.
type soakBucket struct {
	config      string
	dark, light func()
}

// TestSoak writes all the time, for several tenants, to three receivers and those that come after them, with three
// copies of each series, while they are killed, stopped, cut off, drained, added and robbed of their disks at random.
// In the end every acknowledged sample is read back, once, with its value. Senders and readers that are silent
// surround it all the time.
//
// It takes a minute, over proxies within the test. With SOAK_DURATION (`make soak`: 30m) it takes that long, over
// network namespaces, as root. SOAK_SEED repeats the steps of an earlier run.
func TestSoak(t *testing.T) {
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if s := os.Getenv("SOAK_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
	}
	form := shortSoak
	if os.Getenv("SOAK_DURATION") != "" {
		form = longSoak
	}
	k := startSoak(t, form(t))
	k.say("seed %d (SOAK_SEED=%d repeats the steps)", seed, seed)
	probes := k.probe()
	silent, leave := k.surround()
	p := newPlan(seed, k.form.share, k.form.longest)
	k.pause(2 * time.Second) // some samples from before any trouble
	end := time.Now().Add(k.form.duration)
	for n := 0; n < k.form.steps || k.form.steps == 0 && time.Now().Before(end); n++ {
		k.do(p.next())
	}
	k.enter(step{kind: "end"})
	k.pause(2 * time.Second)
	k.load.stop()
	probes()
	leave()
	k.say("beside them were %d bodies that did not come, %d remote reads and %d streams of which nothing was taken",
		silent.bodies.Load(), silent.reads.Load(), silent.streams.Load())
	if p.exposed {
		k.flush()
	}
	last := k.receivers[p.pick(p.members...)]
	k.say("%s is killed and its disk gone: what was acknowledged has another copy", last.name)
	last.kill()
	k.lose(last.name)
	if err := os.RemoveAll(last.dir); err != nil {
		t.Fatal(err)
	}
	k.verify()
	k.report()
}

func shortSoak(t *testing.T) soakForm {
	// A link, so that one rename makes the bucket no directory at all, and another brings it back.
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	point := func(to string) {
		if err := os.Symlink(to, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "there", "bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	point("there")
	return soakForm{steps: len(shortShare), share: shortShare, longest: 9 * time.Second,
		forget: 12 * time.Second, shards: 3, series: 50, net: newProxies(t),
		maximumResidence: 1 << 30, args: []string{"--tsdb.block-duration=20s"}, bucket: soakBucket{
			config: "type: FILESYSTEM\nconfig: {directory: " + filepath.Join(link, "bucket") + "}",
			dark:   func() { point("file") }, light: func() { point("there") }}}
}

func longSoak(t *testing.T) soakForm {
	d, err := time.ParseDuration(os.Getenv("SOAK_DURATION"))
	if err != nil {
		t.Fatalf("SOAK_DURATION: %v", err)
	}
	net := newNamespaces(t)
	config, s3 := startS3At(t, net.host())
	return soakForm{duration: d, share: longShare, longest: 40 * time.Second,
		forget: 30 * time.Second, shards: 6, series: 350, net: net,
		maximumResidence: 2 << 30, args: []string{"--tsdb.block-duration=2m", "--tsdb.retention=10m"},
		bucket: soakBucket{config: config,
			dark: func() { s3.signal(syscall.SIGSTOP) }, light: func() { s3.signal(syscall.SIGCONT) }}}
}

// soak is a run: receivers that come and go, a store gateway and a querier over one bucket.
type soak struct {
	t            *testing.T
	form         soakForm
	receivers    map[string]*node // those that should be there
	store, query *node
	join         []string
	lb           *balancer
	load         *soakLoad
	began        time.Time

	events  []*event
	lost    bool // a disk
	current atomic.Pointer[event]
	deaf    atomic.Bool // the querier is down, or was a moment ago

	mu    sync.Mutex // guards logs and sizes
	logs  []string
	sizes map[string]int64 // most bytes resident by process
	pids  map[string]int
}

// event is a step, when it was, and what readers saw meanwhile.
type event struct {
	step
	begin time.Time
	// no answer should carry a warning: one receiver is in trouble, none has lost its disk, and blocks are served
	silent bool

	mu                       sync.Mutex // guards what follows
	answers, warned, refused int        // of probes
	faults, warnings         []string
	took                     []time.Duration // by answers
	stalled                  time.Duration   // longest time that the machine did nothing
}

func startSoak(t *testing.T, form soakForm) *soak {
	k := &soak{t: t, form: form, receivers: map[string]*node{}, lb: &balancer{},
		sizes: map[string]int64{}, pids: map[string]int{}, began: time.Now()}
	t.Cleanup(k.keepLogs)
	k.enter(step{kind: "start"})
	k.store, k.query = form.net.node("store", "store"), form.net.node("query", "query")
	k.join = []string{"--gossip.join=" + k.store.gossipAddr, "--gossip.join=" + k.query.gossipAddr,
		"--ring.forget-after=" + form.forget.String()}
	k.store.args = append(k.store.args, "--data-dir="+k.store.dir, "--objstore.config="+form.bucket.config,
		"--sync-block-duration=2s")
	for _, a := range form.args {
		if strings.HasPrefix(a, "--tsdb.retention") { // the querier must know
			k.query.args = append(k.query.args, a)
		}
	}
	nodes := []*node{k.store, k.query}
	for _, n := range nodes {
		n.args = append(n.args, k.join...)
		k.boot(n)
	}
	for i := 1; i <= 3; i++ {
		nodes = append(nodes, k.receiver(fmt.Sprintf("r%d", i)))
	}
	for _, n := range nodes {
		n.waitReady()
	}
	k.settle()
	k.load = startSoakLoad(t, k.lb, form.shards, form.series, time.Second)
	return k
}

func (k *soak) say(format string, args ...any) {
	k.t.Helper()
	k.t.Logf("%s %6.1fs %s", time.Now().Format("15:04:05.000"), time.Since(k.began).Seconds(),
		fmt.Sprintf(format, args...))
}

// boot starts a process, and again after it ended.
func (k *soak) boot(n *node) {
	k.form.net.boot(n)
	n.quiet = true // its log is kept in a file
	k.mu.Lock()
	defer k.mu.Unlock()
	k.logs = append(k.logs, n.log)
	k.pids[n.name] = n.cmd.Process.Pid
}

// receiver starts another receiver.
func (k *soak) receiver(name string) *node {
	n := k.form.net.node(name, "receive")
	n.args = append(
		append(n.args, "--tsdb.path="+n.dir, "--drain.timeout=120s", "--objstore.config="+k.form.bucket.config),
		slices.Concat(k.form.args, k.join)...)
	k.boot(n)
	k.receivers[name] = n
	k.lb.add(n)
	return n
}

// lose takes a receiver off the books.
func (k *soak) lose(name string) {
	delete(k.receivers, name)
	k.lb.remove(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pids, name)
}

// settle waits until every process is ready and sees the receivers that should be there, and no other, and then as
// long as an operator would wait at least: who was away is connected to again.
func (k *soak) settle() {
	k.t.Helper()
	for _, n := range append(slices.Collect(maps.Values(k.receivers)), k.query, k.store) {
		eventually(k.t, 120*time.Second, func() error {
			if _, err := get(n.url("/-/ready"), nil); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			page, err := get(n.url("/metrics"), nil)
			if err != nil {
				return err
			}
			for state, want := range map[string]float64{"active": float64(len(k.receivers)), "down": 0, "leaving": 0,
				"read-only": 0} {
				if err := metricOn(page, `hearth_ring_members{role="receive",state="`+state+`"}`, want); err != nil {
					return fmt.Errorf("%s: %w", n.name, err)
				}
			}
			return metricIs(n, `hearth_ring_members{role="store",state="active"}`, 1)
		})
	}
	k.pause(2 * time.Second)
}

// do makes a step happen and waits until it is over and done with.
func (k *soak) do(s step) {
	k.t.Helper()
	k.say("%s", s)
	k.enter(s)
	var victims []*node
	for _, name := range s.who {
		victims = append(victims, k.receivers[name])
	}
	switch s.kind {
	case killed, outage, wiped:
		k.crash(s, victims)
	case restarted:
		k.beside(s)
		victims[0].stop(60 * time.Second)
		k.boot(victims[0])
	case stopped:
		victims[0].signal(syscall.SIGSTOP)
		k.during(s)
		victims[0].signal(syscall.SIGCONT)
	case partitioned:
		k.cut(s)
		k.during(s)
		k.form.net.heal()
	case drained:
		k.drain(s, victims[0])
	case added:
		k.receiver(s.joins)
	case flushed:
		k.flush()
	case gatewayGone:
		k.store.kill()
		k.during(s)
		k.boot(k.store)
	case bucketGone:
		k.form.bucket.dark()
		k.during(s)
		k.form.bucket.light()
	}
	k.settle()
}

// enter begins a step: what happens from now on belongs to it.
func (k *soak) enter(s step) {
	k.lost = k.lost || s.kind == wiped
	e := &event{step: s, begin: time.Now()}
	e.silent = !s.has(gatewayGone) && !s.has(bucketGone) && !s.has(outage) && !k.lost
	k.events = append(k.events, e)
	k.current.Store(e)
}

// pause lets the load go on for d. The length of a trouble is the plan's: there is no condition to wait for.
func (k *soak) pause(d time.Duration) { time.Sleep(d) }

// during waits as long as the trouble lasts; what is beside it happens first.
func (k *soak) during(s step) {
	end := time.Now().Add(s.lasts)
	k.beside(s)
	k.pause(time.Until(end))
}

// beside makes happen what is no trouble for receivers.
func (k *soak) beside(s step) {
	switch s.beside {
	case flushed:
		for _, n := range k.receivers {
			if !slices.Contains(s.who, n.name) { // it may fail, beside trouble
				_, _ = do(http.MethodPost, n.url("/api/v1/admin/flush"), nil, nil)
				return
			}
		}
	case gatewayGone:
		k.store.kill()
		k.pause(time.Second)
		k.boot(k.store)
	case bucketGone:
		k.form.bucket.dark()
		k.pause(3 * time.Second)
		k.form.bucket.light()
	case querierGone:
		k.deaf.Store(true)
		k.query.kill()
		k.boot(k.query)
		k.query.waitReady()
		k.deaf.Store(false)
	}
}

// crash kills, and starts again: with their disks, without, or others.
func (k *soak) crash(s step, victims []*node) {
	for _, n := range victims {
		k.engage(n, s.how)
	}
	k.pause(s.amid)
	for _, n := range victims {
		n.kill()
	}
	if s.kind == wiped {
		if err := os.RemoveAll(victims[0].dir); err != nil {
			k.t.Fatal(err)
		}
	}
	k.during(s)
	if s.joins != "" {
		k.lose(s.who[0])
		k.receiver(s.joins)
		return
	}
	for _, n := range victims {
		k.boot(n)
	}
}

// engage gives a receiver something to do in the midst of which it is killed. It need not succeed.
func (k *soak) engage(n *node, how string) {
	post := func(path string) {
		go func() { _, _ = do(http.MethodPost, n.url(path), nil, nil) }()
	}
	switch how {
	case "flushing":
		post("/api/v1/admin/flush")
	case "draining":
		post("/ring/drain")
	case "stopping":
		n.signal(syscall.SIGTERM)
	case "starting":
		n.kill()
		k.boot(n)
	}
}

// cut cuts a receiver off as the step says.
func (k *soak) cut(s step) {
	others := slices.DeleteFunc(slices.Collect(maps.Keys(k.receivers)), func(o string) bool { return o == s.who[0] })
	slices.Sort(others)
	switch {
	case strings.HasSuffix(s.how, "one receiver"):
		others = others[:1]
	case strings.HasSuffix(s.how, "everybody"):
		others = append(others, k.store.name, k.query.name)
	}
	for _, o := range others {
		if strings.HasPrefix(s.how, "to") {
			k.form.net.cut(o, s.who[0])
		}
		if strings.Contains(s.how, "from") {
			k.form.net.cut(s.who[0], o)
		}
	}
}

// drain takes a receiver away for good.
func (k *soak) drain(s step, n *node) {
	if s.joins != "" && strings.HasSuffix(s.how, "before") {
		k.receiver(s.joins)
		k.settle()
	}
	if _, err := do(http.MethodPost, n.url("/ring/drain"), nil, nil); err != nil {
		k.t.Fatalf("drain of %s: %v", n.name, err)
	}
	k.beside(s)
	if code := n.wait(150 * time.Second); code != 0 {
		k.t.Errorf("%s was drained and ended with status %d", n.name, code)
	}
	k.lose(n.name)
	if s.joins != "" && strings.HasSuffix(s.how, "after") {
		k.settle()
		k.receiver(s.joins)
	}
}

// flush has everything shipped that was acknowledged before.
func (k *soak) flush() {
	for _, n := range k.receivers {
		eventually(k.t, 120*time.Second, func() error {
			_, err := do(http.MethodPost, n.url("/api/v1/admin/flush"), nil, nil)
			return err
		})
	}
}
