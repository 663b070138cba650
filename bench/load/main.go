package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
)

func main() {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var r report
	if err == nil {
		r, err = run(ctx, &o)
	}
	if err == nil && o.json {
		err = r.writeJSON(os.Stdout)
	} else if err == nil {
		err = r.writeTable(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	if r.Failed > 0 {
		os.Exit(2)
	}
}

// run sends everything and reports on what came after the warm-up.
func run(ctx context.Context, o *options) (report, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: o.concurrency, DisableCompression: true, ForceAttemptHTTP2: true,
	}}
	workers := makeWorkers(o, client)
	start := time.Now().Truncate(time.Millisecond)
	first := start
	if o.duration == 0 { // the last timestamp is about now
		first = start.Add(-time.Duration(o.warmup+o.scrapes-1) * o.interval)
	}
	at := func(scrape int) time.Time { return first.Add(time.Duration(scrape) * o.interval) }
	if err := sendScrapes(ctx, workers, 0, o.warmup, at); err != nil {
		return report{}, err
	}
	before, err := readUsages(o.pids)
	if err != nil {
		return report{}, err
	}
	for _, w := range workers {
		w.tally = &tally{codes: map[string]int64{}}
	}
	began := time.Now()
	if err := sendScrapes(ctx, workers, o.warmup, o.warmup+o.scrapes, at); err != nil {
		return report{}, err
	}
	took := time.Since(began)
	after, err := readUsages(o.pids)
	if err != nil {
		return report{}, err
	}
	total := &tally{codes: map[string]int64{}}
	for _, w := range workers {
		total.add(w.tally)
	}
	return newReport(o, total, took, before, after), nil
}

// makeWorkers divides the requests among workers.
func makeWorkers(o *options, client *http.Client) []*worker {
	workers := make([]*worker, o.concurrency)
	for i := range workers {
		workers[i] = newWorker(o, i, client)
	}
	for i, r := range samples.Requests(o.load()) {
		w := workers[i%len(workers)]
		w.requests = append(w.requests, r)
	}
	return workers
}

// sendScrapes sends the scrapes [from, to), none of them before its time. Workers do not wait for each other
// within it.
func sendScrapes(ctx context.Context, workers []*worker, from, to int, at func(int) time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			for n := from; n < to; n++ {
				select {
				case <-time.After(time.Until(at(n))):
				case <-ctx.Done():
					return
				}
				if err := w.scrape(ctx, n, at(n)); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func readUsages(pids []string) ([]server.Usage, error) {
	out := make([]server.Usage, len(pids))
	for i, pid := range pids {
		var err error
		if out[i], err = server.ReadUsage(pid); err != nil {
			return nil, err
		}
	}
	return out, nil
}
