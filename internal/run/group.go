package run

import (
	"context"
	"errors"
	"fmt"
)

// Group is the parts of a process. The zero value is empty and ready to use.
type Group struct{ parts []part }

type part struct {
	name  string
	open  func(ctx context.Context, fail func(error)) error
	close func() error
}

// Add appends a part. open starts it and returns; ctx bounds the opening only. Work the part starts lives until close;
// when it dies of itself it calls fail once, which ends the group. close waits for all of the part's goroutines.
func (g *Group) Add(name string, open func(ctx context.Context, fail func(error)) error, close func() error) {
	g.parts = append(g.parts, part{name, open, close})
}

// Run opens the parts in order, waits for ctx to end (no error) or for a part to fail, and closes the opened parts in
// reverse, so that what was added last (listeners) stops first. The error joins all that went wrong.
func (g *Group) Run(ctx context.Context) (err error) {
	failed := make(chan error, len(g.parts))
	for _, p := range g.parts {
		fail := func(err error) { failed <- fmt.Errorf("%s: %w", p.name, err) }
		if err := p.open(ctx, fail); err != nil {
			return fmt.Errorf("open %s: %w", p.name, err)
		}
		defer func() {
			if cerr := p.close(); cerr != nil {
				err = errors.Join(err, fmt.Errorf("close %s: %w", p.name, cerr))
			}
		}()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// Names are the parts in the order in which they are opened.
func (g *Group) Names() []string {
	names := make([]string, len(g.parts))
	for i, p := range g.parts {
		names[i] = p.name
	}
	return names
}
