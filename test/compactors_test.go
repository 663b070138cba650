package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
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

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/block"
)

const (
	fourteenDays    = 14 * 24 * time.Hour
	compactInterval = 30 * time.Second // between samples
	compactWindow   = 2 * time.Hour
)

// written is what one tenant writes: windows of two hours, in each of which two instances have a counter, a gauge and a
// native histogram.
type written struct {
	tenant  string
	windows []time.Time // their begins, in order
	sent    int         // samples without stale markers, by Prometheus
}

// fullHistory has a window for each two hours of hours.
func fullHistory(tenant string, begin time.Time, hours int) *written {
	h := &written{tenant: tenant}
	for at := range hours / 2 {
		h.windows = append(h.windows, begin.Add(time.Duration(at)*compactWindow))
	}
	return h
}

// sparseHistory has a window on each day.
func sparseHistory(tenant string, begin time.Time, days int) *written {
	h := &written{tenant: tenant}
	for day := range days {
		h.windows = append(h.windows, begin.Add(time.Duration(day)*(24*time.Hour+compactWindow)))
	}
	return h
}

func (h *written) begin() time.Time { return h.windows[0] }
func (h *written) end() time.Time   { return h.windows[len(h.windows)-1].Add(compactWindow) }

// bodies are the requests of a window. Of every fifth one the second half is sent first.
func (h *written) bodies(window int) [][]byte {
	half := compactWindow / 2
	halves := []time.Time{h.windows[window], h.windows[window].Add(half)}
	if window%5 == 3 {
		slices.Reverse(halves)
	}
	var all [][]byte
	for _, from := range halves {
		req := &prompb.WriteRequest{}
		for i := range 2 {
			req.Timeseries = append(req.Timeseries, h.series(i, from, from.Add(half))...)
		}
		all = append(all, encode(req))
	}
	return all
}

// series are the series of an instance from one time to another. The counter begins anew in each window. The gauge ends
// with a stale marker 20 minutes after a full hour, and is back 15 minutes later.
func (h *written) series(i int, from, to time.Time) []prompb.TimeSeries {
	named := func(name string) prompb.TimeSeries {
		return prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: name}, {Name: "i", Value: fmt.Sprint(i)},
			{Name: "job", Value: h.tenant}}}
	}
	counter, gauge, native := named("c"), named("g"), named("h")
	for at := from; at.Before(to); at = at.Add(compactInterval) {
		ms := at.UnixMilli()
		n := ms % compactWindow.Milliseconds() / compactInterval.Milliseconds()
		counter.Samples = append(counter.Samples, prompb.Sample{Timestamp: ms, Value: float64(n*int64(i+3) + 7)})
		minute := ms / 60_000 % 60
		switch v := float64((ms / 1000 * int64(i+1)) % 997); {
		case ms%3_600_000 == 20*60_000:
			gauge.Samples = append(gauge.Samples, prompb.Sample{Timestamp: ms, Value: math.Float64frombits(value.StaleNaN)})
		case minute < 20 || minute >= 35:
			gauge.Samples = append(gauge.Samples, prompb.Sample{Timestamp: ms, Value: v})
		}
		native.Histograms = append(native.Histograms, prompb.FromIntHistogram(ms, nativeAt(uint64(n)+1, uint64(i)+1)))
	}
	return []prompb.TimeSeries{counter, gauge, native}
}

// nativeAt is a histogram of n observations in each of a few buckets.
func nativeAt(n, factor uint64) *histogram.Histogram {
	return &histogram.Histogram{Schema: 1, ZeroThreshold: 0.001, ZeroCount: n, Count: n + 3*n*factor, Sum: float64(n * 5),
		PositiveSpans:   []histogram.Span{{Offset: 0, Length: 2}, {Offset: 3, Length: 1}},
		PositiveBuckets: []int64{int64(n * factor), 0, 0}}
}

// compactors is a ring of three receivers, two store gateways that share a bucket, a querier, and two compactors. A
// Prometheus gets all that is written.
type compactors struct {
	t           *testing.T
	dir         string // the bucket
	bucket      string // the flag of it
	distributor *node
	query       *node
	receivers   []*node
	gateways    []*node
	workers     []*node
	prom        api
	promWrite   string
	histories   []*written
	blocks      int // that the receivers shipped
}

// startCompactors starts everything but the compactors.
func startCompactors(t *testing.T, histories ...*written) *compactors {
	c := &compactors{t: t, dir: t.TempDir(), histories: histories, distributor: newNode(t, "distributor", "distributor"),
		query: newNode(t, "query", "query")}
	c.bucket = "--objstore.config=type: FILESYSTEM\nconfig: {directory: " + c.dir + "}"
	join := []string{"--gossip.join=" + c.distributor.gossipAddr, "--gossip.join=" + c.query.gossipAddr}
	for i := range 3 {
		r := newNode(t, "r"+strconv.Itoa(i), "receive")
		r.args = append(r.args, "--tsdb.path="+r.dir, c.bucket, "--tsdb.out-of-order.time-window=100d")
		c.receivers = append(c.receivers, r)
	}
	for i := range 2 {
		g := newNode(t, "s"+strconv.Itoa(i), "store")
		g.args = append(g.args, "--data-dir="+g.dir, c.bucket, "--sync-block-duration=1s", "--store.replication-factor=1")
		c.gateways = append(c.gateways, g)
		w := newNode(t, "c"+strconv.Itoa(i), "compact")
		w.args = slices.DeleteFunc(w.args, func(arg string) bool { return strings.HasPrefix(arg, "--grpc-address") })
		w.args = append(w.args, "--data-dir="+w.dir, c.bucket, "--wait", "--wait-interval=1s",
			"--compact.cleanup-interval=1s", "--consistency-delay=0s", "--delete-delay=10s")
		c.workers = append(c.workers, w)
	}
	for _, n := range c.workers {
		n.args = append(n.args, join...)
	}
	all := slices.Concat(c.receivers, c.gateways, []*node{c.distributor, c.query})
	for _, n := range all {
		n.args = append(n.args, join...)
		n.start()
	}
	_, base := startPrometheus(t, func(string) string { return "storage: {tsdb: {out_of_order_time_window: 100d}}\n" },
		"--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=10y")
	c.prom, c.promWrite = api{base: base}, base+"/api/v1/write"
	for _, n := range all {
		n.waitReady()
	}
	c.settled()
	return c
}

// settled waits until those who route and ask see all receivers.
func (c *compactors) settled() {
	c.t.Helper()
	for _, n := range []*node{c.distributor, c.query} {
		eventually(c.t, 30*time.Second, func() error {
			return metricIs(n, `hearth_ring_members{role="receive",state="active"}`, float64(len(c.receivers)))
		})
	}
}

// fill writes all histories, flushes, and gives the receivers empty disks, so that gateways alone have the samples. One
// receiver is away for a while: it lacks samples, and its chunks end elsewhere.
func (c *compactors) fill() {
	c.t.Helper()
	away, steps := c.receivers[1], 0
	for _, h := range c.histories {
		steps = max(steps, len(h.windows))
	}
	for n := range steps {
		switch n {
		case steps / 3:
			away.stop(60 * time.Second)
		case steps/3 + 2:
			away.start()
			away.waitReady()
			c.settled()
		}
		for _, h := range c.histories {
			if n < len(h.windows) {
				c.write(h, n)
			}
		}
	}
	for _, r := range c.receivers {
		eventually(c.t, 3*time.Minute, func() error { // more blocks than one request has time for
			_, err := do(http.MethodPost, r.url("/api/v1/admin/flush"), nil, nil)
			return err
		})
	}
	for _, r := range c.receivers {
		r.stop(60 * time.Second)
		if err := os.RemoveAll(r.dir); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, r := range c.receivers {
		r.start()
	}
	for _, r := range c.receivers {
		r.waitReady()
	}
	c.settled()
	for _, h := range c.histories {
		for _, name := range []string{"c", "g", "h"} {
			ans, err := c.prom.query(fmt.Sprintf(`sum(count_over_time(%s{job=%q}[%ds]))`, name, h.tenant,
				c.seconds(h)+1), h.end())
			if err != nil {
				c.t.Fatal(err)
			}
			n, _ := strconv.Atoi(sampleValues(ans))
			h.sent += n
		}
	}
	c.blocks = len(metasIn(c.t, c.dir))
}

// seconds are the seconds of a history.
func (c *compactors) seconds(h *written) int { return int(h.end().Sub(h.begin()).Seconds()) }

// write sends a window to Hearth and to Prometheus.
func (c *compactors) write(h *written, window int) {
	c.t.Helper()
	for _, body := range h.bodies(window) {
		eventually(c.t, 30*time.Second, func() error { // a sender tries again
			_, err := do(http.MethodPost, "http://"+c.distributor.write+"/api/v1/receive",
				writeHeader(tenantHeader(h.tenant)), body)
			return err
		})
		if _, err := do(http.MethodPost, c.promWrite, writeHeader(nil), body); err != nil {
			c.t.Fatal(err)
		}
	}
}

// question is what is asked of both, with the answer of Prometheus.
type question struct {
	tenant, path string
	params       url.Values
	want         answer
}

// questions are asked again and again: they need all samples, and see a series that is there twice.
func (c *compactors) questions(h *written) (all []question) {
	c.t.Helper()
	for _, expr := range []string{`count by (__name__, i) ({job!=""})`, `{__name__="g"}`, `sum by (i) (rate(c[10m]))`,
		`histogram_quantile(0.9, sum(rate(h[10m])))`, `h{i="0"}`, `sum by (i) (sum_over_time(g[1h]))`,
		`sum by (i) (count_over_time(c[1h]))`} {
		step := max(h.end().Sub(h.begin())/300, compactInterval).Truncate(compactInterval)
		params := url.Values{"query": {strings.ReplaceAll(expr, `job!=""`, fmt.Sprintf("job=%q", h.tenant))},
			"start": {seconds(h.begin())}, "end": {seconds(h.end())}, "step": {fmt.Sprint(step.Seconds())},
			"max_source_resolution": {"0s"}}
		all = append(all, question{tenant: h.tenant, path: "query_range", params: c.own(params, h)})
	}
	return all
}

// own limits the selectors of questions to a tenant: Prometheus has the samples of all of them.
func (c *compactors) own(params url.Values, h *written) url.Values {
	expr := params.Get("query")
	for _, name := range []string{"c", "g", "h"} {
		expr = strings.ReplaceAll(expr, "("+name+"[", fmt.Sprintf("(%s{job=%q}[", name, h.tenant))
		expr = strings.ReplaceAll(expr, fmt.Sprintf("{__name__=%q}", name), fmt.Sprintf("%s{job=%q}", name, h.tenant))
		expr = strings.ReplaceAll(expr, name+`{i=`, fmt.Sprintf("%s{job=%q,i=", name, h.tenant))
	}
	params.Set("query", expr)
	return params
}

// answered fills in what Prometheus says.
func (c *compactors) answered(all []question) []question {
	c.t.Helper()
	for i := range all {
		q := &all[i]
		var err error
		if q.want, err = c.prom.get(q.path, q.params); err != nil {
			c.t.Fatal(err)
		}
		if strings.Contains(string(q.want.Data), `"result":[]`) {
			c.t.Fatalf("%s finds nothing", q.params.Get("query"))
		}
	}
	return all
}

// ask compares. The answer must be whole, and carry no warning.
func (c *compactors) ask(q question) error {
	got, err := c.query.api(q.tenant).get(q.path, q.params)
	if err != nil {
		return err
	}
	if len(got.Warnings) > 0 {
		return fmt.Errorf("%s: warnings %q", q.params.Get("query"), got.Warnings)
	}
	if d := diff(q.want.Data, got.Data); d != "" {
		return fmt.Errorf("%s: %s", q.params.Get("query"), d)
	}
	return nil
}

// watch asks until it is stopped.
func (c *compactors) watch(all []question) (stop func() (answers int64)) {
	var n atomic.Int64
	stopped, done := make(chan struct{}), sync.WaitGroup{}
	for i := range c.histories {
		done.Go(func() {
			for k := i; ; k++ {
				select {
				case <-stopped:
					return
				default:
				}
				if err := c.ask(all[k%len(all)]); err != nil {
					c.t.Errorf("%s: %v", time.Now().Format("15:04:05.000"), err)
				}
				n.Add(1)
			}
		})
	}
	end := sync.OnceFunc(func() { close(stopped); done.Wait() })
	c.t.Cleanup(end)
	return func() int64 { end(); return n.Load() }
}

// compactStatus is what /compact says.
type compactStatus struct {
	Rests            string
	Marked           int
	Running, Planned []struct{ ID, Kind string }
	Failed           []json.RawMessage
}

func compactStatusOf(n *node) (s compactStatus, err error) {
	b, err := get(n.url("/compact"), nil)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &struct{ Data *compactStatus }{&s})
}

// killInJob kills a compactor in the middle of a job, which leaves the job's files, and starts it again. It returns how
// many blocks it had made.
func (c *compactors) killInJob(w *node) (made int) {
	c.t.Helper()
	jobs := func() int {
		left, _ := os.ReadDir(filepath.Join(w.dir, "compact", "jobs"))
		return len(left)
	}
	end, tick := time.Now().Add(time.Minute), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(end) {
		if <-tick.C; jobs() == 0 {
			continue
		}
		w.kill()
		in := jobs() > 0
		made += strings.Count(w.output(), "made a block")
		w.start()
		w.waitReady()
		if in {
			return made
		}
	}
	c.t.Error("the compactor was never killed in a job")
	return made
}

// over says what is still to be done.
func (c *compactors) over() error {
	for _, w := range c.workers {
		s, err := compactStatusOf(w)
		if err != nil {
			return err
		}
		if len(s.Failed) > 0 || s.Rests != "" {
			c.t.Fatalf("%s: failed %s, rests %q", w.name, s.Failed, s.Rests)
		}
		if len(s.Running)+len(s.Planned)+s.Marked > 0 {
			return fmt.Errorf("%s: running %v, planned %v, %d marked", w.name, s.Running, s.Planned, s.Marked)
		}
	}
	return c.oneCopy()
}

// oneCopy reports whether the bucket has each sample once, and what is due of 5m and 1h.
func (c *compactors) oneCopy() error {
	metas := metasIn(c.t, c.dir)
	for _, h := range c.histories {
		byResolution := map[int64][]*block.Meta{}
		for _, m := range metas {
			if m.Thanos.Labels["tenant_id"] == h.tenant {
				r := m.Thanos.Downsample.Resolution
				byResolution[r] = append(byResolution[r], m)
			}
		}
		samples, largest := 0, time.Duration(0)
		for r, list := range byResolution {
			slices.SortFunc(list, func(a, b *block.Meta) int { return int(a.MinTime - b.MinTime) })
			for i, m := range list {
				if i > 0 && m.MinTime < list[i-1].MaxTime {
					return fmt.Errorf("%s: blocks %s and %s of %d overlap", h.tenant, list[i-1].ULID, m.ULID, r)
				}
				length := time.Duration(m.MaxTime-m.MinTime) * time.Millisecond
				if r == 0 {
					samples, largest = samples+int(m.Stats.NumSamples), max(largest, length)
				}
				for _, coarser := range []struct {
					resolution int64
					from       time.Duration
				}{{300_000, 40 * time.Hour}, {3_600_000, 10 * 24 * time.Hour}} {
					covers := func(o *block.Meta) bool { return o.MinTime <= m.MinTime && o.MaxTime >= m.MaxTime }
					if r < coarser.resolution && length >= coarser.from &&
						!slices.ContainsFunc(byResolution[coarser.resolution], covers) {
						return fmt.Errorf("%s: block %s of %s has no block of %d", h.tenant, m.ULID, length, coarser.resolution)
					}
				}
			}
		}
		if want := h.sent + c.stale(h); samples != want {
			return fmt.Errorf("%s: the bucket has %d raw samples, want %d", h.tenant, samples, want)
		}
		if want := min(h.end().Sub(h.begin()).Truncate(48*time.Hour), 13*24*time.Hour); largest < want {
			return fmt.Errorf("%s: the largest block has %s, want %s", h.tenant, largest, want)
		}
	}
	return nil
}

// stale are the stale markers of a history, which queries do not count.
func (c *compactors) stale(h *written) int { return len(h.windows) * 2 * 2 }

// coarse compares answers that read 5m and 1h with those of raw samples, over windows that end at full hours. from is a
// full hour with samples from it on.
func (c *compactors) coarse(h *written, from time.Time, length, resolution time.Duration) {
	c.t.Helper()
	at := from.Add(length - time.Millisecond)
	ask := func(a api, expr string) answer {
		ans, err := a.get("query", url.Values{"query": {expr}, "time": {seconds(at)},
			"max_source_resolution": {fmt.Sprint(resolution)}})
		if err != nil {
			c.t.Fatal(err)
		}
		return ans
	}
	hearth := c.query.api(h.tenant)
	for _, form := range []string{"sum_over_time(g%s)", "count_over_time(g%s)", "max_over_time(g%s)", "min_over_time(g%s)",
		"avg_over_time(g%s)", "sum_over_time(c%s)", "count_over_time(c%s)"} {
		expr := fmt.Sprintf(form, fmt.Sprintf(`{job=%q}[%ds]`, h.tenant, int(length.Seconds())))
		want, got := ask(c.prom, expr), ask(hearth, expr)
		if d := diff(want.Data, got.Data); d != "" || len(got.Warnings) > 0 {
			c.t.Errorf("%s at %d with %s: %s, warnings %q", expr, at.UnixMilli(), resolution, d, got.Warnings)
		}
	}
	// An increase is extrapolated from the last sample of each window. So it may differ by what is added in a window at
	// each end.
	for _, form := range []string{"sum(increase(c%s))", "histogram_count(sum(increase(h%s)))"} {
		expr := fmt.Sprintf(form, fmt.Sprintf(`{job=%q}[%ds]`, h.tenant, int(length.Seconds())))
		want, err1 := scalarOf(ask(c.prom, expr))
		got, err2 := scalarOf(ask(hearth, expr))
		may := want * 2 * resolution.Seconds() / min(length, compactWindow).Seconds()
		if err := errors.Join(err1, err2); err != nil || math.Abs(want-got) > may {
			c.t.Errorf("%s at %d with %s: %v, want %v, which may differ by %v (%v)", expr, at.UnixMilli(), resolution, got,
				want, may, err)
		}
	}
	var data struct{ Result []struct{ Values [][]any } }
	ans := ask(hearth, fmt.Sprintf("g[%ds]", int(length.Seconds())))
	if err := json.Unmarshal(ans.Data, &data); err != nil || len(data.Result) != 2 {
		c.t.Fatalf("%v: %.300s", err, ans.Data)
	}
	if n := len(data.Result[0].Values); n > int(length/resolution) {
		c.t.Errorf("%s: %d samples for %s at %s: those of raw blocks were read", h.tenant, n, length, resolution)
	}
}

// TestCompactors: three receivers ship what came in days, each its own copy, one with a gap. Two compactors share the
// work; one is killed in a job, and comes back. Gateways serve all the time: every answer is whole, and equals that of
// a Prometheus that has everything. In the end the bucket has each sample once, and blocks of 5m and 1h where they are
// due, which give the same answers. HEARTH_COMPACT_DAYS is a longer form: the days of the tenant that always writes.
func TestCompactors(t *testing.T) {
	t.Parallel()
	hours := 60
	if days, _ := strconv.Atoi(os.Getenv("HEARTH_COMPACT_DAYS")); days > 0 {
		hours = days * 24
	}
	border := time.Now().Add(-70 * 24 * time.Hour).UnixMilli()
	begin := time.UnixMilli(border - border%fourteenDays.Milliseconds())
	days, weeks := fullHistory("days", begin, hours), sparseHistory("weeks", begin, 18)
	c := startCompactors(t, days, weeks)
	began := time.Now()
	c.fill()
	t.Logf("filled in %s: %d blocks, %d and %d samples", time.Since(began), c.blocks, days.sent, weeks.sent)

	questions := c.answered(slices.Concat(c.questions(days), c.questions(weeks)))
	eventually(t, 30*time.Second, func() error { // the gateways see what was shipped last
		for _, q := range questions {
			if err := c.ask(q); err != nil {
				return err
			}
		}
		return nil
	})
	stop := c.watch(questions)
	began = time.Now()
	for _, w := range c.workers {
		w.start()
	}
	for _, w := range c.workers {
		w.waitReady()
	}
	made := c.killInJob(c.workers[0])
	eventually(t, 2*time.Minute, c.over)
	took := time.Since(began)
	answers := stop()
	for _, w := range c.workers {
		n := strings.Count(w.output(), "made a block")
		t.Logf("%s made %d blocks", w.name, n)
		made += n
	}
	t.Logf("%d blocks became %d in %s, %d were made; %d answers", c.blocks, len(metasIn(t, c.dir)), took, made, answers)

	for _, h := range c.histories {
		for _, q := range c.answered([]question{{tenant: h.tenant, path: "query", params: url.Values{
			"query": {fmt.Sprintf(`{job=%q}[%ds]`, h.tenant, c.seconds(h))}, "time": {seconds(h.end())}}}}) {
			if err := c.ask(q); err != nil {
				t.Error(err)
			}
		}
	}
	c.coarse(days, days.begin().Add(6*time.Hour), 12*time.Hour, 5*time.Minute)
	c.coarse(weeks, weeks.windows[3], 2*time.Hour, 5*time.Minute)
	c.coarse(weeks, weeks.windows[5], 24*time.Hour, time.Hour)
	if n := strings.Count(c.workers[1].output(), "made a block"); n == 0 {
		t.Error("the second compactor did nothing")
	}
}
