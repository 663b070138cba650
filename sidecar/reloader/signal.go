package reloader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pollReload is how often Prometheus is asked whether a reload is over.
const pollReload = 100 * time.Millisecond

// How long a reload may take after the signal. After one that failed a further failure shows in nothing, so that the
// wait is short: a file that was mended meanwhile is not read before it is over.
const (
	maxReload      = 30 * time.Second
	maxReloadAgain = 5 * time.Second
)

// BySignal returns a trigger that sends SIGHUP to the one process whose executable has a name, and then asks last for
// the outcome: whether the last reload went well, and when the configuration in force was read.
func BySignal(name string, last func(context.Context) (ok bool, at time.Time, err error)) func(context.Context) error {
	return bySignal("/proc", name, last)
}

func bySignal(proc, name string, last func(context.Context) (bool, time.Time, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		wasOK, before, err := last(ctx)
		if err != nil {
			return err
		}
		// Prometheus tells the time in whole seconds: a reload in the second of the one before would look the same.
		select {
		case <-time.After(time.Until(before.Add(time.Second))):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := hangup(proc, name); err != nil {
			return err
		}
		limit := maxReload
		if !wasOK {
			limit = maxReloadAgain
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		tick := time.NewTicker(pollReload)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return fmt.Errorf("process %s was sent SIGHUP, and does not say that it has reloaded: %w", name, ctx.Err())
			case <-tick.C:
			}
			ok, at, err := last(ctx)
			switch {
			case err != nil: // it may be busy
			case ok && at.After(before):
				return nil
			case !ok && wasOK:
				return fmt.Errorf("process %s refuses its configuration: its log says why", name)
			}
		}
	}
}

// hangup sends SIGHUP to the one process whose executable is called name.
func hangup(proc, name string) error {
	found, err := find(proc, name)
	if err != nil {
		return err
	}
	// The handle stays that of this process, also when its number is given to another one.
	p, err := os.FindProcess(found)
	if err != nil {
		return err
	}
	defer p.Release()
	if executable(proc, found) != name {
		return fmt.Errorf("process %d is no longer %s", found, name)
	}
	if err := p.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("send SIGHUP to process %d: %w", found, err)
	}
	return nil
}

// find is the number of the one process whose executable is called name. The executable is looked at, as the name of a
// process is whatever it calls itself.
func find(proc, name string) (int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return 0, err
	}
	var found []string
	hidden := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		switch executable(proc, pid) {
		case name:
			found = append(found, e.Name())
		case "":
			hidden++
		}
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("no process has an executable called %s (%d processes do not show theirs: it must run as the "+
			"same user, and in the same process namespace)", name, hidden)
	case 1:
		return strconv.Atoi(found[0])
	}
	return 0, errors.New("several processes have an executable called " + name + ": " + strings.Join(found, ", "))
}

// executable is the name of the file that a process runs, "" when it is not shown.
func executable(proc string, pid int) string {
	path, err := os.Readlink(filepath.Join(proc, strconv.Itoa(pid), "exe"))
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSuffix(path, " (deleted)"))
}
