package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hearth-metrics/hearth/bench/server"
)

func main() { server.Main("ingest", run) }

// run measures and reports. Progress goes to log, the tables to out and to -out.
func run(ctx context.Context, args []string, out, log io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
	}
	var wanted []server.Peer
	for _, p := range server.Peers() {
		if o.only.MatchString(p.Name) {
			wanted = append(wanted, p)
		}
	}
	peers, absent, err := server.Find(wanted, o.peers, o.hearth)
	if err != nil {
		return err
	}
	for _, name := range absent {
		fmt.Fprintf(log, "%s is skipped: %q has no such binary\n", name, o.peers)
	}
	if len(peers) == 0 {
		return fmt.Errorf("no server in %q, and no %s", o.peers, o.hearth)
	}
	rep := newReport(ctx, o, peers, absent)
	if rep.results, err = measureAll(ctx, o, peers, log); err != nil {
		return err
	}
	var text strings.Builder
	rep.write(&text)
	return errors.Join(server.Publish(out, o.out, text.String()), rep.faults())
}
