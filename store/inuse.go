package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/atomicfile"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// usesName is the file under Options.Dir that lists the blocks whose index-headers are open, so that a gateway that
// starts again opens them before somebody waits for them.
const usesName = "headers-in-use"

// tendEvery is how often idle index-headers are closed, and the list of open ones is written.
const tendEvery = time.Minute

// use is a block whose index-header is open, and when somebody asked for it last, in ms.
type use struct {
	id ulid.ULID
	at int64
}

const (
	usesMagic   = 0x48494855 // HIHU
	usesVersion = 1
	usesLead    = 4 + 1 + 4
	useLen      = len(ulid.ULID{}) + 8
)

// encodeUses is the content of the file (docs/format/gateway-directory.md).
func encodeUses(all []use) []byte {
	b := binary.BigEndian.AppendUint32(nil, usesMagic)
	b = append(b, usesVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
	for _, u := range all {
		b = append(b, u.id[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(u.at))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, block.Castagnoli))
}

// decodeUses reads what encodeUses wrote. Errors are of kind Invalid, or Unsupported for another version.
func decodeUses(b []byte) ([]use, error) {
	if len(b) < usesLead+crc32.Size || binary.BigEndian.Uint32(b) != usesMagic {
		return nil, errs.E(errs.Invalid, "%s: %d bytes are no list of index-headers", usesName, len(b))
	}
	if b[4] != usesVersion {
		return nil, errs.E(errs.Unsupported, "%s: version %d", usesName, b[4])
	}
	body, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	entries := body[usesLead:]
	if n := binary.BigEndian.Uint32(b[5:]); uint64(n)*uint64(useLen) != uint64(len(entries)) ||
		crc32.Checksum(body, block.Castagnoli) != sum {
		return nil, errs.E(errs.Invalid, "%s: %d entries in %d bytes, or the checksum", usesName, n, len(b))
	}
	all := make([]use, 0, len(entries)/useLen)
	for ; len(entries) > 0; entries = entries[useLen:] {
		id := ulid.ULID(entries[:len(ulid.ULID{})])
		all = append(all, use{id, int64(binary.BigEndian.Uint64(entries[len(id):]))})
	}
	return all, nil
}

// uses lists the open index-headers, the last used first.
func (h *headers) uses() (all []use) {
	for _, l := range h.opened() {
		all = append(all, use{l.id, l.lastUse().UnixMilli()})
	}
	slices.SortFunc(all, func(a, b use) int { return cmp.Or(cmp.Compare(b.at, a.at), a.id.Compare(b.id)) })
	return all
}

// saveUses writes the list. Without it a gateway only starts with nothing open.
func (g *Gateway) saveUses() {
	if err := os.MkdirAll(g.opts.Dir, 0o777); err != nil {
		g.log.Warn("list of open index-headers not written", "err", err)
		return
	}
	path := filepath.Join(g.opts.Dir, usesName)
	if err := atomicfile.Write(path, encodeUses(g.headers.uses()), 0o666); err != nil {
		g.log.Warn("list of open index-headers not written", "err", err)
	}
}

// reopen opens the index-headers that were open when the list was written, the last used first. It leaves half of the
// loads to requests. A block that cannot be opened is left to the request that needs it.
func (g *Gateway) reopen(ctx context.Context) {
	b, err := os.ReadFile(filepath.Join(g.opts.Dir, usesName))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var all []use
	if err == nil {
		all, err = decodeUses(b)
	}
	if err != nil {
		g.log.Warn("list of open index-headers not read", "err", err)
		return
	}
	var eg errgroup.Group
	eg.SetLimit(max(g.opts.BlockConcurrency/2, 1))
	for _, u := range all {
		if ctx.Err() != nil {
			break
		}
		if b := g.held(u.id); b != nil {
			eg.Go(func() error {
				defer b.release()
				_, _ = b.Header(ctx)
				return nil
			})
		}
	}
	eg.Wait()
}

// held returns the served block of a name with a reference, nil if there is none.
func (g *Gateway) held(id ulid.ULID) *bucketBlock {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.current == nil {
		return nil
	}
	b := g.current.blocks[id]
	if b != nil {
		b.hold()
	}
	return b
}

// tend opens what was open before, once the blocks are known. Then it closes idle index-headers and keeps the list of
// open ones, until ctx ends.
func (g *Gateway) tend(ctx context.Context) {
	select {
	case <-g.synced:
	case <-ctx.Done():
		return // the list stays as it was
	}
	g.reopen(ctx)
	close(g.reopened)
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if idle := g.opts.HeaderIdleTimeout; idle > 0 {
				g.unloadIdle(g.opts.Now().Add(-idle))
			}
		case <-ctx.Done():
			g.saveUses()
			return
		}
		g.saveUses()
	}
}
