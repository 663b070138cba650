package httpx

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hearth-metrics/hearth/internal/tracing"
)

// Options of a Server. DefaultOptions has the values that suit every role.
type Options struct {
	// Listener is the server's short name in metrics and logs: "http", "remote-write".
	Listener string
	// Address is the host:port to bind; port 0 picks a free one (see Server.Addr).
	Address string
	// AddressFlag is the flag that set Address, named in errors: "--http-address".
	AddressFlag string
	// Auth says who may use which routes; nil = every sender may use all of them.
	Auth *Auth
	// WebConfig: this listener uses the web configuration that Auth reads: its TLS, its headers and its rate limit. If it
	// has passwords, all requests need one. false = plain HTTP, or what TLS says.
	WebConfig bool
	// TLS is TLS by explicit files instead of a web configuration; its zero value is plain HTTP.
	TLS TLSOptions
	// Observer makes spans and lines in the log for the requests of all routes; nil = there are none.
	Observer *tracing.Observer
	// Started is closed when the process has started; until then only Route.Early routes work. nil = all work at once.
	Started <-chan struct{}
	// GracePeriod is how long Close waits for requests under way before it cuts them off.
	GracePeriod time.Duration
	// HeaderTimeout bounds the reading of a request's header.
	HeaderTimeout time.Duration
	// BodyTimeout bounds the reading of a request's body, not the work on it; 0 = no bound.
	BodyTimeout time.Duration
	// BodyWindow is a time in which BodyWindow*BodyRate more bytes of a body must come, or its end. So a body that has
	// stopped coming is given up long before BodyTimeout; 0 = no bound.
	BodyWindow time.Duration
	// BodyRate is in bytes per second.
	BodyRate int64
	// AnswerTimeout is how long a client may take nothing of its answer. It is also how far the client may be behind the
	// rate of SlowestClient, and on HTTP/2 how long it may not answer a ping. After that its connection is cut off.
	// 0 = no bound.
	AnswerTimeout time.Duration
	// IdleTimeout closes a connection without requests. It is longer than the 5 minutes of Prometheus's clients, so that
	// they close first. Otherwise a request could arrive at a connection that the server is closing.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the header, which holds the query of a GET.
	MaxHeaderBytes int
	// MaxConnections bounds the open connections, with and without a request; 0 = no bound. One client address can have at
	// most eight times as many as are free, so that it cannot take all.
	MaxConnections int
	// MaxStreams bounds the requests under way on one HTTP/2 connection.
	MaxStreams int
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
		BodyWindow:     10 * time.Second,
		BodyRate:       4 << 10,
		AnswerTimeout:  30 * time.Second,
		IdleTimeout:    6 * time.Minute,
		MaxHeaderBytes: 128 << 10,
		MaxConnections: 16384,
		MaxStreams:     100,
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
	for name, d := range map[string]time.Duration{
		"grace period": o.GracePeriod, "header timeout": o.HeaderTimeout, "body timeout": o.BodyTimeout,
		"body window": o.BodyWindow, "answer timeout": o.AnswerTimeout, "idle timeout": o.IdleTimeout,
	} {
		if d < 0 {
			fault("%s %s: must not be negative", name, d)
		}
	}
	for name, n := range map[string]int64{
		"max header bytes": int64(o.MaxHeaderBytes), "max connections": int64(o.MaxConnections),
		"max streams": int64(o.MaxStreams), "body rate": o.BodyRate,
	} {
		if n < 0 {
			fault("%s %d: must not be negative", name, n)
		}
	}
	if o.WebConfig && o.TLS.enabled() {
		fault("a web configuration file and TLS files are both set for %s: use one", o.AddressFlag)
	}
	return errors.Join(append(faults, o.TLS.Validate())...)
}
