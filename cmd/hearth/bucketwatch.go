package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// lookInterval is how often a process asks its bucket whether it answers, so that readiness knows it also while
	// nothing is shipped or read.
	lookInterval = 30 * time.Second
	// lookTimeout bounds one such question.
	lookTimeout = 10 * time.Second
)

// errNotAsked is what is known of a bucket before the first look at it.
var errNotAsked = errors.New("it has not answered yet")

// watch looks at the bucket every lookInterval until the bucket is closed.
func (b *bucket) watch() {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-tick.C:
			_ = b.look(b.ctx) // which keeps the error for answers
		}
	}
}

// look asks the bucket once, and keeps what is wrong with it for answers. The error is what the bucket said.
func (b *bucket) look(ctx context.Context) error {
	look, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	_, err := block.ReadIdentity(look, b.Bucket)
	switch {
	case ctx.Err() != nil: // the process ends
	case err == nil || errs.KindOf(err) == errs.NotFound: // it answers; nobody has written to it yet
		b.fault.Store(nil)
	default:
		fault := fmt.Errorf("%s does not answer as it should: %w", b.Name(), err)
		b.fault.Store(&fault)
	}
	return err
}

// answers is what was wrong with the bucket at the last look.
func (b *bucket) answers() error {
	if err := b.fault.Load(); err != nil {
		return *err
	}
	return nil
}
