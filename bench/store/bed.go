package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
)

// bed is what all cases share: the buckets, the S3 server and the log.
type bed struct {
	*gateway.Buckets
	opts    options
	log     io.Writer
	began   time.Time
	skipped []string // cases that -limit left out
}

func newBed(ctx context.Context, o options, log io.Writer) (*bed, error) {
	buckets, err := gateway.OpenBuckets(ctx, o.data, o.versitygw, log)
	return &bed{Buckets: buckets, opts: o, log: log, began: time.Now()}, err
}

// bucket is a bucket of the bed.
type bucket struct {
	name string
	dir  string
	plan blocks.Plan
}

// bucketOf writes a bucket unless an earlier run did.
func (b *bed) bucketOf(ctx context.Context, name string, p blocks.Plan) (bucket, error) {
	dir, err := b.Written(name, func(dir string) error {
		if err := enoughSpace(b.Root, p); err != nil {
			return err
		}
		return blocks.Write(ctx, dir, p)
	})
	return bucket{name: name, dir: dir, plan: p}, err
}

// What a bucket takes on disk, in bytes: a small block has its directories, its meta.json and, in a gateway's
// directory, an index-header; all blocks of one window share their files.
const (
	perBlock, perWindow = 24 << 10, 128 << 10
	perSeries           = 3 << 10 // of the large block, in all resolutions
)

// enoughSpace reports as an error that there is not enough space for a bucket and what gateways keep of it.
func enoughSpace(dir string, p blocks.Plan) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	need := uint64(p.Blocks)*perBlock + uint64(p.Blocks/p.Tenants)*perWindow
	if p.Large != nil {
		need += uint64(p.Large.Shape.Series()) * perSeries
	}
	if have := fs.Bavail * uint64(fs.Bsize); have < need {
		return fmt.Errorf("takes %d MiB, and %s has %d MiB", need>>20, dir, have>>20)
	}
	return nil
}

func (b *bed) small(ctx context.Context, n int) (bucket, error) {
	p := blocks.DefaultPlan()
	p.Blocks = n
	return b.bucketOf(ctx, "small-"+strconv.Itoa(n), p)
}

func (b *bed) large(ctx context.Context) (bucket, error) {
	p := blocks.DefaultPlan()
	p.Blocks, p.Large = 0, blocks.LargeOf(b.opts.large)
	return b.bucketOf(ctx, "large-"+strconv.Itoa(b.opts.large), p)
}

// storage is how a gateway reaches a bucket.
type storage string

const (
	onDisk storage = "FILESYSTEM"
	onS3   storage = "S3"
)

func (b *bed) storages() []storage {
	if b.S3 == nil {
		return []storage{onDisk}
	}
	return []storage{onDisk, onS3}
}

func (b *bed) config(s storage, at bucket) string {
	if s == onS3 {
		return b.S3.Config(at.name)
	}
	return gateway.Directory(at.dir)
}

// counts are what the bucket was asked for so far: HTTP requests where there are some, else operations.
func (b *bed) counts(ctx context.Context, s storage, g *gateway.Gateway) (gateway.Counts, error) {
	if s == onS3 {
		return b.S3.Counts(), nil
	}
	return g.Counts(ctx)
}

// index writes the bucket's index object, or takes it away. It reports whether Hearth can write one.
func (b *bed) index(ctx context.Context, at bucket, present bool) (bool, error) {
	if err := os.RemoveAll(filepath.Join(at.dir, "hearth")); err != nil || !present {
		return true, err
	}
	tool := []string{"tools", "bucket", "index"}
	hearth := b.opts.binaries[gateway.Hearth]
	if exec.CommandContext(ctx, hearth, append(tool, "--help")...).Run() != nil {
		return false, nil
	}
	said, err := exec.CommandContext(ctx, hearth,
		append(tool, "--objstore.config="+gateway.Directory(at.dir))...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("hearth tools bucket index: %w\n%s", err, said)
	}
	return true, err
}

// launch starts a gateway in a directory of its own below -data. Whoever starts it removes the directory.
func (b *bed) launch(k gateway.Kind, config, dir string, flags ...string) (*gateway.Gateway, error) {
	return gateway.Launch(gateway.Setup{Kind: k, Binary: b.opts.binaries[k], Dir: dir, Bucket: config, Flags: flags})
}

// measure runs all cases whose names are asked for. A case that fails is named in the error, and does not keep others
// from being run.
func (b *bed) measure(ctx context.Context, rep *report) error {
	var faults []error
	for _, n := range b.opts.blocks {
		faults = append(faults, b.measureStarts(ctx, n, rep))
	}
	faults = append(faults, b.measureQueries(ctx, rep), b.measureDashboards(ctx, rep))
	return errors.Join(faults...)
}

// wanted tells whether a case is to be run, and says so.
func (b *bed) wanted(name string) bool {
	if !b.opts.cases.MatchString(name) {
		return false
	}
	if b.opts.limit > 0 && time.Since(b.began) > b.opts.limit {
		b.skipped = append(b.skipped, name)
		fmt.Fprintf(b.log, "%s: left out after %s\n", name, b.opts.limit)
		return false
	}
	fmt.Fprintln(b.log, name)
	return true
}
