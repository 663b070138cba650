package httpx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// closeSlack is how long Close still waits for handlers after it cut their connections and ended their contexts.
const closeSlack = 5 * time.Second

// Server is one HTTP listener and its routes.
type Server struct {
	log     *slog.Logger
	opts    Options
	metrics *metrics
	mux     *http.ServeMux
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
	mux := http.NewServeMux()
	return &Server{
		log: log, opts: opts, metrics: newMetrics(reg, opts.Listener), mux: mux, cut: cut,
		http: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: opts.HeaderTimeout,
			IdleTimeout:       opts.IdleTimeout,
			MaxHeaderBytes:    opts.MaxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
			BaseContext:       func(net.Listener) context.Context { return base },
		},
		served: make(chan struct{}),
	}
}

// Open checks the options and the TLS files, binds the address and serves until Close. A failure of the listener later on
// goes to fail. The errors name the flag and the address.
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
	s.listener = l
	s.log.Info("listening", "address", l.Addr().String())
	go func() {
		defer close(s.served)
		err := serve(l)
		_ = l.Close() // serve closes it too, unless it returned before it began
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
	switch {
	case s.opts.WebConfigFile != "":
		if err := web.Validate(s.opts.WebConfigFile); err != nil {
			return nil, errs.E(errs.Invalid, "web configuration %s: %w", s.opts.WebConfigFile, err)
		}
		quiet := slog.New(levelFloor{s.log.Handler(), slog.LevelWarn})
		return func(l net.Listener) error {
			return web.Serve(l, s.http, &web.FlagConfig{WebConfigFile: &s.opts.WebConfigFile}, quiet)
		}, nil
	case s.opts.TLS.enabled():
		if s.http.TLSConfig, err = s.opts.TLS.config(); err != nil {
			return nil, errs.E(errs.Invalid, "TLS of %s: %w", s.opts.AddressFlag, err)
		}
		return func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }, nil
	}
	return s.http.Serve, nil
}

// Addr is the bound host:port, "" before Open.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Close stops accepting, waits up to the grace period for requests under way, then cuts the rest off. It may be called
// more than once, and without Open.
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
		s.log.Warn("requests cut off at the end of the grace period", "requests", s.running.Load(), "grace_period", s.opts.GracePeriod)
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

// awaitHandlers polls, since nothing but handlers that ignored their context for a whole grace period leads here.
func (s *Server) awaitHandlers() {
	for deadline := time.Now().Add(closeSlack); s.running.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}

// levelFloor drops what a library logs below a level.
type levelFloor struct {
	slog.Handler
	floor slog.Level
}

func (h levelFloor) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.floor && h.Handler.Enabled(ctx, l)
}
