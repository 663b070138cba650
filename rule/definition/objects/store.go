package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// Options of a Store.
type Options struct {
	// Interval is how often the bucket is listed.
	Interval time.Duration
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// readers is how many objects are read at a time.
const readers = 16

// maxObjects bounds how many objects a listing may have.
const maxObjects = 500_000

// Store is a definition.Source of the groups in a bucket, and changes them. It is safe for concurrent use.
type Store struct {
	log     *slog.Logger
	bkt     objstore.Bucket
	opts    Options
	changed chan struct{}
	poke    chan struct{} // a change that this process made
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex // guards what follows
	known map[id]stored
	err   error // of the last listing, and of objects
}

// stored is what is known of a group: the object that was read last, and its last good form.
type stored struct {
	object
	group *definition.Group // nil = it was never good
	err   error             // why object cannot be used
}

var _ definition.Source = (*Store)(nil)

// New returns a Store that reads nothing before Open.
func New(log *slog.Logger, bkt objstore.Bucket, opts Options) *Store {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Store{
		log: log, bkt: bkt, opts: opts, known: map[id]stored{}, err: errNotListed,
		changed: make(chan struct{}, 1), poke: make(chan struct{}, 1),
	}
}

// errNotListed is the error of groups before the first listing has ended.
var errNotListed = errs.E(errs.Unavailable, "rules in the bucket: the bucket has not answered yet")

// Open begins to follow the bucket. A bucket that does not answer is no error: Groups names it until it does.
func (s *Store) Open(opening context.Context, _ func(error)) error {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	first := make(chan struct{})
	s.wg.Go(func() {
		tick := time.NewTicker(s.opts.Interval)
		defer tick.Stop()
		s.poll(ctx)
		close(first)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-s.poke:
			}
			s.poll(ctx)
		}
	})
	select {
	case <-first:
	case <-opening.Done():
	case <-time.After(patience):
	}
	return nil
}

// patience is how long Open waits for the first listing. A bucket that does not answer keeps nobody from starting.
const patience = 5 * time.Second

// Close stops following the bucket.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	return nil
}

// Changed implements definition.Source.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Groups implements definition.Source. It returns what the last listing found, and waits for none.
func (s *Store) Groups(context.Context) ([]definition.Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var groups []definition.Group
	for _, k := range s.known {
		if k.group != nil {
			groups = append(groups, *k.group)
		}
	}
	definition.Sort(groups)
	return groups, s.err
}

// poll lists the bucket, and reads what has changed. Only one goroutine calls it.
func (s *Store) poll(ctx context.Context) {
	all, err := s.list(ctx, ownDir, mimirDir)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	was, wasErr := s.known, s.err
	s.mu.Unlock()
	is := was
	if err == nil {
		is, err = s.read(ctx, newest(all), was)
	} else {
		err = fmt.Errorf("rules in the bucket: %w", err)
	}
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.known, s.err = is, err
	s.mu.Unlock()
	s.tell(was, is, wasErr, err)
}

// tell logs what has changed, and sends to Changed. A first listing that finds nothing is a change, too: Groups has no
// error from then on.
func (s *Store) tell(was, is map[id]stored, wasErr, err error) {
	same := maps.EqualFunc(was, is, func(a, b stored) bool {
		return a.key == b.key && a.group == b.group && errs.Text(a.err) == errs.Text(b.err)
	})
	sameErr := errs.Text(wasErr) == errs.Text(err)
	switch {
	case same && sameErr:
		return
	case err != nil && !sameErr:
		s.log.Error("rules in the bucket cannot all be read; last good forms stay in force", "err", err)
	case err == nil && (len(is) > 0 || wasErr != errNotListed):
		s.log.Info("rules in the bucket have changed", "groups", len(is))
	}
	select {
	case s.changed <- struct{}{}:
	default: // Changed has not been read since the last change
	}
}

// list returns the objects with groups below prefixes. An object that is none of these is skipped.
func (s *Store) list(ctx context.Context, prefixes ...string) (all []object, err error) {
	for _, prefix := range prefixes {
		if err := s.walk(ctx, prefix, &all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Store) walk(ctx context.Context, dir string, all *[]object) error {
	var options []objstore.IterOption
	supported := s.bkt.SupportedIterOptions()
	recursive := slices.Contains(supported, objstore.Recursive)
	if recursive {
		options = append(options, objstore.WithRecursiveIter())
	}
	if slices.Contains(supported, objstore.UpdatedAt) && strings.HasPrefix(dir, mimirDir) {
		options = append(options, objstore.WithUpdatedAt())
	}
	return s.bkt.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error {
		if strings.HasSuffix(a.Name, "/") && !recursive {
			return s.walk(ctx, a.Name, all)
		}
		o, ok := parseKey(a.Name)
		if !ok {
			return nil
		}
		if len(*all) >= maxObjects {
			return errs.E(errs.TooLarge, "there are more than %d objects", maxObjects)
		}
		o.updated, _ = a.LastModified()
		*all = append(*all, o)
		return nil
	}, options...)
}

// read returns what is known of the groups in want, reading what is not known. was is what was known before.
func (s *Store) read(ctx context.Context, want map[id]object, was map[id]stored) (map[id]stored, error) {
	var mu sync.Mutex // guards is and faults
	is := make(map[id]stored, len(want))
	var faults []error
	var work errgroup.Group
	work.SetLimit(readers)
	for _, o := range want {
		have, known := was[o.id]
		if known && have.fresh(o) {
			mu.Lock()
			is[o.id] = have
			mu.Unlock()
			continue
		}
		work.Go(func() error {
			now := stored{object: o}
			g, err := s.get(ctx, o)
			switch {
			case err == nil && have.group != nil && equal(&g, have.group): // an equal pointer means an equal group
				now.group = have.group
			case err == nil:
				now.group = &g
			case s.bkt.IsObjNotFoundErr(err): // it was deleted or replaced after the listing
				if have.group == nil {
					return nil
				}
				now = have
			default:
				now.group, now.err = have.group, err
			}
			mu.Lock()
			defer mu.Unlock()
			is[o.id] = now
			if now.err != nil {
				faults = append(faults, fmt.Errorf("tenant %s, group %q in %q: %w", o.tenant, o.name, o.namespace, now.err))
			}
			return nil
		})
	}
	_ = work.Wait() // no function returns an error
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return is, errors.Join(faults...)
}

// fresh reports whether k is what o holds. An object that could not be read is read again.
func (k *stored) fresh(o object) bool {
	if k.key != o.key || k.err != nil || k.group == nil {
		return false
	}
	return !o.mimir() || !o.updated.IsZero() && o.updated.Equal(k.updated)
}

// equal reports whether two groups are the same text.
func equal(a, b *definition.Group) bool {
	x, errX := a.Text()
	y, errY := b.Text()
	return errX == nil && errY == nil && string(x) == string(y)
}

// get reads an object.
func (s *Store) get(ctx context.Context, o object) (definition.Group, error) {
	r, err := s.bkt.Get(ctx, o.key)
	if err != nil {
		return definition.Group{}, err
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return definition.Group{}, err
	}
	if o.mimir() {
		return decodeMimir(o.id, raw)
	}
	return decode(o.id, raw)
}
