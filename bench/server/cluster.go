package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/snappy"

	"github.com/hearth-metrics/hearth/bench/samples"
)

// Cluster is a peer that runs, as one process or as several.
type Cluster struct {
	Peer      Peer
	Dir       string // of everything it keeps
	Processes []*Process
	HTTP      []string // host:port of each process
	WriteURLs []string // of each process

	ready []string
}

func (c *Cluster) addresses(n int) ([]string, error) {
	free, err := Ports(n)
	out := make([]string, len(free))
	for i, p := range free {
		out[i] = Address(p)
	}
	return out, err
}

func (c *Cluster) start(name string, args ...string) error {
	p, err := Start(name, c.Peer.Path, c.Dir, args...)
	if err == nil {
		c.Processes = append(c.Processes, p)
	}
	return err
}

func (c *Cluster) add(httpAddress, write, ready string) {
	c.HTTP, c.WriteURLs, c.ready = append(c.HTTP, httpAddress), append(c.WriteURLs, write), append(c.ready, ready)
}

// settled is how often in a row each member must take a sample before the cluster counts as ready.
const settled = 10

// waitReady waits until every member says that it is ready and every write URL takes samples steadily: members of a
// cluster need a while to find each other.
func (c *Cluster) waitReady(ctx context.Context) error {
	for i, url := range c.ready {
		err := Poll(ctx, time.Minute, func(ctx context.Context) error {
			_, err := Get(ctx, url)
			return err
		})
		if err != nil {
			return fmt.Errorf("member %d: %w", i, err)
		}
	}
	o := samples.Options{Series: 3, Labels: 3, PerRequest: 3}
	body, err := samples.NewEncoder(o, 0).Next(samples.Requests(o)[0], 0, time.Now().Add(-time.Hour).UnixMilli())
	if err != nil {
		return err
	}
	message := snappy.Encode(nil, body)
	good := 0
	return Poll(ctx, time.Minute, func(ctx context.Context) error {
		for _, url := range c.WriteURLs {
			if err := Post(ctx, url, o.Header(""), message); err != nil {
				good = 0
				return err
			}
		}
		if good++; good < settled {
			return fmt.Errorf("%d probes were taken, %d are wanted", good, settled)
		}
		return nil
	})
}

// Usage of all processes together.
func (c *Cluster) Usage() (Usage, error) {
	var sum Usage
	for _, p := range c.Processes {
		u, err := p.Usage()
		if err != nil {
			return sum, err
		}
		sum.Command = u.Command
		sum.CPU += u.CPU
		sum.Peak += u.Peak
		sum.Resident += u.Resident
	}
	return sum, nil
}

// Stored is how many samples all processes together say that they have stored since they began, copies counted apart.
func (c *Cluster) Stored(ctx context.Context) (float64, error) {
	return c.Sum(ctx, c.Peer.Counter)
}

// Dropped is how many copies, of whole requests, all Hearth processes together have given up. Peers do not tell.
func (c *Cluster) Dropped(ctx context.Context) (float64, error) {
	if c.Peer.Name != "hearth" {
		return 0, nil
	}
	return c.Sum(ctx, "hearth_distributor_replica_dropped_batches_total")
}

// Sum adds up the series of one metric over all processes.
func (c *Cluster) Sum(ctx context.Context, name string) (float64, error) {
	sum := 0.0
	for _, at := range c.HTTP {
		metrics, err := Get(ctx, "http://"+at+"/metrics")
		if err != nil {
			return 0, err
		}
		n, err := SumOf(metrics, name)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// SumOf adds up the series of one metric in Prometheus's text format.
func SumOf(metrics []byte, name string) (float64, error) {
	sum := 0.0
	err := EachOf(metrics, name, func(_ string, v float64) { sum += v })
	return sum, err
}

// EachOf calls f for each series of one metric in Prometheus's text format, with its labels as they stand there.
func EachOf(metrics []byte, name string, f func(labels string, v float64)) error {
	for line := range strings.Lines(string(metrics)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		last := strings.LastIndexByte(rest, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[last+1:]), 64)
		if err != nil {
			return fmt.Errorf("metric %q: %w", line, err)
		}
		f(rest[:last+1], v)
	}
	return nil
}

// DiskBytes is what the files of c take: the sum of their sizes, or of the allocated blocks of those that have holes.
func (c *Cluster) DiskBytes() (int64, error) { return sizeOf(c.Dir, func(string) bool { return true }) }

func sizeOf(dir string, counts func(path string) bool) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a server removes files meanwhile
			return nil
		}
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".log" || !counts(path) {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		size := info.Size()
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			size = min(size, s.Blocks*512)
		}
		sum += size
		return nil
	})
	return sum, err
}

// Profile writes a CPU profile of each process to dir, taken over the given time.
func (c *Cluster) Profile(ctx context.Context, dir, name string, seconds int) error {
	done := make(chan error, len(c.HTTP))
	for i, at := range c.HTTP {
		go func() {
			done <- CPUProfile(ctx, at, filepath.Join(dir, fmt.Sprintf("%s-%d.pprof", name, i)), seconds)
		}()
	}
	var err error
	for range c.HTTP {
		err = errors.Join(err, <-done)
	}
	return err
}

// CPUProfile writes a CPU profile of the process that listens at an address to a file, taken over the given time.
func CPUProfile(ctx context.Context, at, path string, seconds int) error {
	profile, err := Get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", at, seconds))
	if err != nil {
		return err
	}
	return os.WriteFile(path, profile, 0o644)
}

// Close ends the processes and removes what they kept.
func (c *Cluster) Close() error {
	for _, p := range c.Processes {
		p.Signal(syscall.SIGCONT) // one that was stopped could not end
		p.Kill()
	}
	return os.RemoveAll(c.Dir)
}

var client = &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{}}

// Get reads a page; a status other than 2xx is an error.
func Get(ctx context.Context, url string) ([]byte, error) {
	return call(ctx, http.MethodGet, url, nil, nil)
}

// Post sends body; a status other than 2xx is an error.
func Post(ctx context.Context, url string, header http.Header, body []byte) error {
	_, err := call(ctx, http.MethodPost, url, header, body)
	return err
}

// call returns the body of a 2xx answer; any other is an error.
func call(ctx context.Context, method, url string, header http.Header, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: status %d: %.200s", url, resp.StatusCode, answer)
	}
	return answer, err
}
