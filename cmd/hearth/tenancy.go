package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/httpx"
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
	c.Flag("receive.tenant-certificate-field", "Field of the client's TLS certificate that names the tenant of a write, before all headers: organization, organizationalUnit or commonName. A write without it is refused.").
		EnumVar(&f.certificate, append(tenant.CertificateFields, "")...)
}

// tenantFlags say how requests name their tenant.
func tenantFlags(c *kingpin.CmdClause, header, fallback *string) {
	c.Flag("receive.tenant-header", "Header that names the tenant. X-Scope-OrgID and THANOS-TENANT are always understood.").Default(tenant.HeaderThanos).StringVar(header)
	c.Flag("receive.default-tenant-id", "Tenant of requests that name none.").Default(string(tenant.Default)).StringVar(fallback)
}

// resolver finds tenants as the flags say.
func (f *tenancyFlags) resolver() (tenant.Resolver, error) {
	id, err := tenant.Parse(f.fallback)
	if err != nil {
		return tenant.Resolver{}, fmt.Errorf("--receive.default-tenant-id: %w", err)
	}
	return tenant.Resolver{Header: f.header, Default: id, Certificate: f.certificate}, nil
}

// authFlags say who may use which tenants.
type authFlags struct{ usersFile string }

func (f *authFlags) bind(c *kingpin.CmdClause) {
	c.Flag("auth.tenants-file", "YAML file of users and the tenants that each may write and read. Users come with a password (basic_auth_users of --http.config) or a bearer token. Read again when it changes.").
		PlaceHolder("FILE").StringVar(&f.usersFile)
}

// build makes the process tell users apart, if the flags say so. Files that are not valid keep it from starting.
func (f *authFlags) build(p *process) error {
	if f.usersFile == "" {
		return nil
	}
	a := httpx.NewAuth(p.log, p.reg, httpx.AuthOptions{UsersFile: f.usersFile, PasswordsFile: p.flags["http.config"], Interval: 5 * time.Second})
	if err := a.Reload(); err != nil {
		return fmt.Errorf("--auth.tenants-file: %w", err)
	}
	p.auth = a
	p.addPart("users", a.Open, a.Close, nil)
	p.onReload(a.Reload)
	return nil
}

// tenants lets known users pass to h, which is about the tenants that its requests name, once every part is open.
func (p *process) tenants(h http.Handler) http.Handler {
	return p.gate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.auth.Tenants(h).ServeHTTP(w, r) }))
}

// operators lets users pass to h that may use all tenants, once every part is open.
func (p *process) operators(h http.Handler) http.Handler { return p.gate(p.onlyOperators(h)) }

// onlyOperators is operators for what answers before every part is open.
func (p *process) onlyOperators(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.auth.Operators(h).ServeHTTP(w, r) })
}
