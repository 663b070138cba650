package httpx

import "crypto/tls"

// ServerConfig checks the files once and returns a configuration that reads them again for each connection: TLS for
// servers of other packages (gRPC). It is nil without TLS.
func (o TLSOptions) ServerConfig() (*tls.Config, error) {
	if !o.enabled() {
		return nil, nil
	}
	return o.config()
}
