package httpx

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Options of a Server. DefaultOptions has the values that suit every role.
type Options struct {
	// Listener is the server's short name in metrics and logs: "http", "remote-write".
	Listener string
	// Address is the host:port to bind; port 0 picks a free one (see Server.Addr).
	Address string
	// AddressFlag is the flag that set Address, named in errors: "--http-address".
	AddressFlag string
	// WebConfigFile is an exporter-toolkit web configuration: TLS, basic auth, headers, rate limit. Users, certificates and
	// headers are read again when they change. "" = plain HTTP, or what TLS says.
	WebConfigFile string
	// TLS is TLS by explicit files instead of a WebConfigFile; its zero value is plain HTTP.
	TLS TLSOptions
	// GracePeriod is how long Close waits for requests under way before it cuts them off.
	GracePeriod time.Duration
	// HeaderTimeout bounds the reading of a request's header.
	HeaderTimeout time.Duration
	// BodyTimeout bounds the reading of a request's body, not the work on it; 0 = no bound.
	BodyTimeout time.Duration
	// IdleTimeout closes a connection without requests. It is above the 5 minutes of Prometheus's clients, so that they and
	// not we close first, and no request meets a closing connection.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the header, which holds the query of a GET.
	MaxHeaderBytes int
}

// DefaultOptions are the options of a role's main HTTP port, without TLS.
func DefaultOptions() Options {
	return Options{
		Listener:       "http",
		Address:        "0.0.0.0:10902",
		AddressFlag:    "--http-address",
		GracePeriod:    2 * time.Minute,
		HeaderTimeout:  10 * time.Second,
		BodyTimeout:    2 * time.Minute,
		IdleTimeout:    6 * time.Minute,
		MaxHeaderBytes: 256 << 10,
	}
}

// Validate reports every fault in o.
func (o Options) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		fault("%s %q: must be host:port", o.AddressFlag, o.Address)
	}
	if o.Listener == "" {
		fault("listener: must have a name")
	}
	for name, d := range map[string]time.Duration{"grace period": o.GracePeriod, "header timeout": o.HeaderTimeout,
		"body timeout": o.BodyTimeout, "idle timeout": o.IdleTimeout} {
		if d < 0 {
			fault("%s %s: must not be negative", name, d)
		}
	}
	if o.MaxHeaderBytes < 0 {
		fault("max header bytes %d: must not be negative", o.MaxHeaderBytes)
	}
	if o.WebConfigFile != "" && o.TLS.enabled() {
		fault("a web configuration file and TLS files are both set for %s: use one", o.AddressFlag)
	}
	return errors.Join(append(faults, o.TLS.Validate())...)
}
