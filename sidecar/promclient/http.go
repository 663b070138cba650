package promclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	config_util "github.com/prometheus/common/config"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// maxResponse bounds a response of Prometheus's API in bytes, other than lists of series and remote reads.
const maxResponse = 64 << 20

// maxErrorText bounds what is read of a response that is an error, in bytes.
const maxErrorText = 4 << 10

// Client asks one Prometheus. It is safe for concurrent use.
type Client struct {
	base *url.URL
	http *http.Client
	api  promv1.API
}

// New makes a client of the Prometheus at base, such as http://localhost:9090/prefix. It does not connect. settings is
// YAML in the form of Thanos's --prometheus.http-client, nil = none; name is what errors call it. Files that it names
// are read when they are needed, and again when they change.
func New(base *url.URL, name string, settings []byte) (*Client, error) {
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, errs.E(errs.Invalid, "address of Prometheus %q: must begin with http:// or https:// and a host", base)
	}
	s, err := readSettings(name, settings)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	transport, err := s.transport()
	if err != nil {
		return nil, errs.E(errs.Invalid, "%s: %w", name, err)
	}
	calls, err := api.NewClient(api.Config{Address: base.String(), RoundTripper: bounded{transport}})
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return &Client{base: base, http: &http.Client{Transport: transport}, api: promv1.NewAPI(calls)}, nil
}

// settings are those of the connection, in the form that Thanos has for all of its HTTP clients.
type settings struct {
	httpx.ClientConfig `yaml:",inline"`
	Transport          transportSettings `yaml:"transport_config"`
}

// transportSettings has times in nanoseconds, as Thanos has them.
type transportSettings struct {
	MaxIdleConns          int   `yaml:"max_idle_conns"`
	MaxIdleConnsPerHost   int   `yaml:"max_idle_conns_per_host"`
	IdleConnTimeout       int64 `yaml:"idle_conn_timeout"`
	ResponseHeaderTimeout int64 `yaml:"response_header_timeout"`
	ExpectContinueTimeout int64 `yaml:"expect_continue_timeout"`
	MaxConnsPerHost       int   `yaml:"max_conns_per_host"`
	DisableCompression    bool  `yaml:"disable_compression"`
	TLSHandshakeTimeout   int64 `yaml:"tls_handshake_timeout"`
	DialerTimeout         int64 `yaml:"dialer_timeout"`
}

func readSettings(name string, raw []byte) (*settings, error) {
	s := &settings{Transport: transportSettings{
		MaxIdleConns: 100, MaxIdleConnsPerHost: 16, IdleConnTimeout: int64(90 * time.Second),
		ExpectContinueTimeout: int64(10 * time.Second), TLSHandshakeTimeout: int64(10 * time.Second),
		DialerTimeout: int64(5 * time.Second),
	}}
	p := conf.Parser{Name: name}
	p.Decode(p.Document(raw), s)
	return s, p.Err()
}

// transport is how requests reach Prometheus: TLS, proxy, and who this process says that it is.
func (s *settings) transport() (http.RoundTripper, error) {
	proxy := http.ProxyFromEnvironment
	if s.ProxyURL != "" {
		u, err := url.Parse(s.ProxyURL)
		if err != nil {
			return nil, fmt.Errorf("proxy_url: %w", err)
		}
		proxy = http.ProxyURL(u)
	}
	t := s.Transport
	made := func(tls *tls.Config) (http.RoundTripper, error) {
		return &http.Transport{
			Proxy: proxy, TLSClientConfig: tls, ForceAttemptHTTP2: true, MaxIdleConns: t.MaxIdleConns,
			MaxIdleConnsPerHost: t.MaxIdleConnsPerHost, MaxConnsPerHost: t.MaxConnsPerHost,
			DisableCompression: t.DisableCompression, IdleConnTimeout: time.Duration(t.IdleConnTimeout),
			ResponseHeaderTimeout: time.Duration(t.ResponseHeaderTimeout),
			ExpectContinueTimeout: time.Duration(t.ExpectContinueTimeout),
			TLSHandshakeTimeout:   time.Duration(t.TLSHandshakeTimeout),
			DialContext:           (&net.Dialer{Timeout: time.Duration(t.DialerTimeout)}).DialContext,
		}, nil
	}
	config := s.TLSConfig()
	tlsConfig, err := config_util.NewTLSConfig(&config)
	if err != nil {
		return nil, err
	}
	rt, err := made(tlsConfig)
	if s.TLS.CAFile != "" {
		files := config_util.TLSRoundTripperSettings{CA: config_util.NewFileSecret(s.TLS.CAFile)}
		if s.TLS.CertFile != "" {
			files.Cert, files.Key = config_util.NewFileSecret(s.TLS.CertFile), config_util.NewFileSecret(s.TLS.KeyFile)
		}
		rt, err = config_util.NewTLSRoundTripper(tlsConfig, files, made)
	}
	if err != nil {
		return nil, err
	}
	secret := func(text, file string) config_util.SecretReader {
		if file != "" {
			return config_util.NewFileSecret(file)
		}
		return config_util.NewInlineSecret(text)
	}
	basic, bearer := s.BasicAuth.Username != "", s.BearerToken != "" || s.BearerTokenFile != ""
	switch {
	case basic && bearer:
		return nil, errors.New("basic_auth and bearer_token are both set: use one")
	case s.BasicAuth.Password != "" && s.BasicAuth.PasswordFile != "":
		return nil, errors.New("basic_auth: password and password_file are both set: use one")
	case s.BearerToken != "" && s.BearerTokenFile != "":
		return nil, errors.New("bearer_token and bearer_token_file are both set: use one")
	case basic:
		rt = config_util.NewBasicAuthRoundTripper(config_util.NewInlineSecret(s.BasicAuth.Username),
			secret(s.BasicAuth.Password, s.BasicAuth.PasswordFile), rt)
	case bearer:
		rt = config_util.NewAuthorizationCredentialsRoundTripper("Bearer", secret(s.BearerToken, s.BearerTokenFile), rt)
	}
	return config_util.NewUserAgentRoundTripper("hearth-sidecar", rt), nil
}

// bounded cuts responses off that are longer than maxResponse. The library reads them whole.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxResponse}
	}
	return resp, err
}

// boundedBody fails a response that is longer than left bytes.
type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errs.E(errs.TooLarge, "the response of Prometheus has more than %d bytes", int64(maxResponse))
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// address is that of an endpoint of Prometheus.
func (c *Client) address(path string, params url.Values) string {
	u := c.base.JoinPath(path)
	u.RawQuery = params.Encode()
	return u.String()
}

// do sends a request and returns the response if it is a success. The caller closes the body.
func (c *Client) do(ctx context.Context, method, address string, body []byte, header http.Header) (*http.Response,
	error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, errs.E(errs.Unavailable, "Prometheus: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorText))
	return nil, errs.E(kindOf(resp.StatusCode), "Prometheus answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
}

// kindOf is what a caller can do about a status of Prometheus.
func kindOf(status int) errs.Kind {
	switch status {
	case http.StatusBadRequest:
		return errs.Invalid
	case http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return errs.Limited
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return errs.Unavailable // the sidecar's settings are wrong, and not the request that it works for
	case http.StatusTooManyRequests:
		return errs.Limited
	}
	return errs.Unavailable
}

// ReloadConfig asks Prometheus to read its configuration and rules again. The error has what Prometheus says is wrong
// with them.
func (c *Client) ReloadConfig(ctx context.Context) error {
	resp, err := c.do(ctx, http.MethodPost, c.address("/-/reload", nil), nil, nil)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorText))
	return resp.Body.Close()
}

// Where is the address of Prometheus, without a password.
func (c *Client) Where() string { return c.base.Redacted() }
