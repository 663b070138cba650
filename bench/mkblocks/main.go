package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "mkblocks:", err)
		os.Exit(1)
	}
}

// seriesPerNamespace is how many series a namespace of the large block has: 20 metrics of 50 pods.
const seriesPerNamespace = 1000

func run(ctx context.Context, args []string, out io.Writer) error {
	p := blocks.DefaultPlan()
	fs := flag.NewFlagSet("mkblocks", flag.ContinueOnError)
	dir := fs.String("dir", "", "directory that becomes the bucket")
	fs.Uint64Var(&p.Seed, "seed", p.Seed, "number that ids and values are made of")
	fs.IntVar(&p.Blocks, "blocks", p.Blocks, "small blocks, a multiple of -tenants")
	fs.IntVar(&p.Tenants, "tenants", p.Tenants, "tenants that have small blocks")
	fs.IntVar(&p.Shape.Pods, "pods", p.Shape.Pods, "pods of each of 4 namespaces in a small block, with 10 series each")
	fs.DurationVar(&p.Interval, "interval", p.Interval, "time between two samples of a series in small blocks")
	large := fs.Int("large", 0, "series of the large block, a multiple of 1000; 0 = no large block")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case *dir == "":
		return errors.New("-dir is needed")
	case *large%seriesPerNamespace != 0:
		return fmt.Errorf("-large %d: must be a multiple of %d", *large, seriesPerNamespace)
	case *large > 0:
		p.Large = blocks.DefaultLarge()
		p.Large.Shape.Namespaces = *large / seriesPerNamespace
	}
	began := time.Now()
	if err := blocks.Write(ctx, *dir, p); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d small blocks and %d large series in %s\n", p.Blocks, *large,
		time.Since(began).Round(time.Second))
	return err
}
