package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hearth-metrics/hearth/bench/gateway"
)

// bed is what all cases share.
type bed struct {
	*gateway.Buckets
	opts options
	log  io.Writer
}

func newBed(ctx context.Context, o options, log io.Writer) (*bed, error) {
	buckets, err := gateway.OpenBuckets(ctx, o.data, o.versitygw, log)
	return &bed{buckets, o, log}, err
}

// measure runs the cases that are asked for. One that fails does not keep others from being run.
func (b *bed) measure(ctx context.Context, rep *report) error {
	scale := 1
	if b.opts.quick {
		scale = 10
	}
	var faults []error
	for _, c := range cases(scale) {
		if !b.opts.cases.MatchString(c.name) || c.s3 && b.S3 == nil {
			continue
		}
		faults = append(faults, b.measureCase(ctx, c, scale, rep))
	}
	return errors.Join(faults...)
}

// measureCase runs each program over a copy of the bucket, and compares what they left with what there was.
func (b *bed) measureCase(ctx context.Context, c testCase, scale int, rep *report) error {
	bucket, err := b.Written(fmt.Sprintf("%s-%d", c.bucket, scale), func(dir string) error { return c.write(ctx, dir) })
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	var want content
	if !c.nothing {
		if want, err = contentOf(ctx, bucket); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	rep.cases = append(rep.cases, c)
	var faults []error
	for _, program := range programs {
		if b.opts.binaries[program] == "" {
			continue
		}
		p := b.pass(ctx, c, program, bucket)
		if p.fault == nil && !c.nothing && !p.content.holds(want, c.newest) {
			p.fault = fmt.Errorf("the bucket had %s, and then %s", want, p.content)
		}
		fmt.Fprintln(b.log, p)
		faults = append(faults, p.fault)
		rep.passes = append(rep.passes, p)
	}
	return errors.Join(faults...)
}

// pass runs one program over a copy of a bucket.
func (b *bed) pass(ctx context.Context, c testCase, program, bucket string) pass {
	p := pass{testCase: c.name, program: program}
	dir := filepath.Join(b.opts.data, program)
	copied := filepath.Join(b.Root, "copy")
	p.fault = errors.Join(os.RemoveAll(dir), os.RemoveAll(copied), os.MkdirAll(filepath.Join(dir, "data"), 0o755),
		link(bucket, copied))
	if p.fault != nil {
		return p
	}
	config := gateway.Directory(copied)
	if c.s3 {
		config = b.S3.Config("copy")
	}
	args := append([]string{"compact", "--data-dir=" + filepath.Join(dir, "data"), "--objstore.config=" + config,
		"--consistency-delay=0s", "--http-address=127.0.0.1:0"}, c.flags[program]...)
	limited, cancel := context.WithTimeout(ctx, b.opts.deadline)
	defer cancel()
	if c.nothing {
		first := pass{testCase: c.name, program: program}
		if p.fault = first.watch(limited, b.opts.binaries[program], dir, args); p.fault != nil {
			return p
		}
	}
	var before gateway.Counts
	if c.s3 {
		before = b.S3.Counts()
	}
	p.fault = p.watch(limited, b.opts.binaries[program], dir, args)
	if c.s3 {
		p.requests = b.S3.Counts().Sub(before)
	}
	if p.fault == nil {
		p.content, p.fault = contentOf(ctx, copied)
	}
	if !b.opts.keep {
		p.fault = errors.Join(p.fault, os.RemoveAll(dir), os.RemoveAll(copied))
	}
	return p
}

// link copies a bucket. Files are the same on disk, except meta.json: a bucket's other objects are never changed.
func link(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if d.Name() != "meta.json" {
			return os.Link(path, target)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}
