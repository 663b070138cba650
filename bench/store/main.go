package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hearth-metrics/hearth/bench/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

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
	err = errors.Join(b.measure(ctx, rep), b.close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var text strings.Builder
	rep.write(&text)
	if _, e := io.WriteString(out, text.String()); e != nil {
		return errors.Join(err, e)
	}
	if o.out != "" {
		err = errors.Join(err, server.WriteGenerated(o.out, text.String()))
	}
	return err
}
