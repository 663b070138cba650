package tenant

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// The headers that name a tenant in the peers' clients. Both are always understood.
const (
	HeaderThanos = "THANOS-TENANT"
	HeaderOrgID  = "X-Scope-OrgID"
)

// CertificateFields are the fields of a client certificate that can name a tenant.
var CertificateFields = []string{"organization", "organizationalUnit", "commonName"}

// Resolver finds the tenant of an HTTP request. Its zero value uses the two well-known headers and Default.
//
// What comes later wins: Default; the one tenant of a user that has only one (Grant); headers; the client certificate.
// The sender's Grant, in the context of the request, must allow what is found.
type Resolver struct {
	// Header is a further header name, read before the well-known ones; "" = none.
	Header string
	// Default is the tenant of a request that names none; "" = the package's Default.
	Default ID
	// Certificate is the field of the client's verified TLS certificate that names the tenant, one of CertificateFields.
	// Every request must then have such a certificate, and headers do not count. "" = no field does.
	Certificate string
	// MaxTenants is how many tenants a read request may name; 0 = any number.
	MaxTenants int
}

// Write returns the one tenant a write request is for. Headers that name different tenants, and a name that is not
// valid, are errors of kind Invalid; a tenant that is not the sender's is one of kind Forbidden.
func (r Resolver) Write(req *http.Request) (ID, error) {
	s, err := r.raw(req)
	if err != nil {
		return "", err
	}
	id, err := Parse(s)
	if err != nil {
		return "", err
	}
	return id, GrantFrom(req.Context()).Check(id)
}

// Read returns the tenants a read request is for; "a|b" names several. Errors are those of Write, and TooLarge when
// there are more names than MaxTenants.
func (r Resolver) Read(req *http.Request) ([]ID, error) {
	s, err := r.raw(req)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(s, "|") + 1; r.MaxTenants > 0 && n > r.MaxTenants {
		return nil, errs.E(errs.TooLarge, "the query names %d tenants, and may name %d (limit --query.max-tenants)", n,
			r.MaxTenants)
	}
	ids, err := ParseSet(s)
	if err != nil {
		return nil, err
	}
	g := GrantFrom(req.Context())
	for _, id := range ids {
		if err := g.Check(id); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func (r Resolver) raw(req *http.Request) (string, error) {
	if r.Certificate != "" {
		return r.certified(req)
	}
	found, from := "", ""
	for _, name := range [...]string{r.Header, HeaderThanos, HeaderOrgID} {
		if name == "" {
			continue
		}
		for _, v := range req.Header.Values(name) {
			if v == "" || v == found {
				continue
			}
			if found != "" {
				return "", errs.E(errs.Invalid, "headers name two tenants: %s %q and %s %q", from, found, name, v)
			}
			found, from = v, name
		}
	}
	if found != "" {
		return found, nil
	}
	if only, ok := GrantFrom(req.Context()).Only(); ok {
		return string(only), nil
	}
	if r.Default != "" {
		return string(r.Default), nil
	}
	return string(Default), nil
}

// certified is the tenant that the client's certificate names.
func (r Resolver) certified(req *http.Request) (string, error) {
	if req.TLS == nil || len(req.TLS.PeerCertificates) == 0 {
		return "", errs.E(errs.Unauthenticated, "the tenant is the %s of a TLS client certificate, and the request came "+
			"without one", r.Certificate)
	}
	if len(req.TLS.VerifiedChains) == 0 { // the listener takes any certificate, so this one proves nothing
		return "", errs.E(errs.Unauthenticated, "the tenant is the %s of a TLS client certificate, and no authority was "+
			"asked about that of the request (client_auth_type RequireAndVerifyClientCert)", r.Certificate)
	}
	value, err := certificateField(req.TLS.PeerCertificates[0], r.Certificate)
	if err != nil {
		return "", errs.E(errs.Invalid, "TLS client certificate: %w", err)
	}
	return value, nil
}

func certificateField(c *x509.Certificate, field string) (string, error) {
	var values []string
	switch {
	case strings.EqualFold(field, "organization"):
		values = c.Subject.Organization
	case strings.EqualFold(field, "organizationalUnit"):
		values = c.Subject.OrganizationalUnit
	case strings.EqualFold(field, "commonName"):
		values = []string{c.Subject.CommonName}
	default:
		return "", fmt.Errorf("field %q: want one of %q", field, CertificateFields)
	}
	if len(values) == 0 || values[0] == "" {
		return "", fmt.Errorf("its subject has no %s", field)
	}
	return values[0], nil
}

// CertificateGrant is what the holder of req's verified client certificate may do: use the tenants that fields (of
// CertificateFields; "" is none) name. It is Stranger when there is no such certificate, or no field names a tenant.
func CertificateGrant(req *http.Request, fields ...string) *Grant {
	var ids []ID
	for _, field := range fields {
		if field == "" {
			continue
		}
		value, err := Resolver{Certificate: field}.certified(req)
		if err != nil {
			continue
		}
		if id, err := Parse(value); err == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return Stranger
	}
	return Exactly(req.TLS.PeerCertificates[0].Subject.String(), ids...)
}
