package targets

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// Config is a set of services that are reached alike, in Thanos's YAML.
type Config struct {
	HTTP HTTPConfig `yaml:"http_config"`
	// Static are addresses: host:port, dns+name:port, dnssrv+name.
	Static []string `yaml:"static_configs"`
	// Files are read again at an interval.
	Files []FileConfig `yaml:"file_sd_configs"`
	// Scheme is http or https; "" = http. PathPrefix is before the path of requests.
	Scheme     string `yaml:"scheme"`
	PathPrefix string `yaml:"path_prefix"`
	// Timeout bounds a request; 0 = the default of who sends it. APIVersion is of Alertmanagers alone.
	Timeout    model.Duration `yaml:"timeout"`
	APIVersion string         `yaml:"api_version"`
	// GRPC is Thanos's other way to ask a querier.
	GRPC GRPCConfig `yaml:"grpc_config"`
}

// GRPCConfig names queriers by their gRPC ports.
type GRPCConfig struct {
	EndpointAddresses []string `yaml:"endpoint_addresses"`
}

// FileConfig names files with addresses, in Prometheus's format for file discovery.
type FileConfig struct {
	Files           []string       `yaml:"files"`
	RefreshInterval model.Duration `yaml:"refresh_interval"`
}

// HTTPConfig is how services are spoken to.
type HTTPConfig struct {
	httpx.ClientConfig `yaml:",inline"`
	// Transport is accepted, and Go's defaults are used.
	Transport map[string]any `yaml:"transport_config"`
}

// Prometheus is c in the form of Prometheus's library.
func (c HTTPConfig) Prometheus() (commoncfg.HTTPClientConfig, error) {
	out := commoncfg.DefaultHTTPClientConfig
	if b := c.BasicAuth; b.Username != "" || b.Password != "" || b.PasswordFile != "" {
		out.BasicAuth = &commoncfg.BasicAuth{Username: b.Username, Password: commoncfg.Secret(b.Password),
			PasswordFile: b.PasswordFile}
	}
	if c.BearerToken != "" || c.BearerTokenFile != "" {
		out.Authorization = &commoncfg.Authorization{Credentials: commoncfg.Secret(c.BearerToken),
			CredentialsFile: c.BearerTokenFile}
	}
	if c.ProxyURL != "" {
		u, err := url.Parse(c.ProxyURL)
		if err != nil {
			return out, errors.New("proxy_url is not a URL")
		}
		out.ProxyURL = commoncfg.URL{URL: u}
	}
	out.TLSConfig = c.TLSConfig()
	return out, out.Validate()
}

// Parse reads a list of Configs. The error names all that is wrong as name:line. key is the key above the list, as in
// Thanos's alertmanagers; "" = the list is the document.
func Parse(name, key string, text []byte) ([]Config, error) {
	p := conf.Parser{Name: name}
	root := p.Document(text)
	if root == nil {
		return nil, p.Err()
	}
	if key != "" {
		list := root
		root = nil
		p.Mapping(list, "", map[string]func(*yaml.Node){key: func(n *yaml.Node) { root = n }})
	}
	if root == nil || conf.IsNull(root) {
		return nil, p.Err()
	}
	if root.Kind != yaml.SequenceNode {
		p.Fault(root, "a list is expected, each item of which begins with -")
		return nil, p.Err()
	}
	var out []Config
	for i, n := range root.Content {
		where := fmt.Sprintf("item %d: ", i+1)
		var c Config
		if !p.Check(n, where, c) {
			continue
		}
		err := n.Decode(&c)
		if err == nil {
			err = c.validate()
		}
		if err != nil {
			p.Fault(n, "%s%s", where, conf.Plain(err))
			continue
		}
		out = append(out, c)
	}
	return out, p.Err()
}

func (c *Config) validate() error {
	if c.Scheme == "" {
		c.Scheme = "http"
	}
	if c.Scheme != "http" && c.Scheme != "https" {
		return fmt.Errorf("scheme %q: want http or https", c.Scheme)
	}
	switch c.APIVersion {
	case "", "v2":
	case "v1":
		return errors.New("api_version v1: Alertmanagers have had v2 since 2019, and no v1 since 2023; use v2")
	default:
		return fmt.Errorf("api_version %q: want v2", c.APIVersion)
	}
	_, err := c.HTTP.Prometheus()
	return err
}

// OfURL is the Config of one service that a flag names: http://host:port/prefix, with dns+ or dnssrv+ before it for
// names. port is the port where a name to look up has none; 0 = it must have one.
func OfURL(text string, port int, timeout time.Duration) (Config, error) {
	c := Config{Timeout: model.Duration(timeout)}
	kind, rest, dynamic := strings.Cut(text, "+")
	if !dynamic || strings.Contains(kind, "/") {
		kind, rest = "", text
	}
	switch kind {
	case "", "dns", "dnssrv", "dnssrvnoa":
	default:
		return c, fmt.Errorf("%q: want dns+, dnssrv+ or dnssrvnoa+ before the URL, or nothing", kind)
	}
	if !strings.Contains(rest, "://") { // as for queriers in Thanos
		rest = "http://" + rest
	}
	u, err := url.Parse(rest)
	if err != nil || u.Host == "" {
		return c, errors.New("is not a URL such as http://host:port")
	}
	c.Scheme, c.PathPrefix = u.Scheme, u.Path
	host := u.Host
	if _, _, err := net.SplitHostPort(host); err != nil && port > 0 && kind != "dnssrv" && kind != "dnssrvnoa" {
		host = net.JoinHostPort(strings.Trim(host, "[]"), fmt.Sprint(port))
	}
	if kind != "" {
		host = kind + "+" + host
	}
	c.Static = []string{host}
	if u.User != nil {
		c.HTTP.BasicAuth.Username = u.User.Username()
		c.HTTP.BasicAuth.Password, _ = u.User.Password()
	}
	return c, c.validate()
}

// Unused is a setting that is accepted, since Thanos's files have it, and has no effect.
type Unused struct {
	Name, Reason string
}

// UnusedBy are the settings of configs that have no effect, each once. They are queriers, or else Alertmanagers.
func UnusedBy(configs []Config, queriers bool) (out []Unused) {
	note := func(set bool, name, reason string) {
		u := Unused{name, reason}
		if set && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	for _, c := range configs {
		if queriers {
			note(len(c.GRPC.EndpointAddresses) > 0, "grpc_config",
				"queriers are asked over HTTP: name them in static_configs or file_sd_configs")
			note(c.APIVersion != "", "api_version", "only Alertmanagers have one")
		} else {
			note(len(c.GRPC.EndpointAddresses) > 0, "grpc_config", "Alertmanagers are reached over HTTP")
		}
		note(len(c.HTTP.Transport) > 0, "transport_config", "connections are kept as Go's HTTP client does by default")
		for _, f := range c.Files {
			note(f.RefreshInterval != 0, "refresh_interval", "a flag says how often files and names are looked up, all at "+
				"once: --query.sd-dns-interval or --alertmanagers.sd-dns-interval")
		}
	}
	return out
}
