package definition

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Union is the Source of all groups of several sources. Where two of them have a group of the same tenant, namespace
// and name, that of the first source counts, and the error names the other one.
type Union struct {
	sources []Source
	changed chan struct{}
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

var _ Source = (*Union)(nil)

// NewUnion unites sources, which the caller opens and closes.
func NewUnion(sources ...Source) *Union {
	return &Union{sources: sources, changed: make(chan struct{}, 1)}
}

// Open begins to listen for changes.
func (u *Union) Open(context.Context, func(error)) error {
	ctx, stop := context.WithCancel(context.Background())
	u.stop = stop
	for _, s := range u.sources {
		u.wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-s.Changed():
					select {
					case u.changed <- struct{}{}:
					default: // Changed has not been read since the last change
					}
				}
			}
		})
	}
	return nil
}

// Close stops listening.
func (u *Union) Close() error {
	u.stop()
	u.wg.Wait()
	return nil
}

// Changed implements Source.
func (u *Union) Changed() <-chan struct{} { return u.changed }

// Groups implements Source.
func (u *Union) Groups(ctx context.Context) ([]Group, error) {
	type key struct{ tenant, namespace, name string }
	seen := map[key]bool{}
	var all []Group
	var faults []error
	for _, s := range u.sources {
		groups, err := s.Groups(ctx)
		faults = append(faults, err)
		for _, g := range groups {
			k := key{string(g.Tenant), g.Namespace, g.Name}
			if seen[k] {
				faults = append(faults, fmt.Errorf("tenant %s, group %q in %q is there twice: the one of the first source "+
					"counts", g.Tenant, g.Name, g.Namespace))
				continue
			}
			seen[k] = true
			all = append(all, g)
		}
	}
	Sort(all)
	return all, errors.Join(faults...)
}
