package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/hearth-metrics/hearth/internal/httpx"
)

// clientCredentials checks the files once. Later connections read them again, so that renewed certificates need no
// restart.
func clientCredentials(o ClientTLS) (credentials.TransportCredentials, error) {
	if !o.Enabled {
		return insecure.NewCredentials(), nil
	}
	c, err := o.load()
	if err != nil {
		return nil, err
	}
	return &freshTLS{TransportCredentials: credentials.NewTLS(c), opts: o}, nil
}

// freshTLS is TLS by the files as they are at each handshake.
type freshTLS struct {
	credentials.TransportCredentials // of the first load, for all but handshakes
	opts                             ClientTLS
}

func (f *freshTLS) ClientHandshake(
	ctx context.Context, host string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	c, err := f.opts.load()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(c).ClientHandshake(ctx, host, conn)
}

func (f *freshTLS) Clone() credentials.TransportCredentials {
	return &freshTLS{TransportCredentials: f.TransportCredentials.Clone(), opts: f.opts}
}

func (o ClientTLS) load() (*tls.Config, error) {
	version, err := httpx.TLSVersion(o.MinVersion)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: o.ServerName, InsecureSkipVerify: o.SkipVerify, MinVersion: version}
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s, key %s: %w", o.CertFile, o.KeyFile, err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("server CA: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("server CA %s: holds no PEM certificate", o.CAFile)
		}
	}
	return c, nil
}
