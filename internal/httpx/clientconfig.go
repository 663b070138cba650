package httpx

import commoncfg "github.com/prometheus/common/config"

// ClientConfig is how a service is spoken to over HTTP, in the YAML that Thanos has for all of its HTTP clients. What
// Thanos says of connections (transport_config) is not in it.
type ClientConfig struct {
	BasicAuth struct {
		Username     string `yaml:"username"`
		Password     string `yaml:"password"`
		PasswordFile string `yaml:"password_file"`
	} `yaml:"basic_auth"`
	BearerToken     string `yaml:"bearer_token"`
	BearerTokenFile string `yaml:"bearer_token_file"`
	ProxyURL        string `yaml:"proxy_url"`
	TLS             struct {
		CAFile             string `yaml:"ca_file"`
		CertFile           string `yaml:"cert_file"`
		KeyFile            string `yaml:"key_file"`
		ServerName         string `yaml:"server_name"`
		InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
	} `yaml:"tls_config"`
}

// TLSConfig is c.TLS in the form of Prometheus's library.
func (c *ClientConfig) TLSConfig() commoncfg.TLSConfig {
	return commoncfg.TLSConfig{CAFile: c.TLS.CAFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile,
		ServerName: c.TLS.ServerName, InsecureSkipVerify: c.TLS.InsecureSkipVerify}
}
