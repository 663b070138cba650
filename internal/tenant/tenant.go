// Package tenant is the isolation unit of Hearth: its validated name, how a request names it, and its limits.
//
// Invariants: an ID exists only through Parse (or as the constant Default), once, at the edge of a process; from there
// it is a typed argument, so a directory or bucket prefix made from an ID needs no further check.
package tenant

import (
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// ID is a validated tenant name: 1 to 150 bytes of letters, digits and !_.*'()@:+- and inner spaces, not "." or "..".
type ID string

// Default is the tenant of requests, streams and blocks that name none.
const Default ID = "default-tenant"

// MaxIDLength is the longest tenant name in bytes.
const MaxIDLength = 150

// Parse validates s as one tenant's name. The error is of kind Invalid and quotes s.
func Parse(s string) (ID, error) {
	switch {
	case s == "" || s == "." || s == "..":
		return "", errs.E(errs.Invalid, "tenant id %q is not allowed", s)
	case len(s) > MaxIDLength:
		return "", errs.E(errs.Invalid, "tenant id of %d bytes is longer than %d", len(s), MaxIDLength)
	case s[0] == ' ' || s[len(s)-1] == ' ':
		return "", errs.E(errs.Invalid, "tenant id %q begins or ends with a space", s)
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			return "", errs.E(errs.Invalid, "tenant id %q: character %q is not allowed (letters, digits and !_.*'()@:+- and "+
				"inner spaces are)", s, s[i])
		}
	}
	return ID(s), nil
}

func allowed(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!_.*'()@:+ -",
		c) >= 0
}

// ParseSet validates a read request's "a|b|c": the tenants it names, sorted, each once. One name is the usual case.
func ParseSet(s string) ([]ID, error) {
	var ids []ID
	for part := range strings.SplitSeq(s, "|") {
		id, err := Parse(part)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
