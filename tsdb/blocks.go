package tsdb

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	promtsdb "github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// LocalBlock is a complete block on local disk.
type LocalBlock struct {
	ID   ulid.ULID
	Dir  string
	Meta promtsdb.BlockMeta
}

// Blocks returns tenant id's complete persistent blocks, oldest first. It reads the directory, whatever the tenant's
// state: a quarantined tenant's blocks can be shipped. A block may be deleted at any time once it is Shipped and past
// its retention. An unknown tenant has none.
func (d *DB) Blocks(id tenant.ID) ([]LocalBlock, error) {
	t := d.lookup(id)
	if t == nil {
		return nil, nil
	}
	blocks, err := t.blocks.list(t.dir)
	if err != nil {
		return nil, errs.E(errs.Internal, "list blocks of tenant %q: %w", id, err)
	}
	return blocks, nil
}

// TenantDir is the directory of tenant id, which need not exist.
func (d *DB) TenantDir(id tenant.ID) string { return filepath.Join(d.opts.Dir, string(id)) }

// blockList remembers the meta.json of the blocks it has seen, which do not change.
type blockList struct {
	mu   sync.Mutex // guards seen; held while meta.json of new blocks is read
	seen map[ulid.ULID]promtsdb.BlockMeta
}

func (l *blockList) list(dir string) ([]LocalBlock, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	blocks, err := listBlocks(dir, l.seen)
	if err != nil {
		return nil, err
	}
	l.seen = make(map[ulid.ULID]promtsdb.BlockMeta, len(blocks))
	for _, b := range blocks {
		l.seen[b.ID] = b.Meta
	}
	return blocks, nil
}

func listBlocks(dir string, seen map[ulid.ULID]promtsdb.BlockMeta) ([]LocalBlock, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a tenant that is just being made
	}
	if err != nil {
		return nil, err
	}
	var out []LocalBlock
	for _, e := range entries {
		id, err := ulid.ParseStrict(e.Name())
		if err != nil || !e.IsDir() || id.String() != e.Name() {
			continue // blocks get their name by a rename when they are complete
		}
		b := LocalBlock{ID: id, Dir: filepath.Join(dir, e.Name())}
		var known bool
		if b.Meta, known = seen[id]; !known {
			raw, err := os.ReadFile(filepath.Join(b.Dir, "meta.json"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if err := json.Unmarshal(raw, &b.Meta); err != nil {
				return nil, errs.E(errs.Invalid, "meta.json of block %s: %w", id, err)
			}
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b LocalBlock) int {
		return cmp.Or(cmp.Compare(a.Meta.MinTime, b.Meta.MinTime), a.ID.Compare(b.ID))
	})
	return out, nil
}

// expire deletes the blocks of a closed tenant that are past their retention, as an open one does when it reloads blocks.
// It returns what is left.
func (t *tenantDB) expire() ([]LocalBlock, error) {
	blocks, err := t.blocks.list(t.dir)
	if err != nil {
		return nil, err
	}
	now := t.db.opts.Now()
	var kept []LocalBlock
	for _, b := range blocks {
		if !t.db.opts.expired(t.id, b.ID, b.Meta.MaxTime, now) {
			kept = append(kept, b)
			continue
		}
		gone := b.Dir + ".tmp-for-deletion" // the TSDB removes such a directory when it opens
		if err := os.Rename(b.Dir, gone); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(gone); err != nil {
			return nil, err
		}
	}
	return kept, nil
}
