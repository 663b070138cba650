package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// readers is how many queries run at a time.
const readers = 20

// heavyQuery reads every sample of a tenant.
const heavyQuery = `count(last_over_time({__name__=~".+"}[2h]))`

// reading is a querier with the lowest priority, so that what the receivers spend on its queries is measured and not
// what it spends itself, and the queries.
type reading struct {
	querier  *node
	cancel   context.CancelFunc
	done     sync.WaitGroup
	answered atomic.Int64
	failed   atomic.Pointer[error] // the last failure
}

func (c *cluster) startReading() error {
	ports, err := server.Ports(3)
	if err != nil {
		return err
	}
	d := c.distributor
	q := &node{name: "querier", path: "nice", workDir: c.dir, http: server.Address(ports[0])}
	q.args = []string{"-n", "19", d.path, "query", "--http-address=" + q.http,
		"--grpc-address=" + server.Address(ports[1]),
		"--gossip.address=" + server.Address(ports[2]), "--gossip.instance-id=" + q.name, "--log.level=warn"}
	for _, n := range c.receivers {
		q.args = append(q.args, "--endpoint="+n.grpc)
	}
	if err := q.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &reading{querier: q, cancel: cancel}
	c.reading = r
	err = server.Poll(ctx, time.Minute, func(ctx context.Context) error {
		return get(ctx, "http://"+q.http+"/-/ready",
			nil)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, q.process.Tail(20))
	}
	for i := range readers {
		r.done.Go(func() {
			for ctx.Err() == nil {
				if err := r.query(ctx, tenants[i%len(tenants)]); err == nil {
					r.answered.Add(1)
				} else if ctx.Err() == nil {
					r.failed.Store(&err)
				}
			}
		})
	}
	return nil
}

func (r *reading) query(ctx context.Context, tenant string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+r.querier.http+"/api/v1/query?query="+url.QueryEscape(heavyQuery), nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Scope-OrgID", tenant)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// stopReading ends the queries and the querier, after one was answered at least. A query that failed is an error.
func (c *cluster) stopReading() error {
	r := c.reading
	if r == nil {
		return nil
	}
	c.reading = nil
	err := server.Poll(context.Background(), time.Minute, func(context.Context) error {
		if r.answered.Load() == 0 && r.failed.Load() == nil {
			return errors.New("no query was answered")
		}
		return nil
	})
	r.cancel()
	r.done.Wait()
	r.querier.process.Kill()
	if failed := r.failed.Load(); failed != nil {
		return fmt.Errorf("query: %w", *failed)
	}
	return err
}
