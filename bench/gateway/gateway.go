package gateway

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// Kind is a program that serves a bucket.
type Kind string

// The kinds.
const (
	Hearth Kind = "hearth"
	Thanos Kind = "thanos"
)

// Gateway is a running store gateway.
type Gateway struct {
	Kind    Kind
	HTTP    string // host:port
	GRPC    string
	Process *server.Process
}

// Setup is what Launch starts a gateway with.
type Setup struct {
	Kind   Kind
	Binary string
	Dir    string   // its log and data; what is there is the local disk of an earlier run
	Bucket string   // object store YAML
	Flags  []string // beside those that Launch gives
}

// Launch starts a gateway and does not wait for it.
func Launch(s Setup) (*Gateway, error) {
	ports, err := server.Ports(2)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(s.Dir, "bucket.yml")
	if err := os.WriteFile(config, []byte(s.Bucket), 0o600); err != nil {
		return nil, err
	}
	g := &Gateway{Kind: s.Kind, HTTP: server.Address(ports[0]), GRPC: server.Address(ports[1])}
	args := []string{"store", "--http-address=" + g.HTTP, "--grpc-address=" + g.GRPC, "--log.level=warn",
		"--data-dir=" + filepath.Join(s.Dir, "data"), "--objstore.config-file=" + config}
	if s.Kind == Hearth {
		args = append(args, "--store-api.tenants=*") // Thanos knows no tenants here: it serves all blocks
	}
	g.Process, err = server.Start("store", s.Binary, s.Dir, append(args, s.Flags...)...)
	return g, err
}

// WaitReady waits until g says that it is ready, and fails early when its process ends.
func (g *Gateway) WaitReady(ctx context.Context, deadline time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		_, err := server.Get(ctx, "http://"+g.HTTP+"/-/ready")
		if err == nil {
			return nil
		}
		select {
		case <-g.Process.Done():
			return fmt.Errorf("%s has ended:\n%s", g.Kind, g.Process.Tail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w\n%s", g.Kind, deadline, err, g.Process.Tail(20))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Counts are the operations on the bucket so far, by objstore's metrics.
func (g *Gateway) Counts(ctx context.Context) (Counts, error) {
	page, err := server.Get(ctx, "http://"+g.HTTP+"/metrics")
	if err != nil {
		return Counts{}, err
	}
	return operationsOf(page)
}

// syncMetrics count looks at the bucket.
var syncMetrics = map[Kind]string{Hearth: "hearth_store_syncs_total", Thanos: "thanos_blocks_meta_syncs_total"}

// Syncs is how many looks at the bucket were begun (Thanos) or ended (Hearth).
func (g *Gateway) Syncs(ctx context.Context) (float64, error) {
	page, err := server.Get(ctx, "http://"+g.HTTP+"/metrics")
	if err != nil {
		return 0, err
	}
	return server.SumOf(page, syncMetrics[g.Kind])
}

// Stop asks g to end, and waits.
func (g *Gateway) Stop() error { return g.Process.Stop(20 * time.Second) }
