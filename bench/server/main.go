package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Main runs a benchmark with the arguments of this process until it ends or a signal ends its context. It gives its
// results to out and its progress to log. An error is said with the benchmark's name, and makes the exit status 1.
func Main(name string, run func(ctx context.Context, args []string, out, log io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Parse reads the flags of set from args, which may hold nothing else.
func Parse(set *flag.FlagSet, args []string) error {
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return nil
}

// Publish writes the report of a run to out, and into the generated part of the Markdown file page; "" is none.
func Publish(out io.Writer, page, report string) error {
	if _, err := io.WriteString(out, report); err != nil || page == "" {
		return err
	}
	return WriteGenerated(page, report)
}
