package tenant

import (
	"net/http"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// The headers that name a tenant in the peers' clients. Both are always understood.
const (
	HeaderThanos = "THANOS-TENANT"
	HeaderOrgID  = "X-Scope-OrgID"
)

// Resolver finds the tenant of an HTTP request. Its zero value uses the two well-known headers and Default.
type Resolver struct {
	// Header is a further header name, read before the well-known ones; "" = none.
	Header string
	// Default is the tenant of a request that names none; "" = the package's Default.
	Default ID
}

// Write returns the one tenant a write request is for. Headers that name different tenants, and a name that is not
// valid, are errors of kind Invalid.
func (r Resolver) Write(h http.Header) (ID, error) {
	s, err := r.raw(h)
	if err != nil {
		return "", err
	}
	return Parse(s)
}

// Read returns the tenants a read request is for; "a|b" names several.
func (r Resolver) Read(h http.Header) ([]ID, error) {
	s, err := r.raw(h)
	if err != nil {
		return nil, err
	}
	return ParseSet(s)
}

func (r Resolver) raw(h http.Header) (string, error) {
	found, from := "", ""
	for _, name := range [...]string{r.Header, HeaderThanos, HeaderOrgID} {
		if name == "" {
			continue
		}
		for _, v := range h.Values(name) {
			if v == "" || v == found {
				continue
			}
			if found != "" {
				return "", errs.E(errs.Invalid, "headers name two tenants: %s %q and %s %q", from, found, name, v)
			}
			found, from = v, name
		}
	}
	switch {
	case found != "":
		return found, nil
	case r.Default != "":
		return string(r.Default), nil
	}
	return string(Default), nil
}
