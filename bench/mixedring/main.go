package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/bench/server"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

type options struct {
	thanos, hearth string
	members, rf    int
	series, rounds int
	outage         bool
}

func main() {
	var o options
	flag.StringVar(&o.thanos, "thanos", "", "binary of Thanos")
	flag.StringVar(&o.hearth, "hearth", "bin/hearth", "binary of Hearth")
	flag.IntVar(&o.members, "members", 3, "receivers in the ring")
	flag.IntVar(&o.rf, "rf", 3, "copies of each series")
	flag.IntVar(&o.series, "series", 600, "series of each way to write")
	flag.IntVar(&o.rounds, "rounds", 5, "samples of each series")
	flag.BoolVar(&o.outage, "outage", false, "kill all members but the one written to before the last round, and "+
		"start them again")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	good, err := runAll(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// runAll runs each mixture with each algorithm and reports whether every sample had its copies.
func runAll(ctx context.Context, o options) (good bool, err error) {
	for _, path := range []*string{&o.thanos, &o.hearth} {
		if *path, err = filepath.Abs(*path); err != nil {
			return false, err
		}
	}
	good = true
	fmt.Printf("%d members, %d copies, %d series of %d samples by each way, each request sent twice\n", o.members, o.rf,
		o.series, o.rounds)
	fmt.Println("| algorithm | members | written through | answers | samples with all copies | with fewer | with " +
		"more | copies by member |\n|---|---|---|---|---|---|---|---|")
	for _, algorithm := range []string{"hashmod", "ketama"} {
		for hearths := range o.members + 1 {
			ok, err := runMixture(ctx, o, algorithm, hearths)
			if err != nil {
				return false, fmt.Errorf("%s with %d Hearth members: %w", algorithm, hearths, err)
			}
			good = good && ok
		}
	}
	return good, nil
}

// member is one receiver.
type member struct {
	name, kind string
	path       string
	args       []string
	grpc       string
	write      string // URL
	ready      string // URL
	process    *server.Process
}

func (m *member) start(dir string) (err error) {
	m.process, err = server.Start(m.name, m.path, dir, m.args...)
	return err
}

func runMixture(ctx context.Context, o options, algorithm string, hearths int) (good bool, err error) {
	dir, err := os.MkdirTemp("", "mixedring")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	members, err := ring(o, dir, algorithm, hearths)
	if err != nil {
		return false, err
	}
	defer func() {
		for _, m := range members {
			if m.process != nil {
				m.process.Kill()
			}
		}
	}()
	for _, m := range members {
		if err := m.start(dir); err != nil {
			return false, err
		}
	}
	if err := settle(ctx, members); err != nil {
		return false, err
	}
	var kinds []string
	for _, m := range members {
		kinds = append(kinds, m.kind)
	}
	good = true
	done := map[string]bool{}
	for _, through := range members {
		if done[through.kind] {
			continue // one member of each kind is enough
		}
		done[through.kind] = true
		answers, err := send(ctx, o, dir, members, through)
		if err != nil {
			return false, err
		}
		var c count
		err = server.Poll(ctx, 20*time.Second, func(ctx context.Context) error { // third copies may come later
			now, err := counted(ctx, o, members, through.name)
			if err != nil {
				return err
			}
			if c = now; c.fewer > 0 {
				return fmt.Errorf("%d samples lack copies", c.fewer)
			}
			return nil
		})
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "through %s: %v\n", through.name, err)
		}
		ok := err == nil && c.more == 0 && answers.refused() == 0
		good = good && ok
		fmt.Printf("| %s | %s | %s | %s | %d | %d | %d | %v |\n", algorithm, strings.Join(kinds, ", "), through.kind,
			answers, c.full, c.fewer, c.more, c.byMember)
	}
	return good, nil
}

// ring makes the members, of which the first few are Hearth, and their file.
func ring(o options, dir, algorithm string, hearths int) ([]*member, error) {
	file := filepath.Join(dir, "hashrings.json")
	var members []*member
	var endpoints []string
	for i := range o.members {
		ports, err := server.Ports(4)
		if err != nil {
			return nil, err
		}
		at := make([]string, len(ports))
		for j, p := range ports {
			at[j] = server.Address(p)
		}
		m := &member{kind: "Thanos", path: o.thanos, name: "m" + strconv.Itoa(i), grpc: at[1]}
		m.write, m.ready = "http://"+at[2]+"/api/v1/receive", "http://"+at[0]+"/-/ready"
		m.args = []string{"receive", "--http-address=" + at[0], "--grpc-address=" + at[1], "--remote-write.address=" + at[2],
			"--tsdb.path=" + filepath.Join(dir, m.name), "--log.level=warn", fmt.Sprintf(`--label=receive_replica="%d"`, i),
			"--receive.replication-factor=" + strconv.Itoa(o.rf), "--receive.local-endpoint=" + at[1],
			"--receive.hashrings-algorithm=" + algorithm, "--receive.hashrings-file=" + file}
		if i < hearths {
			m.kind, m.path = "Hearth", o.hearth
		} else {
			m.args = append(m.args, "--receive.replication-protocol=protobuf", "--receive.capnproto-address="+at[3])
		}
		members, endpoints = append(members, m), append(endpoints, at[1])
	}
	content, err := json.Marshal([]map[string]any{{"hashring": "mixed", "endpoints": endpoints}})
	if err != nil {
		return nil, err
	}
	return members, os.WriteFile(file, content, 0o600)
}

// settle waits until each member is ready and takes a write.
func settle(ctx context.Context, members []*member) error {
	for _, m := range members {
		err := server.Poll(ctx, time.Minute, func(ctx context.Context) error {
			if code, text, err := call(ctx, http.MethodGet, m.ready, nil); err != nil || code != http.StatusOK {
				return fmt.Errorf("%s is not ready: %d %s %v", m.name, code, text, err)
			}
			code, text, err := call(ctx, http.MethodPost, m.write, request("probe", 5, time.Now()))
			if err != nil || code/100 != 2 {
				return fmt.Errorf("%s takes no writes: %d %s %v", m.name, code, text, err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%w\n%s", err, m.process.Tail(40))
		}
	}
	return nil
}

// answers counts requests by status.
type answers map[int]int

func (a answers) refused() (n int) {
	for code, times := range a {
		if code/100 == 4 {
			n += times
		}
	}
	return n
}

func (a answers) String() string { return strings.TrimPrefix(fmt.Sprint(map[int]int(a)), "map") }

// send writes all rounds through one member. Each request is sent again after it was answered well, and until it is.
func send(ctx context.Context, o options, dir string, members []*member, through *member) (answers, error) {
	all := answers{}
	begin := time.Now().Add(-time.Duration(o.rounds) * 15 * time.Second)
	for round := range o.rounds {
		body := request("by_"+through.name, o.series, begin.Add(time.Duration(round)*15*time.Second))
		away := o.outage && round == o.rounds-1
		if away {
			for _, m := range members {
				if m != through {
					m.process.Kill()
				}
			}
		}
		post := func() (int, error) {
			code, text, err := call(ctx, http.MethodPost, through.write, body)
			all[code]++
			if code/100 == 4 {
				fmt.Fprintf(os.Stderr, "through %s: %d %s\n", through.name, code, text)
			}
			return code, err
		}
		if away {
			if code, err := post(); err != nil || code/100 == 2 {
				return nil, fmt.Errorf("a write to one member of %d: %d %v", len(members), code, err)
			}
			for _, m := range members {
				if m != through {
					if err := m.start(dir); err != nil {
						return nil, err
					}
				}
			}
		}
		good := 0
		err := server.Poll(ctx, time.Minute, func(context.Context) error {
			code, err := post()
			if code/100 == 2 || code/100 == 4 {
				good++
			}
			if good < 2 {
				return fmt.Errorf("%d answers that end it, the last one %d, %v", good, code, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// request is a compressed remote write of one sample for each of n series.
func request(name string, n int, at time.Time) []byte {
	var w prompb.WriteRequest
	for i := range n {
		w.Timeseries = append(w.Timeseries, prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: name}, {Name: "instance", Value: fmt.Sprintf("host-%04d", i)}},
			Samples: []prompb.Sample{{Value: float64(i), Timestamp: at.UnixMilli()}},
		})
	}
	raw, err := w.Marshal()
	if err != nil {
		panic("BUG: a write request does not marshal: " + err.Error())
	}
	return snappy.Encode(nil, raw)
}

func call(ctx context.Context, method, url string, body []byte) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text := new(bytes.Buffer)
	if _, err := text.ReadFrom(http.MaxBytesReader(nil, resp.Body, 64<<10)); err != nil {
		return 0, "", err
	}
	return resp.StatusCode, strings.TrimSpace(text.String()), nil
}

// count is how many samples have all their copies, fewer, or more than that.
type count struct {
	full, fewer, more int
	byMember          []int
}

// counted asks each member for the samples that were written through one.
func counted(ctx context.Context, o options, members []*member, through string) (count, error) {
	var c count
	copies := map[string]int{} // by series and time
	for _, m := range members {
		n, err := held(ctx, m, "by_"+through, copies)
		if err != nil {
			return c, fmt.Errorf("read %s: %w", m.name, err)
		}
		c.byMember = append(c.byMember, n)
	}
	for _, n := range copies {
		switch {
		case n == o.rf:
			c.full++
		case n > o.rf:
			c.more++
		}
	}
	c.fewer = o.series*o.rounds - c.full - c.more
	return c, nil
}

// held adds what one member holds of a metric to copies, by series and time, and returns how many samples that are.
func held(ctx context.Context, m *member, name string, copies map[string]int) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client, err := rpc.Dial(m.grpc, rpc.ClientOptions{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	set := client.Select(ctx, &series.Request{
		Tenant: tenant.Default, MinTime: 0, MaxTime: math.MaxInt64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)},
	})
	defer set.Close()
	for set.Next() {
		s := set.At()
		times := map[int64]bool{}
		for _, chunk := range s.Chunks {
			decoded, err := chunkenc.FromData(chunk.Raw.Encoding, chunk.Raw.Data)
			if err != nil {
				return n, err
			}
			it := decoded.Iterator(nil)
			for it.Next() != chunkenc.ValNone {
				t, _ := it.At()
				times[t] = true
			}
			if it.Err() != nil {
				return n, it.Err()
			}
		}
		for t := range times {
			n++
			copies[s.Labels.String()+" "+strconv.FormatInt(t, 10)]++
		}
	}
	return n, set.Err()
}
