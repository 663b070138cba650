package blocks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
)

// Stream says what the receivers of one ring have shipped of one tenant: a block for each window and replica.
type Stream struct {
	Seed     uint64
	Shape    Shape
	Window   time.Duration
	Windows  int
	Interval time.Duration
	// End is where the last window ends, a multiple of Window.
	End      time.Time
	Replicas int
	Differ   Difference
}

// Difference is in what the replicas of a window differ.
type Difference int

const (
	// Same: the replicas have the same chunks.
	Same Difference = iota
	// Restarts: the same samples, which each replica but the first cut into chunks anew at a moment of its own in every
	// window, as after a restart.
	Restarts
	// Gaps: each replica lacks 1 % of the samples, which the others have.
	Gaps
	// Late: there is a further block of each window and replica with 1 % of the samples, which came out of order. The
	// first one lacks them.
	Late
)

// Validate reports all that is wrong with s.
func (s Stream) Validate() error {
	p := Plan{Tenants: 1, Shape: s.Shape, Window: s.Window, Interval: s.Interval, End: s.End}
	err := p.Validate()
	if s.Windows < 1 || s.Replicas < 1 {
		err = errors.Join(err, fmt.Errorf("%d windows, %d replicas: must be positive", s.Windows, s.Replicas))
	}
	return err
}

// WriteStream makes the bucket of s in dir, which is created. Blocks that are there already are an error.
func WriteStream(ctx context.Context, dir string, s Stream) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.NumCPU())
	for i := range s.Windows {
		work.Go(func() error { return s.writeWindow(ctx, dir, i) })
	}
	return work.Wait()
}

// writeWindow writes the blocks of one window. Replicas that are the same share their files.
func (s Stream) writeWindow(ctx context.Context, dir string, i int) error {
	w := s.Window.Milliseconds()
	maxt := s.End.UnixMilli() - int64(s.Windows-1-i)*w
	p := Plan{Seed: s.Seed}
	c := content{seed: s.Seed + uint64(i), shape: s.Shape, when: span{maxt - w, maxt},
		interval: s.Interval.Milliseconds()}
	var first ulid.ULID
	var meta *block.Meta
	for r := range s.Replicas {
		for part := range s.parts() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			id := p.id(maxt, uint64(r), uint64(part))
			var err error
			if s.Differ == Same && r > 0 {
				err = share(dir, first, id, meta.Thanos.Files)
			} else {
				first = id
				c.edit = s.edit(r, part)
				meta, err = c.write(ctx, filepath.Join(dir, id.String()))
			}
			if err != nil {
				return fmt.Errorf("window %d: %w", i, err)
			}
			meta.Thanos.Source = block.SourceReceive
			if err := finish(dir, id, *meta, identity{LargeTenant, fmt.Sprint(r)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// parts is how many blocks there are of a window and replica.
func (s Stream) parts() int {
	if s.Differ == Late {
		return 2
	}
	return 1
}

// edit is what a replica has of the samples of a sequence. Late samples are the same ones at all replicas.
func (s Stream) edit(replica, part int) edit {
	switch s.Differ {
	case Restarts:
		if replica == 0 {
			return edit{}
		}
		return edit{cut: 1 + replica*37%samplesPerChunk}
	case Gaps:
		return edit{lacks: func(seed uint64, sample int) bool { return chosen(seed, sample, s.Replicas) == replica }}
	case Late:
		return edit{lacks: func(seed uint64, sample int) bool { return chosen(seed, sample, 1) == 0 == (part == 0) }}
	}
	return edit{}
}

// chosen picks 1 % of all samples for each of n, in runs of five, and is -1 for all others.
func chosen(seed uint64, sample, n int) int {
	run := uint64(sample / 5)
	i := rand.New(rand.NewPCG(seed, run)).IntN(100)
	if i >= n {
		return -1
	}
	return i
}

// edit is how the samples of a sequence become those that a block has. The zero value leaves them as they are.
type edit struct {
	lacks func(seed uint64, sample int) bool // nil = all are there
	cut   int                                // samples of the first chunk; 0 = a full one
}

// apply takes out of times, in place, what the block lacks; kept are the numbers of the samples that stay.
func (e edit) apply(seed uint64, times []int64) (left []int64, kept []int) {
	for i, t := range times {
		if e.lacks == nil || !e.lacks(seed, i) {
			left, kept = append(left, t), append(kept, i)
		}
	}
	return left, kept
}

// pick are the elements of all at the given places.
func pick[T any](all []T, at []int) []T {
	if len(at) == len(all) {
		return all
	}
	out := make([]T, len(at))
	for i, j := range at {
		out[i] = all[j]
	}
	return slices.Clip(out)
}

// identity is what the external labels of a block say.
type identity struct{ tenant, replica string }
