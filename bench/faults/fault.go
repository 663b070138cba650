package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// fault is something that happens to one member.
type fault struct {
	name      string
	what      string // happens, in words
	member    int
	needsRoot bool
	begin     func(c *cluster, n *node) error
	end       func(c *cluster, n *node) error // nil = it is over as it begins, and the member is left to itself
}

func faults() []fault {
	return []fault{
		{name: "stopped", what: "SIGSTOP, then SIGCONT", member: 1,
			begin: func(_ *cluster, n *node) error { n.process.Signal(syscall.SIGSTOP); return nil },
			end:   func(_ *cluster, n *node) error { n.process.Signal(syscall.SIGCONT); return nil }},
		{name: "dark", what: "connections to its gRPC and gossip ports stay open, or open, and carry nothing", member: dark,
			begin: func(c *cluster, _ *node) error { c.setDark(true); return nil },
			end:   func(c *cluster, _ *node) error { c.setDark(false); return nil }},
		{name: "full disk", what: "its file system is filled to the last byte, then cleared", member: full, needsRoot: true,
			begin: fillDisk, end: clearDisk},
		{name: "killed", what: "SIGKILL, then started again", member: 1,
			begin: func(_ *cluster, n *node) error { n.process.Kill(); return nil },
			end:   func(c *cluster, n *node) error { return c.restart(n) }},
		{name: "corrupt WAL", what: "SIGKILL, the middle of one tenant's WAL is overwritten, started again at once",
			member: 1, begin: corruptWAL},
		{name: "unopenable TSDB", what: "SIGKILL, one tenant's WAL is a file where a directory should be, started again " +
			"at once; then the WAL is put back",
			member: 1, begin: hideWAL, end: showWAL},
		{name: "heavy reads", what: "no fault of a member: 20 queries at a time, each of every sample of a tenant, by a " +
			"querier of the lowest priority", member: 1,
			begin: func(c *cluster, _ *node) error { return c.startReading() },
			end:   func(c *cluster, _ *node) error { return c.stopReading() }},
	}
}

func (c *cluster) setDark(dark bool) {
	for _, p := range c.proxies {
		p.setDark(dark)
	}
}

// restart starts n again, which has ended.
func (c *cluster) restart(n *node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.start()
}

func filler(n *node) string { return filepath.Join(n.dir, "filler") }

func fillDisk(_ *cluster, n *node) error {
	f, err := os.Create(filler(n))
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		switch _, err := f.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			return err
		}
	}
	return nil
}

func clearDisk(_ *cluster, n *node) error { return os.Remove(filler(n)) }

func wal(n *node) string { return filepath.Join(n.dir, damaged, "wal") }

func corruptWAL(c *cluster, n *node) error {
	n.process.Kill()
	segments, err := filepath.Glob(filepath.Join(wal(n), "0*"))
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return errors.New("there is no WAL: " + wal(n))
	}
	f, err := os.OpenFile(segments[len(segments)-1], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	garbage := make([]byte, 4096)
	for i := range garbage {
		garbage[i] = byte(i * 37)
	}
	if _, err := f.WriteAt(garbage, info.Size()/2); err != nil {
		return err
	}
	return c.restart(n)
}

func hideWAL(c *cluster, n *node) error {
	n.process.Kill()
	if err := os.Rename(wal(n), wal(n)+".aside"); err != nil {
		return err
	}
	if err := os.WriteFile(wal(n), []byte("not a directory\n"), 0o600); err != nil {
		return err
	}
	return c.restart(n)
}

func showWAL(_ *cluster, n *node) error {
	return errors.Join(os.Remove(wal(n)), os.Rename(wal(n)+".aside", wal(n)))
}
