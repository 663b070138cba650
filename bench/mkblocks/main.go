package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/server"
)

func main() { server.Main("mkblocks", run) }

func run(ctx context.Context, args []string, out, _ io.Writer) error {
	p := blocks.DefaultPlan()
	fs := flag.NewFlagSet("mkblocks", flag.ContinueOnError)
	dir := fs.String("dir", "", "directory that becomes the bucket")
	fs.Uint64Var(&p.Seed, "seed", p.Seed, "number that ids and values are made of")
	fs.IntVar(&p.Blocks, "blocks", p.Blocks, "small blocks, a multiple of -tenants")
	fs.IntVar(&p.Tenants, "tenants", p.Tenants, "tenants that have small blocks")
	fs.IntVar(&p.Shape.Pods, "pods", p.Shape.Pods, "pods of each of 4 namespaces in a small block, with 10 series each")
	fs.DurationVar(&p.Interval, "interval", p.Interval, "time between two samples of a series in small blocks")
	large := fs.Int("large", 0, "series of the large block, a multiple of 1000; 0 = no large block")
	if err := server.Parse(fs, args); err != nil {
		return err
	}
	switch {
	case *dir == "":
		return errors.New("-dir is needed")
	case *large%blocks.SeriesPerNamespace != 0:
		return fmt.Errorf("-large %d: must be a multiple of %d", *large, blocks.SeriesPerNamespace)
	case *large > 0:
		p.Large = blocks.LargeOf(*large)
	}
	began := time.Now()
	if err := blocks.Write(ctx, *dir, p); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d small blocks and %d large series in %s\n", p.Blocks, *large,
		time.Since(began).Round(time.Second))
	return err
}
