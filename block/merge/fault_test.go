package merge

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// faultyFiles are the files of a block whose connections break off.
type faultyFiles struct {
	files
	every int   // bytes after which a connection ends
	err   error // how it ends
}

func (f faultyFiles) open(ctx context.Context, rel string, off int64) (io.ReadCloser, error) {
	r, err := f.files.open(ctx, rel, off)
	if err != nil || f.every == 0 && rel != block.IndexName {
		return r, errors.Join(err, f.err)
	}
	if rel == block.IndexName && f.every == 0 {
		return r, nil
	}
	return &breaking{r, f.every, f.err}, nil
}

type breaking struct {
	io.ReadCloser
	left int
	err  error
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// flaky are inputs whose connections end after 1000 bytes each, and look like the end of the file.
func flaky(in []Input) (out []Input) {
	for _, i := range in {
		out = append(out, Input{i.Meta, faultyFiles{i.files, 1000, io.EOF}})
	}
	return out
}

// TestBucketThatFails: the kind is Unavailable, so that the block is not taken for a damaged one.
func TestBucketThatFails(t *testing.T) {
	f := func(in faultyFiles) {
		t.Helper()
		x := faulty(t)
		in.files = x.files
		_, err := Run(context.Background(), []Input{{x.Meta, in}}, Tee(), Options{Scratch: t.TempDir()})
		if errs.KindOf(err) != errs.Unavailable {
			t.Errorf("%v of kind %s", err, errs.KindOf(err))
		}
	}
	f(faultyFiles{err: errs.E(errs.Unavailable, "no route")})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, []Input{faulty(t)}, Tee(), Options{Scratch: t.TempDir()}); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("%v", err)
	}
}
