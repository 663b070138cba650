package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/snappy"

	"github.com/hearth-metrics/hearth/bench/samples"
)

// The tenants. Faults that hit one tenant hit damaged.
var tenants = [...]string{"steady", "damaged"}

const damaged = "damaged"

// sent is one request that was answered, or that its sender gave up.
type sent struct {
	due    time.Time
	took   time.Duration // since due
	failed string        // why; "" = 2xx
}

// load sends at a constant rate, whatever the answers are.
type load struct {
	opts   options
	url    string
	client *http.Client
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu  sync.Mutex // guards all
	all []sent
}

func startLoad(o options, url string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{opts: o, url: url, cancel: cancel, client: &http.Client{
		Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true},
	}}
	l.done.Go(func() { l.run(ctx) })
	return l
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
	l.client.CloseIdleConnections()
}

// run sends one scrape of each tenant per interval, its requests evenly spread.
func (l *load) run(ctx context.Context) {
	o := l.opts.load()
	var requests []*samples.Request
	var headers []http.Header
	for _, t := range tenants {
		for _, r := range samples.Requests(o) {
			requests, headers = append(requests, r), append(headers, o.Header(t))
		}
	}
	e := samples.NewEncoder(o, 1)
	began := time.Now()
	for scrape := 0; ; scrape++ {
		at := began.Add(time.Duration(scrape) * l.opts.interval)
		for i, r := range requests {
			due := at.Add(l.opts.interval * time.Duration(i) / time.Duration(len(requests)))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return
			}
			body, err := e.Next(r, scrape, at.UnixMilli())
			if err != nil {
				panic("BUG: " + err.Error()) // the time of day is within its range
			}
			message := snappy.Encode(nil, body)
			l.done.Go(func() { l.send(ctx, due, headers[i], message) })
		}
	}
}

func (l *load) send(ctx context.Context, due time.Time, header http.Header, message []byte) {
	err := l.post(ctx, header, message)
	s := sent{due: due, took: time.Since(due)}
	if ctx.Err() != nil {
		return // not the servers' doing
	}
	if err != nil {
		s.failed = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, s)
}

func (l *load) post(ctx context.Context, header http.Header, message []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(message))
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("status %d: %.300s", resp.StatusCode, text)
	}
	return err
}

// window is the outcome of the requests that were due in a range of time.
type window struct {
	requests, failed int
	p50, p99, worst  time.Duration // of all, failed ones too
	problem          string        // of the first that failed
}

// window sums up the requests that were due in [from, to). Some that are still under way are missing.
func (l *load) window(from, to time.Time) window {
	l.mu.Lock()
	defer l.mu.Unlock()
	var took []time.Duration
	var w window
	for _, s := range l.all {
		if s.due.Before(from) || !s.due.Before(to) {
			continue
		}
		took = append(took, s.took)
		if s.failed != "" {
			if w.failed++; w.problem == "" {
				w.problem = s.failed
			}
		}
	}
	w.requests = len(took)
	if len(took) == 0 {
		return w
	}
	slices.Sort(took)
	w.p50, w.p99, w.worst = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return w
}
