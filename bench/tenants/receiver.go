package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/snappy"

	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
)

// receiver is one Hearth receiver without a bucket.
type receiver struct {
	opts options
	dir  string
	args []string
	at   string // host:port
	p    *server.Process

	request *samples.Request
	encoder *samples.Encoder
	scrape  int
}

// newReceiver makes a receiver with an empty directory; extra are flags.
func newReceiver(o options, extra ...string) (*receiver, error) {
	dir, err := os.MkdirTemp("", "hearth-tenants-")
	if err != nil {
		return nil, err
	}
	ports, err := server.Ports(3)
	if err != nil {
		return nil, err
	}
	r := &receiver{opts: o, dir: dir, at: server.Address(ports[0])}
	r.args = append([]string{"receive", "--tsdb.path", "data", "--http-address", r.at, "--grpc-address",
		server.Address(ports[1]),
		"--remote-write.address", server.Address(ports[2])}, extra...)
	r.request, r.encoder = samples.Requests(o.load())[0], samples.NewEncoder(o.load(), 1)
	return r, nil
}

// start starts the process, and returns how long it took until it was ready: all tenants that it had are open.
func (r *receiver) start(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	if r.p, err = server.Start("hearth", r.opts.hearth, r.dir, r.args...); err != nil {
		return 0, err
	}
	err = server.Poll(ctx, r.opts.patience, func(ctx context.Context) error {
		select {
		case <-r.p.Done():
			return fmt.Errorf("it has ended: %s", r.p.Tail(5))
		default:
		}
		_, err := r.get(ctx, "/-/ready")
		return err
	})
	return time.Since(began), err
}

func (r *receiver) close() error {
	if r.p != nil {
		r.p.Kill()
	}
	return os.RemoveAll(r.dir)
}

var client = &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func (r *receiver) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.at+path, nil)
	if err != nil {
		return nil, err
	}
	return r.do(req)
}

func (r *receiver) do(req *http.Request) ([]byte, error) {
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.300s", req.Method, req.URL.Path, res.Status, body)
	}
	return body, err
}

func name(i int) string { return fmt.Sprintf("tenant-%05d", i) }

// round writes one sample of each series of the tenants from..to at time t, and returns how long that took.
func (r *receiver) round(ctx context.Context, from, to int, t time.Time) (time.Duration, error) {
	body, err := r.encoder.Next(r.request, r.scrape, t.UnixMilli())
	if err != nil {
		return 0, err
	}
	r.scrape++
	message := snappy.Encode(nil, body)
	began, next := time.Now(), atomic.Int64{}
	next.Store(int64(from))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range r.opts.writers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= to {
					return
				}
				if err := r.write(ctx, name(i), message); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began), context.Cause(ctx)
}

func (r *receiver) write(ctx context.Context, tenant string, message []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.at+"/api/v1/receive",
		bytes.NewReader(message))
	if err != nil {
		return err
	}
	req.Header = r.opts.load().Header(tenant)
	_, err = r.do(req)
	return err
}

// state is what a receiver takes at the moment.
type state struct {
	open, idle        float64 // tenants
	resident, peak    int64   // bytes
	heap, stacks      float64 // bytes in use
	files, goroutines float64
}

func (r *receiver) state(ctx context.Context) (state, error) {
	var s state
	metrics, err := r.get(ctx, "/metrics")
	if err != nil {
		return s, err
	}
	u, err := r.p.Usage()
	if err != nil {
		return s, err
	}
	s.resident, s.peak = u.Resident, u.Peak
	for metric, to := range map[string]*float64{
		`hearth_tsdb_tenants{state="open"}`: &s.open, `hearth_tsdb_tenants{state="idle"}`: &s.idle,
		"go_memstats_heap_inuse_bytes": &s.heap, "go_memstats_stack_inuse_bytes": &s.stacks,
		"process_open_fds": &s.files, "go_goroutines": &s.goroutines,
	} {
		if *to, err = valueOf(metrics, metric); err != nil {
			return s, err
		}
	}
	return s, nil
}

// valueOf finds one series in Prometheus's text format.
func valueOf(metrics []byte, series string) (v float64, err error) {
	for line := range bytes.Lines(metrics) {
		if rest, ok := bytes.CutPrefix(line, []byte(series+" ")); ok {
			_, err := fmt.Sscan(string(rest), &v)
			return v, err
		}
	}
	return 0, fmt.Errorf("no metric %s", series)
}
