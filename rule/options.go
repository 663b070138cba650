package rule

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options are the settings of a Ruler. Start from DefaultOptions.
type Options struct {
	// StateDir is where the state of alerts is kept over a restart, a file for each group; "" = it is not.
	StateDir string
	// Interval is how often groups are evaluated that say nothing; QueryOffset is how far behind the slot their queries
	// and samples are.
	Interval, QueryOffset time.Duration
	// Concurrency is how many rules of all groups may be evaluated beside those that each group evaluates one by one;
	// 1 = none.
	Concurrency int

	// OutageTolerance is how long the state of alerts may be unseen to be restored.
	OutageTolerance time.Duration
	// ForGracePeriod is the least time for which a restored alert stays pending; alerts whose "for" is shorter begin anew
	// unless they had fired. It matters for states that are read from stored series.
	ForGracePeriod time.Duration
	// RestoreIgnored are labels that the stored series of alerts may have and the alerts lack, such as those of replicas.
	RestoreIgnored []string

	// ResendDelay is the least time between two notifications of a firing alert.
	ResendDelay time.Duration
	// ExternalLabels and ExternalURL are for templates. ExternalURL may be nil.
	ExternalLabels labels.Labels
	ExternalURL    *url.URL

	// Limits are those of tenants; nil = a group may read every tenant that it names.
	Limits tenant.LimitsOf
	// Refusal is why no group of a tenant is evaluated at all, such as of one that is to be deleted; nil = they are. It is
	// asked before each slot, and must be cheap.
	Refusal func(tenant.ID) error
	// WaitComplete is how long a slot is waited with at most, until the data that it reads are complete: no sample that is
	// older than the window of a tenant (Limits) is accepted any more. A slot waits for no longer than its interval, and
	// not at all if that is not long enough. 0 = it never waits.
	WaitComplete time.Duration
	// Sharing divides the groups among several rulers; nil = this one evaluates all of them.
	Sharing *Sharing
	// CatchUp is how far back slots are evaluated that were missed when another ruler died.
	CatchUp time.Duration
}

// DefaultOptions are the options of a ruler that keeps no state on disk.
func DefaultOptions() Options {
	return Options{
		Interval: time.Minute, Concurrency: 1, OutageTolerance: time.Hour, ForGracePeriod: 10 * time.Minute,
		ResendDelay: time.Minute, CatchUp: time.Hour,
	}
}

// Validate reports all that is wrong with o.
func (o Options) Validate() error {
	var faults []error
	for _, d := range []struct {
		what string
		ok   bool
		is   any
	}{
		{"evaluation interval", o.Interval > 0, o.Interval},
		{"concurrency", o.Concurrency > 0, o.Concurrency},
		{"outage tolerance", o.OutageTolerance >= 0, o.OutageTolerance},
		{"grace period", o.ForGracePeriod >= 0, o.ForGracePeriod},
		{"resend delay", o.ResendDelay >= 0, o.ResendDelay},
		{"time to catch up", o.CatchUp >= 0, o.CatchUp},
		{"wait for complete data", o.WaitComplete >= 0, o.WaitComplete},
	} {
		if !d.ok {
			faults = append(faults, fmt.Errorf("rule: %s %v: is too small", d.what, d.is))
		}
	}
	return errors.Join(append(faults, o.Sharing.validate())...)
}
