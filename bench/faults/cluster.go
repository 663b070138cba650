package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

const (
	members = 3
	full    = 0 // the member whose disk can be filled, where root is there to limit it
	dark    = 2 // the member that the others reach through proxies
	diskMiB = 512
)

// node is one process and how to start it again.
type node struct {
	name, path, dir, workDir string
	http, grpc               string
	args                     []string
	process                  *server.Process
}

func (n *node) start() (err error) {
	n.process, err = server.Start(n.name, n.path, n.workDir, n.args...)
	return err
}

// cluster is a distributor and three receivers.
type cluster struct {
	dir         string
	distributor *node
	receivers   []*node
	proxies     []*proxy // of the dark member
	writeURL    string
	reading     *reading // nil while nobody does
	limited     bool     // the disk of the full member is a small one

	mu sync.Mutex // guards the nodes' processes, which a fault replaces
}

// startCluster starts all processes, and waits until writes succeed.
func startCluster(ctx context.Context, hearth string) (*cluster, error) {
	hearth, err := filepath.Abs(hearth)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hearth-faults-")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	if err := errors.Join(c.limitDisk(), c.plan(hearth)); err != nil {
		return nil, errors.Join(err, c.close())
	}
	for _, n := range c.nodes() {
		if err := n.start(); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	for _, n := range c.nodes() {
		err := server.Poll(ctx, time.Minute, func(ctx context.Context) error {
			return get(ctx, "http://"+n.http+"/-/ready",
				nil)
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w\n%s", n.name, err, n.process.Tail(20)), c.close())
		}
	}
	return c, nil
}

func (c *cluster) nodes() []*node { return append(append([]*node{}, c.receivers...), c.distributor) }

// plan decides names, addresses and flags.
func (c *cluster) plan(hearth string) error {
	var join string
	for i := range members + 1 {
		ports, err := server.Ports(4)
		if err != nil {
			return err
		}
		name, role := "receiver-"+strconv.Itoa(i), "receive"
		if i == members {
			name, role = "distributor", "distributor"
		}
		at := func(n int) string { return server.Address(ports[n]) }
		n := &node{name: name, path: hearth, workDir: c.dir, dir: filepath.Join(c.dir, name), http: at(0), grpc: at(1)}
		gossip := at(3)
		n.args = []string{role, "--http-address=" + at(0), "--grpc-address=" + at(1), "--remote-write.address=" + at(2),
			"--gossip.address=" + gossip,
			"--gossip.instance-id=" + name, "--receive.replication-factor=" + strconv.Itoa(members), "--log.level=warn"}
		if i == dark {
			grpcProxy, gossipProxy, err := c.proxy(at(1), at(3))
			if err != nil {
				return err
			}
			n.args = append(n.args, "--grpc-advertise-address="+grpcProxy, "--gossip.advertise-address="+gossipProxy)
		}
		if join == "" {
			join = gossip
		}
		n.args = append(n.args, "--gossip.join="+join)
		if role == "distributor" {
			c.distributor, c.writeURL = n, "http://"+at(2)+"/api/v1/receive"
			continue
		}
		n.args = append(n.args, "--tsdb.path="+n.dir)
		c.receivers = append(c.receivers, n)
	}
	return nil
}

func (c *cluster) proxy(grpc, gossip string) (string, string, error) {
	p, err := newProxy(grpc)
	if err != nil {
		return "", "", err
	}
	c.proxies = append(c.proxies, p)
	q, err := newProxy(gossip)
	if err != nil {
		return "", "", err
	}
	c.proxies = append(c.proxies, q)
	return p.address(), q.address(), nil
}

// limitDisk gives one member a small file system of its own, for which root is needed.
func (c *cluster) limitDisk() error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir := filepath.Join(c.dir, "receiver-"+strconv.Itoa(full))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMiB))
	c.limited = err == nil // root in a container may not be let
	return nil
}

// close ends all processes and removes their files.
func (c *cluster) close() error {
	_ = c.stopReading() // it has not ended by itself: there is an error already
	for _, n := range c.nodes() {
		if n != nil && n.process != nil {
			n.process.Signal(syscall.SIGCONT)
			n.process.Kill()
		}
	}
	for _, p := range c.proxies {
		p.close()
	}
	var err error
	if c.limited {
		err = syscall.Unmount(filepath.Join(c.dir, "receiver-"+strconv.Itoa(full)), syscall.MNT_DETACH)
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

var probe = &http.Client{Timeout: time.Second}

// get asks url; read, if any, takes the body of a 2xx answer.
func get(ctx context.Context, url string, read func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := probe.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: status %d", url, resp.StatusCode)
	}
	if read != nil {
		return read(resp)
	}
	return nil
}
