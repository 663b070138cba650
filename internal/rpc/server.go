package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Server is a gRPC port. Services are registered between NewServer and Open; health and reflection are always there.
type Server struct {
	log          *slog.Logger
	opts         ServerOptions
	metrics      *metrics
	grpc         *grpc.Server
	health       *health.Server
	names        *wire.SharedSeries // series that write streams call by number
	full         atomic.Int64       // when names was full last, Unix ms
	writing      budget             // of all write streams
	remote       budget             // of all RemoteWrite calls, apart since they may wait for write streams of others
	writeStreams streamCounter      // write streams
	tls          *tls.Config        // set by Open, when TLS is on

	lis     net.Listener
	closing chan struct{} // closed when Close begins: streams without an end of their own finish
	once    sync.Once
	wg      sync.WaitGroup
}

// NewServer returns a server that does not listen yet.
func NewServer(log *slog.Logger, reg prometheus.Registerer, opts ServerOptions) (*Server, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	names := wire.NewSharedSeries(opts.NameBytes)
	writing, remote := newBudget(opts.WriteBytes, streamParts), newBudget(opts.WriteBytes, remoteParts)
	// Otherwise small calls that hang could use all calls that a connection may have.
	remote.tenantMemory.least = opts.WriteBytes / int64(opts.MaxStreams)
	s := &Server{
		writing: writing, remote: remote, log: log, opts: opts, metrics: newMetrics(reg, names), names: names,
		health: health.NewServer(), closing: make(chan struct{}),
	}
	s.grpc = grpc.NewServer(s.grpcOptions()...)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	reflection.Register(s.grpc)
	return s, nil
}

func (s *Server) grpcOptions() []grpc.ServerOption {
	alive := keepalive.ServerParameters{MaxConnectionAge: s.opts.MaxConnectionAge, Time: aliveAfter, Timeout: aliveWithin}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(serverCodec{}),
		grpc.MaxRecvMsgSize(s.opts.MaxMessageBytes),
		grpc.MaxSendMsgSize(1<<31 - 1),
		grpc.MaxConcurrentStreams(s.opts.MaxStreams),
		grpc.KeepaliveParams(alive),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.InTapHandle(s.begin),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: s.opts.KeepaliveMinTime, PermitWithoutStream: true,
		}),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	}
	if s.opts.TLS.CertFile != "" {
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion:         tls.VersionTLS12, // the real one comes with the configuration per connection
			GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { return s.tls.GetConfigForClient(h) },
		})))
	}
	return options
}

// Flow control windows in bytes: what one stream, and one connection, may have in flight before the reader has read it.
const (
	streamWindow = 1 << 20
	connWindow   = 8 << 20
)

// Limits that find dead peers, and limits of a new connection.
const (
	// After aliveAfter of silence the server pings a peer, which must react within aliveWithin. The calls of a process
	// that was stopped or has disappeared hold their memory for no longer than both together.
	aliveAfter  = 15 * time.Second
	aliveWithin = 15 * time.Second
	// connectionTimeout bounds the handshakes of a new connection.
	connectionTimeout = 20 * time.Second
	// maxHeaders bounds the metadata of a call in bytes. It names one tenant, or some.
	maxHeaders = 64 << 10
)

// Open binds the port and serves until Close; fail is called when serving ends by itself.
func (s *Server) Open(ctx context.Context, fail func(error)) error {
	if s.opts.TLS.CertFile != "" {
		c, err := s.opts.TLS.ServerConfig()
		if err != nil {
			return err
		}
		s.tls = c
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", s.opts.Address)
	if err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	s.lis = lis
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	s.log.Info("listening", "listener", "grpc", "address", lis.Addr().String(), "tls", s.tls != nil)
	s.wg.Go(func() {
		if err := s.grpc.Serve(timedListener{lis, s.opts.SendTimeout}); err != nil {
			fail(fmt.Errorf("serve gRPC: %w", err))
		}
	})
	return nil
}

// Addr is the address that Open bound.
func (s *Server) Addr() net.Addr { return s.lis.Addr() }

// Close lets calls under way finish for the grace period, then cuts them off. It is idempotent.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.health.Shutdown()
		close(s.closing)
		cut := time.AfterFunc(s.opts.GracePeriod, s.grpc.Stop)
		s.grpc.GracefulStop()
		cut.Stop()
	})
	s.wg.Wait()
	return nil
}

func (s *Server) unary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (resp any, err error) {
	began := time.Now()
	s.metrics.began("unary", info.FullMethod)
	ctx, followed := s.follow(ctx, info.FullMethod)
	defer func() {
		err = s.end("unary", info.FullMethod, began, recover(), err)
		followed(err)
	}()
	return handle(ctx, req)
}

func (s *Server) stream(
	srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler,
) (err error) {
	kind := "server_stream"
	if info.IsClientStream {
		kind = "bidi_stream"
	}
	began := time.Now()
	s.metrics.began(kind, info.FullMethod)
	ctx, followed := s.follow(ss.Context(), info.FullMethod)
	defer func() {
		err = s.end(kind, info.FullMethod, began, recover(), err)
		followed(err)
	}()
	if ctx != ss.Context() {
		ss = &followedStream{ss, ctx}
	}
	return handle(srv, timedServer(ss))
}

// end makes a panic an error and the error a status, and counts the call.
func (s *Server) end(kind, method string, began time.Time, panicked any, err error) error {
	if panicked != nil {
		s.metrics.panics.Inc()
		s.log.Error("panic in a gRPC call", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		err = errs.E(errs.Internal, "panic: %v", panicked)
	}
	err = toStatus(err)
	s.metrics.ended(kind, method, err, time.Since(began))
	return err
}
