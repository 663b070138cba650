package httpx

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
)

// TLSOptions is TLS by explicit files, as the flags --remote-write.server-tls-* name them. The files are read again for
// each connection, so that renewed certificates need no restart.
type TLSOptions struct {
	// CertFile and KeyFile are PEM files; both or neither.
	CertFile, KeyFile string
	// ClientCAFile is a PEM file of authorities. The server demands a client certificate that one of them signed; "" = the
	// server asks for none.
	ClientCAFile string
	// MinVersion is "1.0" to "1.3"; "" = "1.3".
	MinVersion string
	// Ciphers (up to TLS 1.2) and Curves by Go's names; empty = Go's defaults.
	Ciphers, Curves []string
}

var tlsVersions = map[string]uint16{
	"":    tls.VersionTLS13,
	"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
}

var tlsCurves = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

// TLSVersion is the number of a TLS version, "1.0" to "1.3"; "" is 1.3. Every other name is an error.
func TLSVersion(name string) (uint16, error) {
	v, ok := tlsVersions[name]
	if !ok {
		return 0, fmt.Errorf("TLS version %q: must be 1.0, 1.1, 1.2 or 1.3", name)
	}
	return v, nil
}

func (o TLSOptions) enabled() bool {
	return o.CertFile != "" || o.KeyFile != "" || o.ClientCAFile != ""
}

// Validate reports every fault that shows without reading the files.
func (o TLSOptions) Validate() error {
	var faults []error
	if (o.CertFile == "") != (o.KeyFile == "") {
		faults = append(faults, errors.New("TLS needs both a certificate and a key file"))
	}
	if o.ClientCAFile != "" && o.CertFile == "" {
		faults = append(faults, errors.New("a client CA needs a server certificate and key"))
	}
	if _, err := TLSVersion(o.MinVersion); err != nil {
		faults = append(faults, err)
	}
	_, err := o.ciphers()
	_, err2 := o.curves()
	return errors.Join(append(faults, err, err2)...)
}

// ServerConfig checks the files once and returns a configuration that reads them again for each connection, for the
// servers of other packages (gRPC). It is nil without TLS.
func (o TLSOptions) ServerConfig() (*tls.Config, error) {
	if !o.enabled() {
		return nil, nil
	}
	return o.config()
}

// config checks the files once and returns a configuration that loads them for each connection.
func (o TLSOptions) config() (*tls.Config, error) {
	if _, err := o.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		NextProtos:         []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return o.load() },
		// ServeTLS wants a certificate here; connections get theirs from GetConfigForClient.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("no certificate") },
	}, nil
}

func (o TLSOptions) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", o.CertFile, o.KeyFile, err)
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tlsVersions[o.MinVersion], NextProtos: []string{"h2", "http/1.1"},
	}
	if c.CipherSuites, err = o.ciphers(); err != nil {
		return nil, err
	}
	if c.CurvePreferences, err = o.curves(); err != nil {
		return nil, err
	}
	if o.ClientCAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(o.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client CA %s: holds no PEM certificate", o.ClientCAFile)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}

func (o TLSOptions) ciphers() ([]uint16, error) {
	var ids []uint16
	for _, name := range o.Ciphers {
		i := slices.IndexFunc(tls.CipherSuites(), func(c *tls.CipherSuite) bool { return c.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("TLS cipher %q is not known or not secure", name)
		}
		ids = append(ids, tls.CipherSuites()[i].ID)
	}
	return ids, nil
}

func (o TLSOptions) curves() ([]tls.CurveID, error) {
	var ids []tls.CurveID
	for _, name := range o.Curves {
		i := slices.IndexFunc(tlsCurves, func(c tls.CurveID) bool { return c.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("TLS curve %q: must be one of %v", name, tlsCurves)
		}
		ids = append(ids, tlsCurves[i])
	}
	return ids, nil
}
