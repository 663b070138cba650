package sidecar

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// settings are what Prometheus says of itself.
type settings struct {
	flags   map[string]string // nil when nothing is shipped
	version string
	labels  labels.Labels // external
	lowest  int64         // time of its oldest sample in ms
}

// Names of flags of Prometheus.
const (
	flagMinBlock     = "storage.tsdb.min-block-duration"
	flagMaxBlock     = "storage.tsdb.max-block-duration"
	flagDelayCompact = "storage.tsdb.delay-compact-file.path"
)

// judge is nil if a Prometheus with these settings can be served, and shipped where it has flags. Otherwise the error
// says what to change. It has the kind Unavailable.
func judge(s settings, o Options) error {
	refuse := func(format string, args ...any) error { return errs.E(errs.Unavailable, format, args...) }
	if s.labels.IsEmpty() {
		return refuse("Prometheus has no external labels: set global.external_labels in its configuration to labels that " +
			"no other Prometheus has, since its series and blocks are told from those of others by them")
	}
	for _, name := range []string{o.TenantLabel, o.ReplicaLabel} {
		if s.labels.Has(name) {
			return refuse("Prometheus has an external label %s=%q: Hearth keeps this name for tenants and replicas, and "+
				"takes them from no label of a Prometheus. Call the label otherwise; whose the series are --tenant says",
				name, s.labels.Get(name))
		}
	}
	if s.flags == nil {
		return nil
	}
	record := filepath.Clean(filepath.Join(o.Ship.Dir, o.Ship.Record))
	if path := s.flags[flagDelayCompact]; path != "" {
		if filepath.Clean(path) != record {
			return refuse("Prometheus compacts blocks that --%s=%s lists, and shipped blocks are listed in %s: both must "+
				"be the same file", flagDelayCompact, path, record)
		}
		return nil
	}
	if least, most := s.flags[flagMinBlock], s.flags[flagMaxBlock]; least != most && !o.Ship.IgnoreUnequal {
		return refuse("Prometheus compacts blocks before they are shipped: --%s=%s and --%s=%s must be equal, or "+
			"--%s=%s be set", flagMinBlock, least, flagMaxBlock, most, flagDelayCompact, record)
	}
	return nil
}

// advice is what a person should know of settings that will do, "" for nothing.
func advice(s settings) string {
	if s.flags == nil {
		return ""
	}
	least := s.flags[flagMinBlock]
	if d, err := model.ParseDuration(least); err == nil && time.Duration(d) != 2*time.Hour {
		return fmt.Sprintf("blocks of Prometheus have %s instead of 2h: stores and compactors expect 2h", least)
	}
	if s.flags[flagDelayCompact] == "" && least != s.flags[flagMaxBlock] {
		return "Prometheus compacts blocks whether or not they are in the bucket: one that cannot be shipped for hours is " +
			"lost to the bucket"
	}
	return ""
}

// ask asks Prometheus for its settings.
func (s *Sidecar) ask(ctx context.Context) (found settings, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	if s.ships() {
		if found.flags, err = s.client.Flags(ctx); err != nil {
			return found, err
		}
	}
	if found.version, err = s.client.Version(ctx); err != nil {
		return found, err
	}
	if found.lowest, err = s.client.LowestTime(ctx); err != nil {
		return found, err
	}
	found.labels, err = s.client.ExternalLabels(ctx)
	return found, err
}

// look asks Prometheus once, and keeps what is known of it.
func (s *Sidecar) look(ctx context.Context) error {
	found, err := s.ask(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	answered := err == nil
	if answered {
		err = judge(found, s.opts)
	}
	s.mu.Lock()
	before, fault := s.found, s.fault
	s.fault = err
	switch {
	case err == nil:
		s.found = &found
	case answered:
		s.found = nil // it answers, and must not be served any more
	}
	s.mu.Unlock()
	s.m.up.Set(oneIf(err == nil))
	s.tell(before, fault, found, err)
	return err
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// tell logs what is another than at the last look.
func (s *Sidecar) tell(before *settings, fault error, now settings, err error) {
	switch {
	case err != nil && (fault == nil || fault.Error() != err.Error()):
		s.log.Warn("Prometheus is not served", "url", s.client.Where(), "err", err)
	case err == nil && (before == nil || !labels.Equal(before.labels, now.labels) || before.version != now.version):
		s.log.Info("Prometheus is served", "url", s.client.Where(), "prometheus", now.version,
			"external_labels", now.labels.String())
		if text := advice(now); text != "" {
			s.log.Warn(text)
		}
	case err == nil && fault != nil:
		s.log.Info("Prometheus is served again", "url", s.client.Where())
	}
}

// watch looks at Prometheus until ctx ends: every second until it can be served, every Options.Interval then, and when
// somebody found that it has changed. fail ends the process.
func (s *Sidecar) watch(ctx context.Context, fail func(error)) {
	began := time.Now()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-wait.C:
		}
		err := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil && !s.wasServed() {
			close(s.first)
		}
		if limit := s.opts.ReadyTimeout; !s.wasServed() && s.ships() && limit > 0 && time.Since(began) > limit {
			fail(fmt.Errorf("no Prometheus could be served for %s: %w", limit, err))
			return
		}
		next := s.opts.Interval
		if err != nil {
			next = min(next, firstInterval)
		}
		wait.Reset(next)
	}
}

// firstInterval is the time between questions to a Prometheus that cannot be served.
const firstInterval = time.Second

// wasServed reports whether Prometheus could be served at some time.
func (s *Sidecar) wasServed() bool {
	select {
	case <-s.first:
		return true
	default:
		return false
	}
}

// lookAgain has Prometheus asked soon.
func (s *Sidecar) lookAgain() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// known is what was last known of Prometheus, for a request. It is an error while nothing is known, or while Prometheus
// must not be served. One that did not answer the last question is known as it was before.
func (s *Sidecar) known() (settings, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == nil {
		return settings{}, s.faultNow()
	}
	return *s.found, nil
}

// Ready is nil while Prometheus answers and can be served.
func (s *Sidecar) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found != nil && s.fault == nil {
		return nil
	}
	return s.faultNow()
}

// faultNow needs s.mu.
func (s *Sidecar) faultNow() error {
	if s.fault != nil {
		return s.fault
	}
	return errs.E(errs.Unavailable, "Prometheus has not answered yet")
}
