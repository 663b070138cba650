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
			_ = b.ending(b.look(b.ctx)) // answers has the error
		}
	}
}

// look asks the bucket once, and keeps what is wrong with it for answers. The error is what the bucket said, or that
// it is not this process's: another process may have claimed it since the start. A process that only reads knows from
// then on which bucket it is.
func (b *bucket) look(ctx context.Context) error {
	look, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	read, recognises := block.ReadIdentity, !b.use.writes && b.identity.Load() == nil
	if recognises { // others compare the answer with theirs
		read = block.SettledIdentity
	}
	id, err := read(look, b.Bucket)
	if errs.KindOf(err) == errs.NotFound {
		if fault := b.layoutFits(look); fault != nil {
			err = fault
		}
	}
	if ctx.Err() != nil { // the process ends
		return err
	}
	if err = b.note(id, err); err == nil && recognises {
		b.know(id)
	}
	return err
}

// note keeps what is wrong with the bucket for answers, where id and err are what it said of itself. It returns err, or
// that the bucket is not this process's.
func (b *bucket) note(id block.Identity, err error) error {
	if err == nil {
		err = b.judge(id)
	}
	b.unnamed.Store(errs.KindOf(err) == errs.NotFound)
	switch errs.KindOf(err) {
	case errs.OK, errs.NotFound: // it answers; where it has no identity no Hearth process has written to it yet
		b.fault.Set(nil)
	default:
		b.fault.Set(fmt.Errorf("%s does not answer as it should: %w", b.Name(), err))
	}
	return err
}

// answers is what was wrong with the bucket at the last look.
func (b *bucket) answers() error { return b.fault.Get() }
