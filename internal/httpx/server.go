package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// closeSlack is how long Close still waits for handlers after it has cut their connections and ended their contexts.
const closeSlack = 5 * time.Second

// Server is one HTTP listener and its routes.
type Server struct {
	log     *slog.Logger
	opts    Options
	metrics *metrics
	lock    lock
	mux     *http.ServeMux
	routes  []Route
	http    *http.Server
	cut     context.CancelFunc // ends the contexts of all requests
	running atomic.Int64       // handlers under way

	listener net.Listener // set by Open
	served   chan struct{}
	once     sync.Once
	closeErr error
}

// New returns a server without routes. reg may be nil. Faults in opts are reported by Open.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) *Server {
	log = log.With("listener", opts.Listener)
	base, cut := context.WithCancel(context.Background())
	s := &Server{log: log, opts: opts, metrics: newMetrics(reg, opts.Listener), mux: http.NewServeMux(), cut: cut,
		served: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: opts.HeaderTimeout,
		IdleTimeout:       opts.IdleTimeout,
		MaxHeaderBytes:    opts.MaxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: opts.MaxStreams,
			SendPingTimeout:      opts.AnswerTimeout,
			PingTimeout:          opts.AnswerTimeout,
			WriteByteTimeout:     opts.AnswerTimeout,
		},
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return base },
	}
	s.lock.certificate = func() bool { return opts.TLS.ClientCAFile != "" }
	if opts.WebConfig {
		s.lock.password = func() bool { c := opts.Auth.webConfig(); return c != nil && len(c.passwords) > 0 }
		s.lock.certificate = func() bool { c := opts.Auth.webConfig(); return c != nil && c.demandsCertificates() }
	}
	return s
}

// Open checks the options and the TLS files, binds the address and serves until Close. If the listener fails later,
// fail gets the error. The errors name the flag and the address.
func (s *Server) Open(ctx context.Context, fail func(error)) error {
	serve, err := s.prepare()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.opts.Address)
	if err != nil {
		return errs.E(errs.Unavailable, "%s: %w", s.opts.AddressFlag, err)
	}
	l = newBoundedListener(l, s.opts.MaxConnections, s.metrics)
	s.listener = l
	s.log.Info("listening", "address", l.Addr().String())
	go func() {
		defer close(s.served)
		err := serve(l)
		_ = l.Close() // serve closes it too, except when it fails before it begins
		if !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("%s %s: %w", s.opts.AddressFlag, l.Addr(), err))
		}
	}()
	return nil
}

// prepare checks all that Open can check before it binds, and returns how to serve a listener.
func (s *Server) prepare() (serve func(net.Listener) error, err error) {
	if err := s.opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if s.opts.WebConfig {
		if err := s.useWebConfig(); err != nil {
			return nil, err
		}
	}
	if s.opts.TLS.enabled() {
		if s.http.TLSConfig, err = s.opts.TLS.config(); err != nil {
			return nil, errs.E(errs.Invalid, "TLS of %s: %w", s.opts.AddressFlag, err)
		}
	}
	if s.http.TLSConfig == nil {
		return s.http.Serve, nil
	}
	return func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }, nil
}

// useWebConfig takes TLS from the web configuration. Each new connection uses the configuration in force at that
// moment. Only whether there is TLS at all is decided now.
func (s *Server) useWebConfig() error {
	now := s.opts.Auth.webConfig()
	if now == nil {
		return errs.E(errs.Invalid, "%s: the web configuration has not been read", s.opts.AddressFlag)
	}
	t, err := now.tls()
	if err != nil {
		return errs.E(errs.Invalid, "TLS of %s: %w", s.opts.AddressFlag, err)
	}
	if t == nil {
		return nil
	}
	if !now.file.HTTPConfig.HTTP2 {
		s.http.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	t.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t, err := s.opts.Auth.webConfig().tls()
		if err == nil && t == nil {
			err = errors.New("the web configuration has no TLS any more: restart to serve plain HTTP")
		}
		return t, err
	}
	s.http.TLSConfig = t
	return nil
}

// Addr is the bound host:port, "" before Open.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Close stops accepting, waits up to the grace period for requests under way, then cuts off the others. It may be
// called more than once, and without Open.
func (s *Server) Close() error {
	s.once.Do(func() { s.closeErr = s.shutdown() })
	return s.closeErr
}

func (s *Server) shutdown() error {
	defer s.cut()
	if s.listener == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.GracePeriod)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("requests cut off at the end of the grace period",
			"requests", s.running.Load(), "grace_period", s.opts.GracePeriod)
		s.cut()
		err = s.http.Close()
		s.awaitHandlers()
	}
	<-s.served
	if err != nil {
		return fmt.Errorf("%s %s: %w", s.opts.AddressFlag, s.Addr(), err)
	}
	return nil
}

// awaitHandlers waits for the last handlers. It polls, which is good enough here: only handlers that used the whole
// grace period are waited for.
func (s *Server) awaitHandlers() {
	for deadline := time.Now().Add(closeSlack); s.running.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}
