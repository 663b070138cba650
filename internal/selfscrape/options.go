package selfscrape

import (
	"errors"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options of a Scraper.
type Options struct {
	// Interval between scrapes; also what bounds one push.
	Interval time.Duration
	// Tenant owns the series.
	Tenant tenant.ID
	// Job and Instance are the values of the labels job and instance.
	Job, Instance string
	// Ready is the error that says why samples cannot be stored yet, as is normal while a process starts. There is no
	// scrape before its error is nil for the first time. nil = samples can be stored from the start.
	Ready func() error
	// Now is the clock of the samples' timestamps.
	Now func() time.Time
}

// DefaultOptions lack an Instance and nothing else.
func DefaultOptions() Options {
	return Options{Interval: 15 * time.Second, Tenant: tenant.Default, Job: "hearth", Now: time.Now}
}

// Validate reports every fault in o.
func (o Options) Validate() error {
	var faults []error
	if o.Interval <= 0 {
		faults = append(faults, fmt.Errorf("self-scrape interval %s: must be positive", o.Interval))
	}
	if o.Tenant == "" || o.Job == "" || o.Instance == "" {
		faults = append(faults, fmt.Errorf("self-scrape tenant %q, job %q and instance %q: none may be empty", o.Tenant,
			o.Job, o.Instance))
	}
	if o.Now == nil {
		faults = append(faults, errors.New("self-scrape has no clock"))
	}
	return errors.Join(faults...)
}
