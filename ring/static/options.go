package static

import (
	"errors"
	"fmt"
	"time"
)

// Options configure a Watcher. Start from DefaultOptions.
type Options struct {
	// File is the path of the hashring file. "" = Content is used instead, which never changes.
	File string
	// Content has the form of such a file.
	Content []byte
	// RefreshInterval is the time between two reads of File. It is also read when its directory reports a change.
	RefreshInterval time.Duration
	// Algorithm is for hashrings that name none: Hashmod or Ketama; "" = Hashmod.
	Algorithm string
	// ReplicationFactor is the number of replicas of each series.
	ReplicationFactor int
	// Local is the address by which the hashrings name this process, "" for a process that stores nothing.
	Local string
}

// DefaultOptions are Thanos's defaults.
func DefaultOptions() Options {
	return Options{RefreshInterval: 5 * time.Minute, Algorithm: Hashmod, ReplicationFactor: 1}
}

// Validate returns every fault of o as one error. Open checks the hashrings themselves.
func (o Options) Validate() error {
	var faults []error
	if o.File == "" && len(o.Content) == 0 {
		faults = append(faults, errors.New("no hashring file and no content"))
	}
	if o.RefreshInterval <= 0 {
		faults = append(faults, fmt.Errorf("refresh interval %s: must be positive", o.RefreshInterval))
	}
	if o.ReplicationFactor < 1 {
		faults = append(faults, fmt.Errorf("replication factor %d: must be at least 1", o.ReplicationFactor))
	}
	return errors.Join(faults...)
}
