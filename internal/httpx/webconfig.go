package httpx

import (
	"bytes"
	"crypto/tls"
	"path/filepath"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"
	"golang.org/x/time/rate"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/secret"
)

// webConfig is the content of a web configuration file as exporter-toolkit defines it. The library reads and checks the
// file and makes the TLS configuration. Passwords are checked here and not by the library, since in the library a wrong
// password of one client delays the right passwords of all others.
type webConfig struct {
	raw       []byte
	file      web.Config
	passwords map[string]string // bcrypt hashes
	limiter   *rate.Limiter     // nil = none
}

// loadWebConfig reads file. If its content is that of before, the result is before. No error shows a password or a key.
func loadWebConfig(file string, before *webConfig) (*webConfig, error) {
	raw, err := conf.ReadFile(file)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if before != nil && bytes.Equal(raw, before.raw) {
		return before, nil
	}
	p := conf.Parser{Name: file}
	p.Check(p.Document(raw), "", web.Config{})
	if err := p.Err(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	fault := func(err error) error {
		return errs.E(errs.Invalid, "web configuration %s: %w", file, secret.Scrub(raw, err))
	}
	if err := web.Validate(file); err != nil {
		return nil, fault(err)
	}
	c := &webConfig{raw: raw, passwords: map[string]string{}}
	c.file.HTTPConfig.HTTP2 = true
	c.file.TLSConfig.MinVersion, c.file.TLSConfig.MaxVersion = tls.VersionTLS12, tls.VersionTLS13
	if err := yaml.Unmarshal(raw, &c.file); err != nil {
		return nil, fault(err)
	}
	c.file.TLSConfig.SetDirectory(filepath.Dir(file))
	for user, hash := range c.file.Users {
		c.passwords[user] = string(hash)
	}
	if l := c.file.RateLimiterConfig; l.Interval > 0 {
		c.limiter = rate.NewLimiter(rate.Every(l.Interval), l.Burst)
	}
	return c, nil
}

// tls is the configuration of a new connection. It reads the certificates now. It is nil without TLS.
func (c *webConfig) tls() (*tls.Config, error) {
	if !c.file.TLSConfig.IsEnabled() {
		return nil, nil
	}
	t, err := web.ConfigToTLSConfig(&c.file.TLSConfig)
	if err != nil {
		return nil, err
	}
	t.NextProtos = []string{"h2", "http/1.1"}
	if !c.file.HTTPConfig.HTTP2 {
		t.NextProtos = []string{"http/1.1"}
	}
	return t, nil
}

// demandsCertificates reports whether only clients with a certificate of a known authority get a connection.
func (c *webConfig) demandsCertificates() bool {
	return c.file.TLSConfig.ClientAuth == "RequireAndVerifyClientCert"
}
