package main

import (
	"fmt"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// tenancyFlags say which tenant a request is for.
type tenancyFlags struct {
	header, fallback string
	certificate      string
}

// bind adds the flags of a process that takes writes.
func (f *tenancyFlags) bind(c *kingpin.CmdClause) {
	tenantFlags(c, &f.header, &f.fallback)
	c.Flag("receive.tenant-certificate-field", "Field of the client's TLS certificate that names the tenant of a "+
		"write, before all headers: organization, organizationalUnit or commonName. A write without it is refused.").
		EnumVar(&f.certificate, append(tenant.CertificateFields, "")...)
}

// tenantFlags say how requests name their tenant.
func tenantFlags(c *kingpin.CmdClause, header, fallback *string) {
	c.Flag("receive.tenant-header", "Header that names the tenant. X-Scope-OrgID and THANOS-TENANT are always "+
		"understood.").Default(tenant.HeaderThanos).StringVar(header)
	c.Flag("receive.default-tenant-id", "Tenant of requests that name none.").
		Default(string(tenant.Default)).StringVar(fallback)
}

// resolver finds tenants as the flags say.
func (f *tenancyFlags) resolver() (tenant.Resolver, error) {
	id, err := tenant.Parse(f.fallback)
	if err != nil {
		return tenant.Resolver{}, fmt.Errorf("--receive.default-tenant-id: %w", err)
	}
	return tenant.Resolver{Header: f.header, Default: id, Certificate: f.certificate}, nil
}
