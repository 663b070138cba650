package filewatch

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Follow calls read at each interval, and also settle after a change in the directory of one of files. stop ends that,
// and waits for a read under way. A directory that cannot be watched is logged once.
func Follow(log *slog.Logger, files []string, interval, settle time.Duration, read func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	events, err := watch(files)
	if err != nil {
		log.Warn("files are only read now and then", "files", files, "interval", interval, "err", err)
	}
	var running sync.WaitGroup
	running.Go(func() { follow(ctx, log, events, interval, settle, read) })
	return func() {
		cancel()
		running.Wait()
	}
}

// watch watches as many directories as it can. The Watcher is nil if there are none at all.
func watch(files []string) (*fsnotify.Watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if failed := events.Add(filepath.Dir(f)); failed != nil {
			err = failed
		}
	}
	return events, err
}

func follow(
	ctx context.Context,
	log *slog.Logger,
	events *fsnotify.Watcher,
	interval, settle time.Duration,
	read func(),
) {
	var changed chan fsnotify.Event
	var failed chan error
	if events != nil {
		defer events.Close()
		changed, failed = events.Events, events.Errors
	}
	every := time.NewTicker(interval)
	defer every.Stop()
	settled := time.NewTimer(settle)
	settled.Stop()
	waiting := false // whether settled is armed
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-changed:
			if !waiting && !e.Has(fsnotify.Chmod) {
				waiting = true
				settled.Reset(settle)
			}
		case err := <-failed:
			log.Warn("watching files", "err", err)
		case <-settled.C:
			waiting = false
			read()
		case <-every.C:
			read()
		}
	}
}
