package upload

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/indexheader"
	"github.com/hearth-metrics/hearth/block/verify"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// validate checks a block that was sent, and puts it into the bucket. It ends with the block or the failure of the
// session; if ctx ends before, another process goes on.
func (r *Receiver) validate(ctx context.Context, id ulid.ULID, s *session) {
	defer r.release(id)
	ctx, cancel := context.WithDeadline(ctx, time.Now().Add(r.opts.Lifetime))
	defer cancel()
	began := time.Now()
	for {
		err := r.whileTouching(ctx, id, s, func(ctx context.Context) error { return r.commit(ctx, id, s) })
		switch kind := errs.KindOf(err); {
		case err == nil:
			r.metrics.blocks.WithLabelValues(complete).Inc()
			r.log.Info("an uploaded block is in the bucket", "tenant", s.Tenant, "block", id, "bytes", s.bytes(),
				"series", s.meta.Stats.NumSeries, "took", time.Since(began))
			return
		case kind == errs.Invalid, kind == errs.NotFound, kind == errs.Conflict, kind == errs.Unsupported:
			if err := r.fail(ctx, id, s, err); err == nil {
				return
			}
		}
		r.log.Warn("an uploaded block could not be checked; it is tried again", "block", id, "err", err)
		select {
		case <-time.After(r.retry):
		case <-ctx.Done():
			return
		}
	}
}

// whileTouching does something, and says meanwhile that this process does.
func (r *Receiver) whileTouching(ctx context.Context, id ulid.ULID, s *session, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- guarded(func() error { return do(ctx) }) }()
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			now, err := r.read(ctx, id)
			if err == nil && now.By != r.name || errs.KindOf(err) == errs.NotFound {
				cancel() // another process took it over, or its time is over
				continue
			}
			touched := *s
			touched.Touched = r.opts.Now().UTC()
			if err := r.write(ctx, id, &touched); err != nil {
				r.log.Warn("it could not be noted that a block is being checked", "block", id, "err", err)
			}
		}
	}
}

// guarded is the error of do, also if it panics: what a client sent must not end the process.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.E(errs.Invalid, "BUG: panic: %v", p)
		}
	}()
	return do()
}

// fail ends a session that cannot become a block. What was sent is removed; the session stays for those who ask.
func (r *Receiver) fail(ctx context.Context, id ulid.ULID, s *session, cause error) error {
	if err := r.remove(ctx, r.bkt, id); err != nil {
		return err
	}
	if err := r.unstage(ctx, id); err != nil {
		return err
	}
	s.State, s.Error = failed, cause.Error()
	if err := r.write(ctx, id, s); err != nil {
		return err
	}
	r.metrics.blocks.WithLabelValues(failed).Inc()
	r.log.Warn("an uploaded block is refused", "tenant", s.Tenant, "block", id, "err", cause)
	return nil
}

// commit makes a block of what was sent:
//
//  1. fetch the index, for what is made of it
//  2. copy the segments into the block's directory, then the index
//  3. read all of the block there: every checksum, the order of series and chunks, and every sample; then ask whether
//     its tenant is deleted
//  4. write meta.json
//  5. remove what was sent, then the session
//
// Errors: Invalid, if the block is wrong; Conflict, if it is there already; Unavailable and Internal are no fault of
// the block.
func (r *Receiver) commit(ctx context.Context, id ulid.ULID, s *session) error {
	names, err := block.ObjectsOf(ctx, r.bkt, id)
	if err != nil {
		return err
	}
	if slices.Contains(names, block.MetaName) { // an earlier run was broken off behind step 4, or the block is another's
		m, err := block.FetchMeta(ctx, r.bkt, id)
		if err != nil {
			return err
		}
		if m.Thanos.Source != block.SourceUpload || m.Thanos.Labels[r.opts.TenantLabel] != string(s.Tenant) {
			return errs.E(errs.Conflict, "block %s is in the bucket already", id)
		}
		return r.end(ctx, id)
	}
	if slices.Contains(names, block.DeletionMarkName) {
		return errs.E(errs.Conflict, "block %s is marked for deletion", id)
	}
	dir := filepath.Join(r.opts.Dir, id.String())
	if err := os.RemoveAll(dir); err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	defer os.RemoveAll(dir)
	if err := r.fetch(ctx, id, s, dir); err != nil {
		return err
	}
	header, err := indexheader.Shipped(dir)
	if err != nil {
		return err
	}
	sent, err := r.copySegments(ctx, id, s)
	if err != nil {
		return err
	}
	err = block.UploadWith(ctx, r.bkt, dir, *s.meta, block.UploadOptions{Sent: sent, Extra: []block.ExtraFile{header},
		BeforeMeta: func(ctx context.Context) error {
			if err := r.verify(ctx, s, dir); err != nil {
				return err
			}
			return r.mayBring(ctx, s.meta, s.Tenant) // it may have been deleted meanwhile
		}})
	if err != nil {
		return err
	}
	return r.end(ctx, id)
}

// verify reads a block in its directory. Errors: Invalid; Unavailable.
func (r *Receiver) verify(ctx context.Context, s *session, scratch string) error {
	findings, err := verify.Scan(ctx, r.bkt, s.meta, scratch, true)
	if err != nil || len(findings) == 0 {
		return err
	}
	const few = 3
	var texts []string
	for _, f := range findings[:min(few, len(findings))] {
		texts = append(texts, f.Text)
	}
	return errs.E(errs.Invalid, "%d things are wrong with the block, such as: %s", len(findings),
		strings.Join(texts, "; "))
}

// fetch copies the index that was sent to dir.
func (r *Receiver) fetch(ctx context.Context, id ulid.ULID, s *session, dir string) error {
	return r.open(ctx, id, block.File{RelPath: block.IndexName, SizeBytes: s.meta.SizeOf(block.IndexName)},
		func(body *exactly) error {
			f, err := os.Create(filepath.Join(dir, block.IndexName))
			if err != nil {
				return errs.Wrap(errs.Internal, err)
			}
			_, err = io.Copy(f, body)
			if body.fault == nil && err != nil {
				err = errs.Wrap(errs.Internal, err) // of the disk
			}
			if closeErr := f.Close(); err == nil {
				err = errs.Wrap(errs.Internal, closeErr)
			}
			return err
		})
}

// copySegments copies the segments that were sent into the block's directory.
func (r *Receiver) copySegments(ctx context.Context, id ulid.ULID, s *session) (sent []block.File, err error) {
	for _, f := range s.meta.Thanos.Files {
		if f.RelPath == block.IndexName {
			continue
		}
		err := r.open(ctx, id, f, func(body *exactly) error { return r.bkt.Upload(ctx, block.Object(id, f.RelPath), body) })
		if err != nil {
			return nil, err
		}
		sent = append(sent, f)
	}
	return sent, nil
}

// open opens a file that was sent for do. Errors of do have the kind Unavailable, unless they have one. NotFound and
// Invalid: the file is gone or has another size.
func (r *Receiver) open(ctx context.Context, id ulid.ULID, f block.File, do func(*exactly) error) error {
	name := stagedName(id, f.RelPath)
	o, err := r.quietly.Get(ctx, name)
	if err != nil && r.bkt.IsObjNotFoundErr(err) {
		return errs.E(errs.NotFound, "%s is gone", name)
	}
	if err != nil {
		return errs.E(errs.Unavailable, "read %s: %w", name, err)
	}
	defer o.Close()
	body := &exactly{r: o, left: f.SizeBytes, size: f.SizeBytes}
	err = do(body)
	if err == nil || errs.KindOf(err) != errs.Internal && body.fault == nil {
		return err
	}
	return errs.Wrap(errs.Unavailable, fmt.Errorf("copy %s: %w", name, err))
}
