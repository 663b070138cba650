package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/hearth-metrics/hearth/bench/server"
)

func main() { server.Main("store", run) }

// run measures and reports. Progress goes to log, the tables to out and to -out. What was measured is reported also
// when a later case failed.
func run(ctx context.Context, args []string, out, log io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	for _, dir := range []string{o.data, o.profile} {
		if err := os.MkdirAll(dir, 0o755); err != nil && dir != "" {
			return err
		}
	}
	b, err := newBed(ctx, o, log)
	if err != nil {
		return err
	}
	rep := newReport(ctx, o)
	err = errors.Join(b.measure(ctx, rep), b.Close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	rep.skipped = b.skipped
	var text strings.Builder
	rep.write(&text)
	return errors.Join(err, server.Publish(out, o.out, text.String()))
}
