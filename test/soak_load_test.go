package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// soakTenant says how a tenant of the soak writes.
type soakTenant struct {
	id         string
	v2         bool // remote write 2.0
	histograms bool
	churn      int           // slots after which a series gets another identity; 0 = never
	reversed   bool          // samples come in reverse order, sixteen at a time
	late       time.Duration // by which samples are older than the time they are sent at
	tries      int           // after which a request is given up; 0 = never, as Prometheus
}

var soakTenants = []*soakTenant{
	{id: "plain"},
	{id: "churn", v2: true, churn: 20},
	{id: "histograms", v2: true, histograms: true},
	{id: "disorder", reversed: true},
	{id: "late", late: 40 * time.Minute},
	{id: "impatient", tries: 1},
}

// soakShard is a sender of some series of a tenant, as a shard of Prometheus's remote write: one request after another,
// each again until it is acknowledged. In slot n it sends one sample of each series, of the time at(n), whose value is
// a function of the series and the time.
type soakShard struct {
	*soakTenant
	number, series int
	first          int64 // ms, of slot 0
	interval       int64 // ms

	mu    sync.Mutex // guards slots
	slots []slot     // those begun
}

// slot is the outcome of one request.
type slot struct {
	acked time.Time     // zero = not acknowledged
	by    string        // the member that acknowledged it
	took  time.Duration // of the last try
	tries int
}

const reversal = 16

func (s *soakShard) at(n int) int64 {
	if s.reversed {
		n = n/reversal*reversal + reversal - 1 - n%reversal - reversal
	}
	return s.first + int64(n)*s.interval - s.late.Milliseconds()
}

// slotOf is the inverse of at.
func (s *soakShard) slotOf(at int64) (n int, ok bool) {
	d := at + s.late.Milliseconds() - s.first
	if d%s.interval != 0 {
		return 0, false
	}
	n = int(d / s.interval)
	if s.reversed {
		n += reversal
		n = n/reversal*reversal + reversal - 1 - n%reversal
	}
	return n, n >= 0 && s.at(n) == at
}

// life counts the identities that series i had before slot n.
func (s *soakShard) life(i, n int) int {
	if s.churn == 0 {
		return 0
	}
	return (n + i*7) / s.churn
}

// value mixes what names a sample into 53 bits: a sample at the wrong place has the wrong value.
func (s *soakShard) value(i int, at int64) float64 {
	x := uint64(at)<<20 ^ uint64(s.number)<<12 ^ uint64(i)
	for _, c := range []byte(s.id) {
		x = x*31 + uint64(c)
	}
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return float64(x>>11) / 8
}

// buckets are the counts of a histogram with that value.
func buckets(v float64) []int64 {
	bits := math.Float64bits(v)
	counts := make([]int64, 1+bits>>10%4)
	for i := range counts {
		counts[i] = 1 + int64(bits>>(12+4*i)%16)
	}
	return counts
}

func (s *soakShard) labels(i, n int) [][2]string {
	return [][2]string{{"__name__", "soak"}, {"job", "node"}, {"life", strconv.Itoa(s.life(i, n))}, {"mode", "user"},
		{"series", strconv.Itoa(i)}, {"shard", strconv.Itoa(s.number)}}
}

func (s *soakShard) body(n int) []byte {
	at := s.at(n)
	if s.v2 {
		return s.body2(n, at)
	}
	req := &prompb.WriteRequest{}
	for i := range s.series {
		ts := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: at, Value: s.value(i, at)}}}
		for _, l := range s.labels(i, n) {
			ts.Labels = append(ts.Labels, prompb.Label{Name: l[0], Value: l[1]})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	return encode(req)
}

func (s *soakShard) body2(n int, at int64) []byte {
	symbols, req := writev2.NewSymbolTable(), &writev2.Request{}
	for i := range s.series {
		var ts writev2.TimeSeries
		for _, l := range s.labels(i, n) {
			ts.LabelsRefs = append(ts.LabelsRefs, symbols.Symbolize(l[0]), symbols.Symbolize(l[1]))
		}
		if v := s.value(i, at); s.histograms {
			ts.Histograms = []writev2.Histogram{histogramOf(v, at)}
		} else {
			ts.Samples = []writev2.Sample{{Timestamp: at, Value: v}}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	b, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, b)
}

func histogramOf(v float64, at int64) writev2.Histogram {
	h := writev2.Histogram{Timestamp: at, Sum: v, ZeroThreshold: 1e-128, ZeroCount: &writev2.Histogram_ZeroCountInt{}}
	var sum uint64
	var last int64
	for _, c := range buckets(v) {
		h.PositiveDeltas = append(h.PositiveDeltas, c-last)
		last, sum = c, sum+uint64(c)
	}
	h.PositiveSpans = []writev2.BucketSpan{{Offset: int32(len(h.PositiveDeltas)), Length: uint32(len(h.PositiveDeltas))}}
	h.Count = &writev2.Histogram_CountInt{CountInt: sum}
	return h
}

func (s *soakShard) header() http.Header {
	h := writeHeader(tenantHeader(s.id))
	if s.v2 {
		h.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		h.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	return h
}

// attempt is a request that was not acknowledged.
type attempt struct {
	at     time.Time // of the answer
	took   time.Duration
	tenant string
	member string
	status int // 0 = no answer
	err    string
}

func (a attempt) String() string {
	return fmt.Sprintf("%s %s from %s, tenant %s: status %d after %s: %.300s", a.at.Format("15:04:05.000"), "answer",
		a.member, a.tenant, a.status, a.took.Round(time.Millisecond), a.err)
}

// soakLoad is all senders, and the load balancer they write through.
type soakLoad struct {
	t      *testing.T
	client *http.Client
	lb     *balancer
	shards []*soakShard

	mu     sync.Mutex // guards failed
	failed []attempt

	stopped chan struct{}
	done    sync.WaitGroup
}

// startSoakLoad begins to write: of each tenant, shards times series series, a sample of each every interval.
func startSoakLoad(t *testing.T, lb *balancer, shards, series int, interval time.Duration) *soakLoad {
	l := &soakLoad{t: t, lb: lb, stopped: make(chan struct{}),
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	begin := time.Now().Truncate(time.Second).UnixMilli()
	for _, tenant := range soakTenants {
		for i := range shards {
			s := &soakShard{soakTenant: tenant, number: i, series: series, first: begin, interval: interval.Milliseconds()}
			l.shards = append(l.shards, s)
		}
	}
	for i, s := range l.shards {
		phase := interval * time.Duration(i) / time.Duration(len(l.shards))
		l.done.Go(func() { l.run(s, phase) })
	}
	return l
}

// run sends slot after slot; what could not be sent in its time is sent as soon as it can.
func (l *soakLoad) run(s *soakShard, phase time.Duration) {
	for n := 0; ; n++ {
		due := time.UnixMilli(s.first + int64(n)*s.interval).Add(phase)
		select {
		case <-l.stopped:
			return
		case <-time.After(time.Until(due)):
		}
		s.mu.Lock()
		s.slots = append(s.slots, slot{})
		s.mu.Unlock()
		l.send(s, n)
	}
}

// send sends one request as Prometheus does: the same bytes again after a status that says so, or none.
func (l *soakLoad) send(s *soakShard, n int) {
	body, pause := s.body(n), 30*time.Millisecond
	for try := 1; s.tries == 0 || try <= s.tries; try++ {
		to := l.lb.pick()
		begin := time.Now()
		status, after, err := l.post(to.url, s, body)
		if status/100 == 2 && err == nil {
			s.mu.Lock()
			s.slots[n] = slot{acked: time.Now(), by: to.name, took: time.Since(begin), tries: try}
			s.mu.Unlock()
			return
		}
		a := attempt{at: time.Now(), took: time.Since(begin), tenant: s.id, member: to.name, status: status,
			err: fmt.Sprint(err)}
		l.mu.Lock()
		l.failed = append(l.failed, a)
		l.mu.Unlock()
		l.lb.failed(to)
		if status != 0 && status/100 != 5 && status != http.StatusTooManyRequests {
			return // Prometheus drops it; that there is no such answer is checked at the end
		}
		time.Sleep(max(pause, min(after, 5*time.Second))) // the pause of a sender, not a wait for something
		pause = min(2*pause, 5*time.Second)
	}
}

func (l *soakLoad) post(url string, s *soakShard, body []byte) (status int, after time.Duration, err error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	req.Header = s.header()
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if secs, bad := strconv.Atoi(resp.Header.Get("Retry-After")); bad == nil {
		after = time.Duration(secs) * time.Second
	}
	if err != nil {
		return 0, 0, err // an answer cut off is none
	}
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, after, fmt.Errorf("%s", bytes.TrimSpace(text))
	}
	kind := map[bool]string{false: "Samples", true: "Histograms"}[s.histograms]
	if have := resp.Header.Get("X-Prometheus-Remote-Write-" + kind + "-Written"); s.v2 && have != strconv.Itoa(s.series) {
		return http.StatusTeapot, 0, fmt.Errorf("status %d, and %q of %d %s written", resp.StatusCode, have, s.series, kind)
	}
	return resp.StatusCode, 0, nil
}

// stop ends the load after the requests under way.
func (l *soakLoad) stop() {
	close(l.stopped)
	l.done.Wait()
}

// sofar is how many samples are acknowledged, and of how many sent.
func (l *soakLoad) sofar() (acked, sent int) {
	for _, s := range l.shards {
		s.mu.Lock()
		sent += len(s.slots) * s.series
		for _, sl := range s.slots {
			if !sl.acked.IsZero() {
				acked += s.series
			}
		}
		s.mu.Unlock()
	}
	return acked, sent
}

// balancer is the load balancer in front of the receivers: it asks for readiness, and leaves alone for a moment who
// failed.
type balancer struct {
	mu       sync.Mutex // guards what follows
	backends []*backend
	turn     int
}

type backend struct {
	name, url string
	ready     bool
	rests     time.Time // not used until then
	gone      chan struct{}
}

// add puts a member behind the balancer.
func (b *balancer) add(n *node) {
	m := &backend{name: n.name, url: n.url("/api/v1/receive"), gone: make(chan struct{})}
	b.mu.Lock()
	b.backends = append(b.backends, m)
	b.mu.Unlock()
	check := &http.Client{Timeout: time.Second}
	go func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			resp, err := check.Get(n.url("/-/ready"))
			if err == nil {
				resp.Body.Close()
			}
			b.mu.Lock()
			m.ready = err == nil && resp.StatusCode == http.StatusOK
			b.mu.Unlock()
			select {
			case <-m.gone:
				return
			case <-tick.C:
			}
		}
	}()
}

// remove takes a member away for good.
func (b *balancer) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range b.backends {
		if m.name == name {
			close(m.gone)
			b.backends = append(b.backends[:i:i], b.backends[i+1:]...)
			return
		}
	}
}

// pick is the next member in turn that is ready, any if none is.
func (b *balancer) pick() *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.backends {
		b.turn++
		if m := b.backends[b.turn%len(b.backends)]; m.ready && time.Now().After(m.rests) {
			return m
		}
	}
	b.turn++
	return b.backends[b.turn%len(b.backends)]
}

func (b *balancer) failed(m *backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.rests = time.Now().Add(3 * time.Second)
}
