package server

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Peer is a program that takes remote write.
type Peer struct {
	Name       string
	Binary     string // file name in the folder of peers
	V2         bool   // takes remote write 2.0
	Replicates bool   // can run as three members that hold each series three times
	Settings   string // what is not its default, in words

	launch func(c *Cluster, members int) error
	flush  func(ctx context.Context, c *Cluster) error // nil = blocks are made at a stop
}

// Peers are all that this package can start, Hearth first.
func Peers() []Peer {
	return []Peer{
		{Name: "hearth", Binary: "hearth", V2: true, Replicates: true, launch: launchHearth, flush: flushHearth,
			Settings: "`hearth receive`; three members find each other by gossip, RF=3; no bucket"},
		{Name: "thanos", Binary: "thanos", V2: true, Replicates: true, launch: launchThanos,
			Settings: "`thanos receive`; three RouterIngestors by a ketama hashring file, RF=3, protobuf replication; no bucket"},
		{Name: "prometheus", Binary: "prometheus", V2: true, launch: launchPrometheus, flush: flushPrometheus,
			Settings: "`--web.enable-remote-write-receiver`, nothing scraped"},
		{Name: "victoriametrics", Binary: "victoria-metrics", launch: launchVictoria, flush: flushVictoria,
			Settings: "single node, `-selfScrapeInterval=0`"},
	}
}

// Find splits peers into those whose binary is in dir and the names of those whose is not.
func Find(peers []Peer, dir string) (there []Peer, absent []string, err error) {
	for _, p := range peers {
		_, err := os.Stat(filepath.Join(dir, p.Binary))
		switch {
		case err == nil:
			there = append(there, p)
		case errors.Is(err, fs.ErrNotExist):
			absent = append(absent, p.Name)
		default:
			return nil, nil, err
		}
	}
	return there, absent, nil
}

// Version of a peer's binary: what BINARY.version beside it says, else what Go built in.
func (p Peer) Version(dir string) string {
	path := filepath.Join(dir, p.Binary)
	if said, err := os.ReadFile(path + ".version"); err == nil {
		return strings.TrimSpace(string(said))
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return info.Main.Version
}

func launchHearth(c *Cluster, members int) error {
	var gossip []string
	for i := range members {
		at, err := c.addresses(4)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("hearth-%d", i)
		args := []string{"receive", "--http-address=" + at[0], "--grpc-address=" + at[1], "--remote-write.address=" + at[2],
			"--tsdb.path=" + filepath.Join(c.Dir, name), "--log.level=warn"}
		if members > 1 {
			gossip = append(gossip, at[3])
			args = append(args, fmt.Sprintf("--receive.replication-factor=%d", members), "--gossip.instance-id="+name,
				"--gossip.address="+at[3], "--gossip.join="+gossip[0])
		}
		if err := c.start(name, args...); err != nil {
			return err
		}
		c.add(at[0], "http://"+at[2]+"/api/v1/receive", "http://"+at[0]+"/-/ready")
	}
	return nil
}

func launchThanos(c *Cluster, members int) error {
	type ring struct {
		Hashring  string   `json:"hashring"`
		Endpoints []string `json:"endpoints"`
	}
	addresses := make([][]string, members)
	r := ring{Hashring: "bench"}
	for i := range addresses {
		var err error
		if addresses[i], err = c.addresses(4); err != nil {
			return err
		}
		r.Endpoints = append(r.Endpoints, addresses[i][1])
	}
	file, err := json.Marshal([]ring{r})
	if err != nil {
		return err
	}
	hashrings := filepath.Join(c.Dir, "hashrings.json")
	if err := os.WriteFile(hashrings, file, 0o600); err != nil {
		return err
	}
	for i, at := range addresses {
		name := fmt.Sprintf("thanos-%d", i)
		args := []string{"receive", "--http-address=" + at[0], "--grpc-address=" + at[1], "--remote-write.address=" + at[2],
			"--tsdb.path=" + filepath.Join(c.Dir, name), "--log.level=warn", fmt.Sprintf(`--label=receive_replica="%d"`, i)}
		if members > 1 {
			args = append(args, fmt.Sprintf("--receive.replication-factor=%d", members), "--receive.local-endpoint="+at[1],
				"--receive.hashrings-file="+hashrings, "--receive.hashrings-algorithm=ketama", "--receive.replication-protocol=protobuf",
				"--receive.capnproto-address="+at[3])
		}
		if err := c.start(name, args...); err != nil {
			return err
		}
		c.add(at[0], "http://"+at[2]+"/api/v1/receive", "http://"+at[0]+"/-/ready")
	}
	return nil
}

func launchPrometheus(c *Cluster, _ int) error {
	at, err := c.addresses(1)
	if err != nil {
		return err
	}
	config := filepath.Join(c.Dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {}\n"), 0o600); err != nil {
		return err
	}
	c.add(at[0], "http://"+at[0]+"/api/v1/write", "http://"+at[0]+"/-/ready")
	return c.start("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(c.Dir, "prometheus"),
		"--web.listen-address="+at[0], "--web.enable-remote-write-receiver", "--web.enable-admin-api", "--log.level=warn")
}

func launchVictoria(c *Cluster, _ int) error {
	at, err := c.addresses(1)
	if err != nil {
		return err
	}
	c.add(at[0], "http://"+at[0]+"/api/v1/write", "http://"+at[0]+"/health")
	return c.start("victoria-metrics", "-storageDataPath="+filepath.Join(c.Dir, "victoria-metrics"), "-httpListenAddr="+at[0],
		"-selfScrapeInterval=0", "-loggerLevel=WARN")
}

// Launch starts p from the folder of peers and waits until it takes samples. Close ends it, after an error as well.
func Launch(ctx context.Context, p Peer, peers string, members int) (*Cluster, error) {
	peers, err := filepath.Abs(peers)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hearth-bench-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Peer: p, Dir: dir, binary: filepath.Join(peers, p.Binary)}
	if err := p.launch(c, members); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w\n%s", p.Name, err, c.Processes[0].Tail(20)), c.Close())
	}
	return c, nil
}
