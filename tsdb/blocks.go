package tsdb

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/oklog/ulid/v2"
	promtsdb "github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// LocalBlock is a complete block on local disk.
type LocalBlock struct {
	ID   ulid.ULID
	Dir  string
	Meta promtsdb.BlockMeta
}

// Fault is a block on local disk that cannot be read. Its tenant goes on without it.
type Fault struct {
	ID  ulid.ULID
	Dir string
	Err error
	// mint and maxt bound its samples as far as is known; ms, inclusive.
	mint, maxt int64
	dated      bool // by its meta.json
}

// Blocks returns tenant id's complete persistent blocks, oldest first, without those that cannot be read: Faults has them
// then. It reads the directory, whatever the tenant's state: a quarantined tenant's blocks can be shipped. A block may be
// deleted at any time once it is Shipped and past its retention. An unknown tenant has none. The error says that the
// directory cannot be read.
func (d *DB) Blocks(id tenant.ID) ([]LocalBlock, error) {
	t := d.lookup(id)
	if t == nil {
		return nil, nil
	}
	blocks, _, err := t.listed()
	if err != nil {
		return nil, errs.E(errs.Internal, "list blocks of tenant %q: %w", id, err)
	}
	return blocks, nil
}

// Faults are the blocks of tenant id that could not be read when they were listed last. The slice must not be changed.
func (d *DB) Faults(id tenant.ID) []Fault {
	if t := d.lookup(id); t != nil {
		return t.blocks.faulty()
	}
	return nil
}

// TenantDir is the directory of tenant id, which need not exist.
func (d *DB) TenantDir(id tenant.ID) string { return filepath.Join(d.opts.Dir, string(id)) }

// blockList remembers the meta.json of the blocks it has seen, which do not change, and what was wrong with others.
type blockList struct {
	faults atomic.Pointer[[]Fault] // those that the last look found

	mu    sync.Mutex // guards what follows; held while meta.json of new blocks is read
	seen  map[ulid.ULID]promtsdb.BlockMeta
	aside map[ulid.ULID]error // why blocks of the directory faulty are there
}

// listed lists the tenant's blocks, and logs faults that are new.
func (t *tenantDB) listed() ([]LocalBlock, []Fault, error) {
	l := &t.blocks
	l.mu.Lock()
	defer l.mu.Unlock()
	blocks, faults, err := listBlocks(t.dir, l.seen)
	if err != nil {
		return nil, nil, err
	}
	l.seen = make(map[ulid.ULID]promtsdb.BlockMeta, len(blocks))
	for _, b := range blocks {
		l.seen[b.ID] = b.Meta
	}
	aside, bad, err := listBlocks(filepath.Join(t.dir, tenantdir.FaultyName), nil)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range bad {
		if _, whole := l.seen[f.ID]; !whole {
			faults = append(faults, f)
		}
	}
	for _, b := range aside {
		if _, whole := l.seen[b.ID]; whole {
			continue // somebody has put a copy in its place
		}
		why := l.aside[b.ID]
		if why == nil {
			why = errors.New("it was set aside by an earlier process")
		}
		faults = append(faults, Fault{b.ID, b.Dir, why, b.Meta.MinTime, b.Meta.MaxTime - 1, true})
	}
	for _, f := range faults {
		if !slices.ContainsFunc(l.faulty(), func(old Fault) bool { return old.ID == f.ID && old.Err.Error() == f.Err.Error() }) {
			t.db.log.Error("block cannot be read, its tenant goes on without it", "tenant", t.id, "block", f.ID, "dir", f.Dir, "err", f.Err)
		}
	}
	l.faults.Store(&faults)
	return blocks, slices.Clone(faults), nil
}

// faulty are the faults that were found by the last look.
func (l *blockList) faulty() []Fault {
	if p := l.faults.Load(); p != nil {
		return *p
	}
	return nil
}

// listBlocks lists the blocks in dir, oldest first, and those whose meta.json is not what it should be.
func listBlocks(dir string, seen map[ulid.ULID]promtsdb.BlockMeta) (blocks []LocalBlock, faults []Fault, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil // a tenant that is just being made
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		id, err := ulid.ParseStrict(e.Name())
		if err != nil || !e.IsDir() || id.String() != e.Name() {
			continue // blocks get their name by a rename when they are complete
		}
		b := LocalBlock{ID: id, Dir: filepath.Join(dir, e.Name())}
		var known bool
		if b.Meta, known = seen[id]; !known {
			b.Meta, err = readMeta(b.Dir, id)
		}
		if err != nil {
			if _, gone := os.Lstat(b.Dir); errors.Is(gone, fs.ErrNotExist) {
				continue // deleted since the directory was listed
			}
			// A block is made after its samples have come, which is all that is known of their time.
			faults = append(faults, Fault{ID: id, Dir: b.Dir, Err: err, maxt: ulid.Time(id.Time()).UnixMilli()})
			continue
		}
		blocks = append(blocks, b)
	}
	slices.SortFunc(blocks, func(a, b LocalBlock) int {
		return cmp.Or(cmp.Compare(a.Meta.MinTime, b.Meta.MinTime), a.ID.Compare(b.ID))
	})
	return blocks, faults, nil
}

// readMeta reads the meta.json of block id. The TSDB believes the id in it, also when it deletes blocks, and mends the index
// of one of version 2.
func readMeta(dir string, id ulid.ULID) (m promtsdb.BlockMeta, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return m, err
	}
	switch err := json.Unmarshal(raw, &m); {
	case err != nil:
		return m, fmt.Errorf("meta.json: %w", err)
	case m.Version != 1:
		return m, fmt.Errorf("meta.json has version %d, and this program knows version 1", m.Version)
	case m.ULID != id:
		return m, fmt.Errorf("meta.json is that of block %s", m.ULID)
	}
	return m, nil
}

// setAside moves blocks that would keep the TSDB from opening into the directory faulty: those whose meta.json cannot be
// trusted and, with probing, those that cannot be opened. loaded are open already, and are not touched. It reports whether
// any was moved.
func (t *tenantDB) setAside(loaded []*promtsdb.Block, probing bool) (moved bool, err error) {
	open := map[ulid.ULID]bool{}
	for _, b := range loaded {
		open[b.Meta().ULID] = true
	}
	blocks, faults, err := t.listed()
	if err != nil {
		return false, err
	}
	if probing {
		for _, b := range blocks {
			if open[b.ID] {
				continue
			}
			if err := probeBlock(b.Dir); err != nil && !temporary(err) {
				faults = append(faults, Fault{ID: b.ID, Dir: b.Dir, Err: err})
			}
		}
	}
	for _, f := range t.badBlocks(faults, open) {
		if err := t.moveAside(f.Dir); err != nil {
			return moved, err
		}
		moved = true
		t.blocks.mu.Lock()
		if t.blocks.aside == nil {
			t.blocks.aside = map[ulid.ULID]error{}
		}
		t.blocks.aside[f.ID] = f.Err
		t.blocks.mu.Unlock()
	}
	if moved {
		_, _, err = t.listed() // logs them, with where they are
	}
	return moved, err
}

// bringBack moves blocks that can be read again out of the directory faulty, and deletes those of which a copy that can be
// read has taken the place.
func (t *tenantDB) bringBack() error {
	dir := filepath.Join(t.dir, tenantdir.FaultyName)
	blocks, faults, err := listBlocks(dir, nil)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		faults = append(faults, Fault{ID: b.ID, Dir: b.Dir})
	}
	for _, f := range faults {
		place := filepath.Join(t.dir, f.ID.String())
		switch {
		case tenantdir.Exists(place):
			if probeBlock(place) != nil {
				continue
			}
			if err := tenantdir.RemoveBlock(f.Dir); err != nil {
				t.db.log.Warn("faulty block not deleted, although a copy that can be read is there", "tenant", t.id, "block", f.ID, "err", err)
				continue
			}
			t.db.log.Info("faulty block deleted, as a copy that can be read is there", "tenant", t.id, "block", f.ID)
		case f.Err == nil && probeBlock(f.Dir) == nil:
			if err := os.Rename(f.Dir, place); err != nil {
				return err
			}
			t.db.log.Info("block can be read again", "tenant", t.id, "block", f.ID)
		}
	}
	_ = os.Remove(dir) // only when empty
	return nil
}

// moveAside moves a block into the directory faulty. Where one of its name is, it gets another, by which only people find it.
func (t *tenantDB) moveAside(block string) error {
	to := filepath.Join(t.dir, tenantdir.FaultyName)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	target := filepath.Join(to, filepath.Base(block))
	for n := 2; tenantdir.Exists(target); n++ {
		target = filepath.Join(to, fmt.Sprintf("%s.%d", filepath.Base(block), n))
	}
	return os.Rename(block, target)
}

// badBlocks are those of faults that keep the TSDB from opening, unless they are open. A block without meta.json is none, as the
// TSDB passes it over: somebody may be copying it.
func (t *tenantDB) badBlocks(faults []Fault, open map[ulid.ULID]bool) (bad []Fault) {
	for _, f := range faults {
		if filepath.Dir(f.Dir) == t.dir && !open[f.ID] && !temporary(f.Err) && tenantdir.Exists(filepath.Join(f.Dir, "meta.json")) {
			bad = append(bad, f)
		}
	}
	return bad
}

// temporary reports whether err is of the process and not of the file: too many are open, say. A block that meets it may be a
// good one.
func temporary(err error) bool {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

func probeBlock(dir string) error {
	b, err := openBlock(dir)
	if err != nil {
		return err
	}
	return b.Close()
}

// withFaulty is s, wide enough for what unread tells of: a closed tenant is not opened for a read of any other time.
func (t *tenantDB) withFaulty(s tenantdir.Summary) tenantdir.Summary {
	for _, f := range t.blocks.faulty() {
		if t.unread(f.mint, f.maxt) != nil {
			s.Extend(f.mint, f.maxt)
		}
	}
	return s
}

// unread is the error for a read of [mint, maxt], ms, that misses samples: they are in a block that cannot be read, and not
// in the bucket either.
func (t *tenantDB) unread(mint, maxt int64) error {
	for _, f := range t.blocks.faulty() {
		if f.mint <= maxt && mint <= f.maxt && (t.db.opts.Shipped == nil || !t.db.opts.Shipped(t.id, f.ID)) {
			return errs.E(errs.Unavailable, "block %s of tenant %q cannot be read: %w", f.ID, t.id, f.Err)
		}
	}
	return nil
}

// expire deletes the blocks of a closed tenant that are past their retention, as an open one does when it reloads blocks.
// It returns what is left.
func (t *tenantDB) expire() ([]LocalBlock, error) {
	blocks, _, err := t.listed()
	if err != nil {
		return nil, err
	}
	now := t.db.opts.Now()
	var kept []LocalBlock
	var reason error
	for _, b := range blocks {
		if !t.db.opts.expired(t.id, b.ID, b.Meta.MaxTime, now) {
			kept = append(kept, b)
			continue
		}
		err := tenantdir.RemoveBlock(b.Dir)
		if why := new(tenantdir.Stranger); errors.As(err, &why) {
			reason = err
			kept = append(kept, b)
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	t.keep(reason)
	t.expireFaulty()
	return kept, nil
}

// expireFaulty deletes what was set aside, is past its retention, and is nothing but a block. One that does not say of when
// it is must be in the bucket.
func (t *tenantDB) expireFaulty() {
	dir, now := filepath.Join(t.dir, tenantdir.FaultyName), t.db.opts.Now()
	for _, f := range t.blocks.faulty() {
		if filepath.Dir(f.Dir) != dir || !f.dated && t.db.opts.Shipped == nil || !t.db.opts.expired(t.id, f.ID, f.maxt+1, now) {
			continue
		}
		if err := tenantdir.RemoveBlock(f.Dir); err != nil {
			t.db.log.Debug("faulty block not deleted", "tenant", t.id, "block", f.ID, "err", err)
		}
	}
	_ = os.Remove(dir) // only when empty
}
