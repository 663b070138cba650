package overrides

import (
	"errors"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options configure Overrides. Start from DefaultOptions.
type Options struct {
	// Base is what the flags say, below all files.
	Base tenant.Limits
	// File is the runtime configuration file, "" = none.
	File string
	// ThanosFile is a limits file of Thanos, ThanosContent its text instead; "" and nil = none. At most one may be set.
	// $(NAME) in it stands for an environment variable.
	ThanosFile    string
	ThanosContent []byte
	// ReplicationFactor is what the copies in Thanos's limits are divided by.
	ReplicationFactor int
	// Settle is how long to wait after a change of a file for more of it before it is read.
	Settle time.Duration
	// Interval is how often the files are read in any case, for file systems that report no change.
	Interval time.Duration
	// Getenv looks a variable up.
	Getenv func(string) (string, bool)
	// Now is the wall clock.
	Now func() time.Time
}

// Validate reports every fault of o.
func (o Options) Validate() error {
	var faults []error
	if o.ThanosFile != "" && o.ThanosContent != nil {
		faults = append(faults, errors.New("limits of Thanos: both a file and its content are set: use one"))
	}
	if o.ReplicationFactor < 1 {
		faults = append(faults, fmt.Errorf("replication factor %d: must be at least 1", o.ReplicationFactor))
	}
	if o.Settle < 0 {
		faults = append(faults, fmt.Errorf("reload timer %s: must not be negative", o.Settle))
	}
	if o.Interval <= 0 {
		faults = append(faults, fmt.Errorf("reload interval %s: must be positive", o.Interval))
	}
	if o.Getenv == nil || o.Now == nil {
		faults = append(faults, errors.New("environment and clock: must be set"))
	}
	return errors.Join(append(faults, o.Base.Validate())...)
}
