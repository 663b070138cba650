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

// Fault is a block on local disk that cannot be read. The tenant goes on without the block.
type Fault struct {
	ID  ulid.ULID
	Dir string
	Err error
	// mint and maxt bound its samples, as far as that is known; ms, inclusive.
	mint, maxt int64
	dated      bool // its meta.json says mint and maxt
}

// Blocks returns tenant id's complete blocks on disk, oldest first. It leaves out blocks that cannot be read, which
// Faults then returns. It reads the directory in every state of the tenant, so that a quarantined tenant's blocks can
// be shipped. A block may be deleted at any time once it is Shipped and past its retention. An unknown tenant has no
// blocks. The error says that the directory cannot be read.
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

// Faults returns the blocks of tenant id that could not be read when they were listed last. The slice must not be
// changed.
func (d *DB) Faults(id tenant.ID) []Fault {
	if t := d.lookup(id); t != nil {
		return t.blocks.faulty()
	}
	return nil
}

// TenantDir is the directory of tenant id, which need not exist.
func (d *DB) TenantDir(id tenant.ID) string { return filepath.Join(d.opts.Dir, string(id)) }

// blockList remembers the meta.json of the blocks that were listed, which does not change, and what is wrong with the
// others.
type blockList struct {
	faults atomic.Pointer[[]Fault] // of the last listing

	mu    sync.Mutex // guards what follows; held while meta.json of new blocks is read
	seen  map[ulid.ULID]promtsdb.BlockMeta
	aside map[ulid.ULID]error // why blocks are in the directory faulty
}

// listed lists the tenant's blocks and those that cannot be read, and logs faults that are new.
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
			continue // somebody has put a good copy in its place
		}
		why := l.aside[b.ID]
		if why == nil {
			why = errors.New("it was set aside by an earlier process")
		}
		faults = append(faults, Fault{b.ID, b.Dir, why, b.Meta.MinTime, b.Meta.MaxTime - 1, true})
	}
	for _, f := range faults {
		same := func(old Fault) bool { return old.ID == f.ID && old.Err.Error() == f.Err.Error() }
		if !slices.ContainsFunc(l.faulty(), same) {
			t.db.log.Error("block cannot be read, its tenant goes on without it",
				"tenant", t.id, "block", f.ID, "dir", f.Dir, "err", f.Err)
		}
	}
	l.faults.Store(&faults)
	return blocks, slices.Clone(faults), nil
}

// faulty returns the faults of the last listing.
func (l *blockList) faulty() []Fault {
	if p := l.faults.Load(); p != nil {
		return *p
	}
	return nil
}

// listBlocks lists the blocks in dir, oldest first, and as faults those whose meta.json cannot be trusted. It reads the
// meta.json of blocks that are not in seen.
func listBlocks(dir string, seen map[ulid.ULID]promtsdb.BlockMeta) (blocks []LocalBlock, faults []Fault, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil // the tenant is just being made
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		id, err := ulid.ParseStrict(e.Name())
		if err != nil || !e.IsDir() || id.String() != e.Name() {
			continue // a block gets its name by a rename once it is complete
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
			// Of its samples' times only this is known: they are before the time at which the block was made.
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

// readMeta reads the meta.json of block id. It refuses one with another id, as the TSDB would go by that id when it
// deletes blocks, and one of another version than 1.
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

// setAside moves blocks that would keep the TSDB from opening into the directory faulty: those whose meta.json cannot
// be trusted and, with probing, those that cannot be opened. It does not touch the blocks in loaded, which are open.
// It reports whether it moved any.
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
		_, _, err = t.listed() // logs the blocks with their new place
	}
	return moved, err
}

// bringBack moves blocks that can be read again out of the directory faulty. It deletes those in whose place there is
// a copy that can be read.
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
				t.db.log.Warn("faulty block not deleted, although a copy that can be read is there",
					"tenant", t.id, "block", f.ID, "err", err)
				continue
			}
			t.db.log.Info("faulty block deleted, as a copy that can be read is there",
				"tenant", t.id, "block", f.ID)
		case f.Err == nil && probeBlock(f.Dir) == nil:
			if err := os.Rename(f.Dir, place); err != nil {
				return err
			}
			t.db.log.Info("block can be read again", "tenant", t.id, "block", f.ID)
		}
	}
	_ = os.Remove(dir) // this fails unless dir is empty
	return nil
}

// moveAside moves a block into the directory faulty. If a block of its name is there already, it gets another name,
// by which only people find it.
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

// badBlocks returns those of faults that keep the TSDB from opening and are not open. A block without meta.json does
// not: the TSDB passes it over, and somebody may just be copying it.
func (t *tenantDB) badBlocks(faults []Fault, open map[ulid.ULID]bool) (bad []Fault) {
	for _, f := range faults {
		hasMeta := tenantdir.Exists(filepath.Join(f.Dir, "meta.json"))
		if filepath.Dir(f.Dir) == t.dir && !open[f.ID] && !temporary(f.Err) && hasMeta {
			bad = append(bad, f)
		}
	}
	return bad
}

// temporary reports whether err is a trouble of the process (it has too many open files, say) and not of the block,
// which may be good.
func temporary(err error) bool {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// probeBlock opens and closes a block.
func probeBlock(dir string) error {
	b, err := openBlock(dir)
	if err != nil {
		return err
	}
	return b.Close()
}

// withFaulty is s, extended to the times of blocks that cannot be read. A closed tenant is opened only for reads of
// the times in its summary, and a read of those times must get the error of unread.
func (t *tenantDB) withFaulty(s tenantdir.Summary) tenantdir.Summary {
	for _, f := range t.blocks.faulty() {
		if t.unread(f.mint, f.maxt) != nil {
			s.Extend(f.mint, f.maxt)
		}
	}
	return s
}

// unread is the error for a read of [mint, maxt], ms, that misses samples because a block cannot be read and is not
// in the bucket either.
func (t *tenantDB) unread(mint, maxt int64) error {
	for _, f := range t.blocks.faulty() {
		if f.mint <= maxt && mint <= f.maxt && (t.db.opts.Shipped == nil || !t.db.opts.Shipped(t.id, f.ID)) {
			return errs.E(errs.Unavailable, "block %s of tenant %q cannot be read: %w", f.ID, t.id, f.Err)
		}
	}
	return nil
}

// expire deletes the blocks of a closed tenant that are past their retention, as an open tenant's TSDB does when it
// reloads blocks. It returns the blocks that are left.
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
	t.noteKept(reason)
	t.expireFaulty()
	return kept, nil
}

// expireFaulty deletes blocks that were set aside and are past their retention. A block that does not say of which
// time it is must be in the bucket, too.
func (t *tenantDB) expireFaulty() {
	dir, now := filepath.Join(t.dir, tenantdir.FaultyName), t.db.opts.Now()
	for _, f := range t.blocks.faulty() {
		unproven := !f.dated && t.db.opts.Shipped == nil
		if filepath.Dir(f.Dir) != dir || unproven || !t.db.opts.expired(t.id, f.ID, f.maxt+1, now) {
			continue
		}
		if err := tenantdir.RemoveBlock(f.Dir); err != nil {
			t.db.log.Debug("faulty block not deleted", "tenant", t.id, "block", f.ID, "err", err)
		}
	}
	_ = os.Remove(dir) // this fails unless dir is empty
}
