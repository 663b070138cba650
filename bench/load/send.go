package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"

	"github.com/hearth-metrics/hearth/bench/samples"
)

// tally counts what a worker saw. At the end the tallies of all workers are added up.
type tally struct {
	sent, accepted, failed int64 // samples; sent = accepted + failed
	retries                int64
	bytes                  int64 // compressed, without retries
	codes                  map[string]int64
	latencies              []time.Duration // of answered requests
	firstFailure           string
}

func (t *tally) add(o *tally) {
	t.sent += o.sent
	t.accepted += o.accepted
	t.failed += o.failed
	t.retries += o.retries
	t.bytes += o.bytes
	for c, n := range o.codes {
		t.codes[c] += n
	}
	t.latencies = append(t.latencies, o.latencies...)
	if t.firstFailure == "" {
		t.firstFailure = o.firstFailure
	}
}

// worker sends the requests it owns, scrape by scrape.
type worker struct {
	opts     *options
	client   *http.Client
	header   http.Header
	requests []*samples.Request
	encoder  *samples.Encoder
	nextURL  int
	buffer   []byte
	tally    *tally
}

func newWorker(o *options, number int, client *http.Client) *worker {
	load := o.load()
	w := &worker{
		opts: o, client: client, header: load.Header(o.tenant), encoder: samples.NewEncoder(load, uint64(number)),
		nextURL: number, tally: &tally{codes: map[string]int64{}},
	}
	for _, h := range o.headers {
		name, value, _ := strings.Cut(h, "=")
		w.header.Set(name, value)
	}
	return w
}

// scrape sends one sample of each of the worker's series.
func (w *worker) scrape(ctx context.Context, number int, at time.Time) error {
	for _, r := range w.requests {
		body, err := w.encoder.Next(r, number, at.UnixMilli())
		if err != nil {
			return err
		}
		w.buffer = snappy.Encode(w.buffer[:cap(w.buffer)], body)
		if err := w.send(ctx, int64(r.Len())); err != nil {
			return err
		}
	}
	return nil
}

// send delivers the buffer, and as Prometheus does tries again after errors of the network and of the server.
func (w *worker) send(ctx context.Context, count int64) error {
	w.tally.sent += count
	w.tally.bytes += int64(len(w.buffer))
	start, backoff := time.Now(), 30*time.Millisecond
	for {
		a := w.post(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case a.code/100 == 2:
			stored := count
			if a.written >= 0 {
				stored = min(count, a.written)
			}
			w.tally.accepted += stored
			w.tally.failed += count - stored
			return nil
		case a.code != 0 && a.code/100 != 5, time.Since(start) > w.opts.giveUp:
			w.tally.failed += count
			w.note(fmt.Sprintf("status %d: %s", a.code, a.text))
			return nil
		}
		w.note(fmt.Sprintf("status %d: %s (tried again)", a.code, a.text))
		w.tally.retries++
		select {
		case <-time.After(max(backoff, a.wait)):
		case <-ctx.Done():
			return ctx.Err()
		}
		backoff = min(2*backoff, 5*time.Second)
	}
}

func (w *worker) note(problem string) {
	if w.tally.firstFailure == "" {
		w.tally.firstFailure = problem
	}
}

// answer to one attempt.
type answer struct {
	code    int // 0 = none
	wait    time.Duration
	text    string
	written int64 // what a receiver of 2.0 says it stored; -1 = it does not say
}

// post makes one attempt.
func (w *worker) post(ctx context.Context) answer {
	url := w.opts.urls[w.nextURL%len(w.opts.urls)]
	w.nextURL++
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(w.buffer))
	if err != nil {
		return answer{text: err.Error()}
	}
	req.Header = w.header
	start := time.Now()
	resp, err := w.client.Do(req)
	if err != nil {
		w.tally.codes["no answer"]++
		return answer{text: err.Error()}
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only for the report
	_, _ = io.Copy(io.Discard, resp.Body)                 // so that the connection is used again
	w.tally.latencies = append(w.tally.latencies, time.Since(start))
	w.tally.codes[strconv.Itoa(resp.StatusCode)]++
	a := answer{code: resp.StatusCode, text: strings.TrimSpace(string(text)), written: -1}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		a.wait = time.Duration(seconds) * time.Second
	}
	if floats, err := strconv.ParseInt(resp.Header.Get("X-Prometheus-Remote-Write-Samples-Written"), 10, 64); err == nil {
		a.written = floats
		if histograms, err := strconv.ParseInt(resp.Header.Get("X-Prometheus-Remote-Write-Histograms-Written"), 10,
			64); err == nil {
			a.written += histograms
		}
	}
	return a
}
