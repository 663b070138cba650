package gateway

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Buckets is a folder whose sub-directories are buckets that stay for the next run.
type Buckets struct {
	Root string
	S3   *S3 // over Root; nil = there is no versitygw

	log io.Writer
}

// OpenBuckets makes the folder below data, and starts the versitygw binary on it unless that is "". Close ends it.
func OpenBuckets(ctx context.Context, data, versitygw string, log io.Writer) (*Buckets, error) {
	b := &Buckets{Root: filepath.Join(data, "buckets"), log: log}
	if err := os.MkdirAll(b.Root, 0o755); err != nil {
		return nil, err
	}
	if versitygw == "" {
		fmt.Fprintln(log, "no versitygw: the S3 cases are skipped")
		return b, nil
	}
	var err error
	b.S3, err = StartS3(ctx, versitygw, b.Root, data)
	return b, err
}

// Close ends the S3 server.
func (b *Buckets) Close() error {
	if b.S3 == nil {
		return nil
	}
	return b.S3.Close()
}

// Written returns the directory of a bucket. Unless an earlier run did, write makes it, in a directory that does not
// exist.
func (b *Buckets) Written(name string, write func(dir string) error) (string, error) {
	dir := filepath.Join(b.Root, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	began := time.Now()
	unfinished := dir + ".part"
	if err := os.RemoveAll(unfinished); err != nil {
		return dir, err
	}
	if err := write(unfinished); err != nil {
		return dir, fmt.Errorf("bucket %s: %w", name, err)
	}
	fmt.Fprintf(b.log, "bucket %s was written in %s\n", name, time.Since(began).Round(time.Second))
	return dir, os.Rename(unfinished, dir)
}
