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

// recording is a load as it goes over the wire.
type recording struct {
	header  http.Header
	scrapes [][][]byte // by scrape and request
	samples []int      // by request
	wire    float64    // bytes per sample
}

// blockRange is the range of a block of all servers. A load that crosses one would be cut in two.
const blockRange = 2 * time.Hour

// firstOf is the timestamp of the first of n scrapes. The last scrape is now, or before the border of blocks if the
// scrapes would cross it, so that one block holds all.
func firstOf(n int, now time.Time) time.Time {
	span := time.Duration(n-1) * interval
	last := now.Truncate(time.Second)
	if border := now.UTC().Truncate(blockRange); last.Add(-span).Before(border) {
		last = border.Add(-time.Second)
	}
	return last.Add(-span)
}

// record encodes n scrapes of about now.
func record(o samples.Options, n int) (*recording, error) {
	rec := &recording{header: o.Header(""), scrapes: make([][][]byte, n)}
	first := firstOf(n, time.Now())
	sent, size := 0, 0
	for i, r := range samples.Requests(o) {
		e := samples.NewEncoder(o, uint64(i))
		rec.samples = append(rec.samples, r.Len())
		for scrape := range n {
			body, err := e.Next(r, scrape, first.Add(time.Duration(scrape)*interval).UnixMilli())
			if err != nil {
				return nil, err
			}
			message := snappy.Encode(nil, body)
			rec.scrapes[scrape] = append(rec.scrapes[scrape], slices.Clip(bytes.Clone(message)))
			sent, size = sent+r.Len(), size+len(message)
		}
	}
	rec.wire = float64(size) / float64(sent)
	return rec, nil
}

// outcome of some scrapes.
type outcome struct {
	requests, failed int
	accepted         int             // samples of the requests that succeeded
	latencies        []time.Duration // of all requests
	took             time.Duration
	firstFailure     string
}

func (o *outcome) add(p outcome) {
	o.requests, o.failed, o.accepted = o.requests+p.requests, o.failed+p.failed, o.accepted+p.accepted
	o.latencies = append(o.latencies, p.latencies...)
	if o.firstFailure == "" {
		o.firstFailure = p.firstFailure
	}
}

// replay sends the scrapes [from, to) as fast as they are taken. Each of the senders owns some requests, so that the
// samples of a series stay in order. A request goes to another URL in each scrape: after as many scrapes as there are
// URLs each server has seen each series.
func replay(ctx context.Context, rec *recording, urls []string, senders, from, to int) (outcome, error) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: senders,
		DisableCompression: true}}
	defer client.CloseIdleConnections()
	parts := make([]outcome, senders)
	began := time.Now()
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for scrape := from; scrape < to; scrape++ {
				for r := s; r < len(rec.samples) && ctx.Err() == nil; r += senders {
					parts[s].send(ctx, client, urls[(scrape+r)%len(urls)], rec, rec.scrapes[scrape][r], rec.samples[r])
				}
			}
		})
	}
	wg.Wait()
	sum := outcome{took: time.Since(began)}
	for _, p := range parts {
		sum.add(p)
	}
	slices.Sort(sum.latencies)
	return sum, ctx.Err()
}

func (o *outcome) send(ctx context.Context, client *http.Client, url string, rec *recording, body []byte, n int) {
	began := time.Now()
	err := post(ctx, client, url, rec.header, body)
	o.latencies = append(o.latencies, time.Since(began))
	o.requests++
	if err == nil {
		o.accepted += n
		return
	}
	o.failed++
	if o.firstFailure == "" {
		o.firstFailure = err.Error()
	}
}

func post(ctx context.Context, client *http.Client, url string, header http.Header, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("status %d: %.200s", resp.StatusCode, text)
	}
	return err
}

// quantile of sorted durations, 0 when there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
