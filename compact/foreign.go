package compact

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// foreignRest is how long this process marks and deletes nothing after it found a block that another compactor made.
const foreignRest = 24 * time.Hour

// foreign is what is known of compactors of another kind that work in the bucket.
type foreign struct {
	newest time.Time // when the newest block of another compactor was uploaded, of those that count
	block  ulid.ULID
}

// fault is nil unless another compactor works in the bucket.
func (f *foreign) fault(now time.Time) error {
	if f.newest.IsZero() || now.Sub(f.newest) > foreignRest {
		return nil
	}
	return errs.E(errs.Conflict, "another compactor works in this bucket: it made block %s at %s. Stop one of the two; "+
		"this one goes on %s after the last such block", f.block, f.newest.UTC().Format(time.RFC3339), foreignRest)
}

// findForeign looks for blocks that a compactor made after the time since, and that are not Hearth's. Those from before
// may be of a compactor that was replaced by this one.
func (c *Compactor) findForeign(v block.View, since time.Time) {
	for id, m := range v.Metas {
		if m.Thanos.Source != block.SourceCompactor || !m.Uploaded().After(since) {
			continue
		}
		other := m.Origin == nil // a Hearth compactor says what it made the block of
		if other && m.Uploaded().After(c.foreign.newest) {
			c.foreign.newest, c.foreign.block = m.Uploaded(), id
			c.log.Error("another compactor works in this bucket: nothing is compacted, marked or deleted by this one",
				"block", id.String(), "uploaded", m.Uploaded().UTC().Format(time.RFC3339), "goes_on_after", foreignRest)
		}
	}
}

// maxTenants bounds the directories that checkLayout looks into.
const maxTenants = 50

// CheckLayout is the error of a bucket in the layout of Mimir or Cortex, which has a directory for each tenant. A
// compactor of Thanos's layout would find no block there, and its objects would look like a tenant's. A bucket that has
// an index of Hearth's was looked at before. Errors: Conflict; Unavailable.
func CheckLayout(ctx context.Context, bkt objstore.BucketReader) error {
	if indexed, err := block.HasIndex(ctx, bkt); err == nil && indexed {
		return nil
	}
	var dirs []string
	err := bkt.Iter(ctx, "", func(name string) error {
		_, isBlock := block.ParseID(name)
		own := slices.Contains([]string{"hearth/", "debug/", "thanos/", "rules/"}, name)
		if strings.HasSuffix(name, objstore.DirDelim) && !isBlock && !own && len(dirs) < maxTenants {
			dirs = append(dirs, name)
		}
		return ctx.Err()
	})
	if err != nil {
		return errs.E(errs.Unavailable, "list the bucket: %w", err)
	}
	for _, dir := range dirs {
		found := ""
		err := bkt.Iter(ctx, dir, func(name string) error {
			rel := strings.TrimPrefix(name, dir)
			_, isBlock := block.ParseID(rel)
			if isBlock || rel == "bucket-index.json.gz" || rel == "markers/" {
				found = name
				return errFound
			}
			return ctx.Err()
		})
		switch {
		case found != "":
			return errs.E(errs.Conflict, "the bucket has the layout of Mimir or Cortex, a directory for each tenant (there is "+
				"%s): Hearth does not write into it. For the blocks of one tenant, name its directory as prefix in the "+
				"object store's configuration", found)
		case err != nil:
			return errs.E(errs.Unavailable, "list %s: %w", dir, err)
		}
	}
	return nil
}

var errFound = fmt.Errorf("found")
