package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// stopDeadline bounds a stop that also writes blocks.
const stopDeadline = 2 * time.Minute

// Flush makes c write its blocks, or parts, and returns their size in bytes on disk, of all members together. Thanos
// writes them only as it stops, so that c may have ended afterwards.
func (c *Cluster) Flush(ctx context.Context) (int64, error) {
	if c.Peer.flush == nil {
		for _, p := range c.Processes {
			if err := p.Stop(stopDeadline); err != nil {
				return 0, err
			}
		}
	} else if err := c.Peer.flush(ctx, c); err != nil {
		return 0, fmt.Errorf("flush %s: %w", c.Peer.Name, err)
	}
	return sizeOf(c.Dir, inBlock)
}

// inBlock tells files of Prometheus blocks and of VictoriaMetrics parts.
func inBlock(path string) bool {
	for part := range strings.SplitSeq(path, string(filepath.Separator)) {
		if _, err := ulid.ParseStrict(part); err == nil {
			return true
		}
	}
	return strings.Contains(path, "victoria-metrics/data/") || strings.Contains(path, "victoria-metrics/indexdb/")
}

func flushHearth(ctx context.Context, c *Cluster) error {
	var err error
	for _, at := range c.HTTP {
		err = errors.Join(err, Post(ctx, "http://"+at+"/api/v1/admin/flush", nil, nil))
	}
	return err
}

// flushPrometheus takes a snapshot, which is the head as a block.
func flushPrometheus(ctx context.Context, c *Cluster) error {
	return Post(ctx, "http://"+c.HTTP[0]+"/api/v1/admin/tsdb/snapshot", nil, nil)
}

// flushVictoria merges what is there into as few parts as it can, which goes on after the answer.
func flushVictoria(ctx context.Context, c *Cluster) error {
	for _, verb := range []string{"force_flush", "force_merge"} {
		if _, err := call(ctx, http.MethodGet, "http://"+c.HTTP[0]+"/internal/"+verb, nil, nil); err != nil {
			return err
		}
	}
	last := time.Time{}
	before := int64(-1)
	return Poll(ctx, time.Minute, func(context.Context) error {
		size, err := sizeOf(c.Dir, inBlock)
		if errors.Is(err, fs.ErrNotExist) || size != before || last.IsZero() {
			before, last = size, time.Now()
		}
		if time.Since(last) < 2*time.Second {
			return fmt.Errorf("size still changes, now %d bytes", size)
		}
		return err
	})
}
