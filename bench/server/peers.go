package server

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Peer is a program that takes remote write.
type Peer struct {
	Name       string
	Binary     string // file name in the folder of peers
	Path       string // absolute, once found
	V2         bool   // takes remote write 2.0
	Replicates bool   // can run as three members that hold each series three times
	Settings   string // what is not its default, in words
	Counter    string // metric that counts the samples it stored

	launch func(c *Cluster, members int) error
	flush  func(ctx context.Context, c *Cluster) error // nil = blocks are made at a stop
}

// appended is the counter of Prometheus's TSDB, which all but VictoriaMetrics store in.
const appended = "prometheus_tsdb_head_samples_appended_total"

// Peers are all that this package can start, Hearth first.
func Peers() []Peer {
	return []Peer{
		{Name: "hearth", Binary: "hearth", V2: true, Replicates: true, Counter: appended, launch: launchHearth,
			flush:    flushHearth,
			Settings: "`hearth receive`; three members find each other by gossip, RF=3; no bucket"},
		{Name: "thanos", Binary: "thanos", V2: true, Replicates: true, Counter: appended, launch: launchThanos,
			Settings: "`thanos receive`; three RouterIngestors by a ketama hashring file, RF=3, protobuf replication; no " +
				"bucket"},
		{Name: "prometheus", Binary: "prometheus", V2: true, Counter: appended, launch: launchPrometheus,
			flush:    flushPrometheus,
			Settings: "`--web.enable-remote-write-receiver`, nothing scraped"},
		{Name: "victoriametrics", Binary: "victoria-metrics", Counter: "vm_rows_added_to_storage_total",
			launch: launchVictoria, flush: flushVictoria,
			Settings: "single node, `-selfScrapeInterval=0`"},
	}
}

// Find gives the peers whose binary is in dir their Path, and the names of those whose is not. Hearth is the given
// binary where dir has none.
func Find(peers []Peer, dir, hearth string) (there []Peer, absent []string, err error) {
	for _, p := range peers {
		p.Path = filepath.Join(dir, p.Binary)
		_, err := os.Stat(p.Path)
		if p.Name == "hearth" && errors.Is(err, fs.ErrNotExist) {
			p.Path = hearth
			_, err = os.Stat(hearth)
		}
		switch {
		case err == nil:
			if p.Path, err = filepath.Abs(p.Path); err != nil {
				return nil, nil, err
			}
			there = append(there, p)
		case errors.Is(err, fs.ErrNotExist):
			absent = append(absent, p.Name)
		default:
			return nil, nil, err
		}
	}
	return there, absent, nil
}

var saidVersion = regexp.MustCompile(`version (\S+) \(.*revision: (\w+)`)

// Version of the peer's binary: what PATH.version beside it says, else what Go built in, else what it says itself.
func (p Peer) Version(ctx context.Context) string {
	if said, err := os.ReadFile(p.Path + ".version"); err == nil {
		return strings.TrimSpace(string(said))
	}
	if info, err := buildinfo.ReadFile(p.Path); err == nil && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	said, err := exec.CommandContext(ctx, p.Path, "--version").CombinedOutput()
	if m := saidVersion.FindSubmatch(said); err == nil && m != nil {
		return fmt.Sprintf("%s (%s)", m[1], m[2])
	}
	return "unknown"
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
				"--receive.hashrings-file="+hashrings, "--receive.hashrings-algorithm=ketama",
				"--receive.replication-protocol=protobuf", "--receive.capnproto-address="+at[3])
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
	return c.start("victoria-metrics", "-storageDataPath="+filepath.Join(c.Dir, "victoria-metrics"),
		"-httpListenAddr="+at[0],
		"-selfScrapeInterval=0", "-loggerLevel=WARN")
}

// Launch starts p, which was found, and waits until it takes samples. Close ends it.
func Launch(ctx context.Context, p Peer, members int) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "hearth-bench-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Peer: p, Dir: dir}
	if err := p.launch(c, members); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w\n%s", p.Name, err, c.Processes[0].Tail(20)), c.Close())
	}
	return c, nil
}
