package compact

import (
	"errors"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/compact/plan"
)

// Periods are how long blocks are kept, by resolution; 0 = for ever.
type Periods struct {
	Raw         time.Duration
	FiveMinutes time.Duration
	OneHour     time.Duration
}

// PeriodRule is the periods of the blocks of a tenant whose external labels match.
type PeriodRule struct {
	// Match is matchers, as in {cluster="eu"}. All must match.
	Match string
	Periods
}

// TenantPeriods are the periods of a tenant: those of the first rule that matches a block, or else its own.
type TenantPeriods struct {
	Periods
	Rules []PeriodRule
}

// Configured is what the runtime configuration says of retention.
type Configured struct {
	// Tenants are the periods of single tenants, Others those of all tenants that are not among them.
	Tenants map[string]TenantPeriods
	Others  TenantPeriods
}

// RetentionOptions say how long blocks are kept.
type RetentionOptions struct {
	// Default is for blocks without the tenant label, and for all blocks where Configured is nil.
	Default Periods
	// Configured is what the runtime configuration says; nil = nothing. An error says that it is not valid at present:
	// then nothing becomes shorter.
	Configured func() (Configured, error)
	// Wait is how long a period that became shorter must stay so until it takes effect.
	Wait time.Duration
}

// validate is the error of periods that delete samples before they are downsampled.
func (o RetentionOptions) validate(downsample bool) error {
	if o.Wait < 0 {
		return errors.New("compact: the wait before a shorter retention takes effect is negative")
	}
	return o.Default.Validate(downsample)
}

// Validate is the error of periods that delete samples before they are downsampled: a block that is gone before leaves
// a hole in the coarser resolution.
func (p Periods) Validate(downsample bool) error {
	if p.Raw < 0 || p.FiveMinutes < 0 || p.OneHour < 0 {
		return errors.New("compact: a retention is negative")
	}
	if !downsample {
		return nil
	}
	if p.Raw != 0 && p.Raw < plan.SpanFiveMin {
		return fmt.Errorf("compact: raw samples are kept for %s, and are downsampled to 5m from blocks of %s: keep them for "+
			"at least that long, or switch downsampling off", p.Raw, plan.SpanFiveMin)
	}
	if p.FiveMinutes != 0 && p.FiveMinutes < plan.SpanOneHour {
		return fmt.Errorf("compact: samples of 5m are kept for %s, and are downsampled to 1h from blocks of %s: keep them "+
			"for at least that long, or switch downsampling off", p.FiveMinutes, plan.SpanOneHour)
	}
	return nil
}

// wanted is what the configuration says. The error says that it is not valid: then it is not what is returned.
func (o RetentionOptions) wanted(downsample bool) (ruleSet, error) {
	all := Configured{Others: TenantPeriods{Periods: o.Default}}
	if o.Configured != nil {
		var err error
		if all, err = o.Configured(); err != nil {
			return ruleSet{}, err
		}
	}
	set := ruleSet{Default: millisOf(o.Default), Others: tenantRulesOf(all.Others), Tenants: map[string]tenantRules{}}
	faults := []error{all.Others.validate("", downsample)}
	for name, own := range all.Tenants {
		faults = append(faults, own.validate(name, downsample))
		set.Tenants[name] = tenantRulesOf(own)
	}
	return set, errors.Join(faults...)
}

// validate is the error of the periods of a tenant, "" = of those without any of their own.
func (t TenantPeriods) validate(name string, downsample bool) error {
	faults := []error{t.Periods.Validate(downsample)}
	for _, r := range t.Rules {
		_, err := parseMatch(r.Match)
		faults = append(faults, r.Periods.Validate(downsample), err)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("retention of tenant %q: %w", name, err)
	}
	return nil
}
