package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// gateway is what a store gateway says of blocks; it knows no others.
type gateway map[ulid.ULID]series.BlockState

func (g gateway) BlockStates(ids []ulid.ULID) []series.BlockState {
	out := make([]series.BlockState, len(ids))
	for i, id := range ids {
		out[i] = g[id]
	}
	return out
}

func TestServed(t *testing.T) {
	a, b, c, d := ulid.ULID{1}, ulid.ULID{2}, ulid.ULID{3}, ulid.ULID{4}
	known, kept := series.BlockState{Known: true}, series.BlockState{Known: true, Served: true}
	owned := series.BlockState{Known: true, Served: true, Owned: true}
	addr := serve(t, func(s *Server) { RegisterServed(s, gateway{b: known, c: kept, d: owned}) })
	got, err := dial(t, addr, ClientOptions{}).BlockStates(t.Context(), []ulid.ULID{a, b, c, d, b})
	if err != nil || !slices.Equal(got, []series.BlockState{{}, known, kept, owned, known}) {
		t.Errorf("%v, %v", got, err)
	}
	none := serve(t, func(*Server) {})
	_, err = dial(t, none, ClientOptions{}).BlockStates(t.Context(), []ulid.ULID{a})
	if errs.KindOf(err) != errs.Unsupported {
		t.Errorf("a peer that is no gateway: %v", err)
	}
}

// TestServedByOlder: an older gateway says only what it serves, and it serves and keeps all that it knows.
func TestServedByOlder(t *testing.T) {
	f := func(want []series.BlockState, answer *hearthpb.ServedResponse) {
		t.Helper()
		addr := serve(t, func(s *Server) {
			s.grpc.RegisterService(service(serviceServed, "hearthpb/hearth.proto", []grpc.MethodDesc{
				unaryMethod(serviceServed, "Blocks", func(gateway, context.Context,
					*hearthpb.ServedRequest) (*hearthpb.ServedResponse, error) {
					return answer, nil
				}),
			}), gateway{})
		})
		got, err := dial(t, addr, ClientOptions{}).BlockStates(t.Context(), []ulid.ULID{{1}, {2}})
		if (err == nil) != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%v: %+v, %v", answer, got, err)
		}
	}
	all := series.BlockState{Known: true, Served: true, Owned: true}
	f([]series.BlockState{{}, all}, &hearthpb.ServedResponse{Served: []bool{false, true}})
	f(nil, &hearthpb.ServedResponse{Served: []bool{false}})
	f(nil, &hearthpb.ServedResponse{Served: []bool{false, true}, Known: []bool{true}, Owned: []bool{false, true}})
}

func TestHealthAndReflection(t *testing.T) {
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": &sourcetest.Memory{}}})
		RegisterWrite(s, writerFunc(stored), nil)
		RegisterServed(s, gateway{})
	})
	c := dialThanos(t, addr)
	h, err := grpc_health_v1.NewHealthClient(c.conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	r, err := grpc_reflection_v1.NewServerReflectionClient(c.conn).ServerReflectionInfo(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		t.Helper()
		if err := r.Send(req); err != nil {
			t.Fatal(err)
		}
		out, err := r.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// The services that this package describes by hand are those of the .proto files, method by method.
	list := ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	found := 0
	for _, s := range list.GetListServicesResponse().Service {
		if !strings.HasPrefix(s.Name, "thanos.") && !strings.HasPrefix(s.Name, "hearth.") {
			continue
		}
		found++
		out := ask(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.Name},
		})
		if files := out.GetFileDescriptorResponse().GetFileDescriptorProto(); len(files) == 0 {
			t.Errorf("%s is not described: %v", s.Name, out.GetErrorResponse())
		} else {
			var fd descriptorpb.FileDescriptorProto
			if err := proto.Unmarshal(files[0], &fd); err != nil {
				t.Error(err)
			}
			for _, described := range fd.Service {
				if fd.GetPackage()+"."+described.GetName() == s.Name {
					checkMethods(t, c.conn, s.Name, described)
				}
			}
		}
	}
	if found != 11 {
		t.Errorf("%d services of ours, want 11", found)
	}
}

func checkMethods(t *testing.T, conn *grpc.ClientConn, service string, d *descriptorpb.ServiceDescriptorProto) {
	t.Helper()
	for _, m := range d.Method {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+service+"/"+m.GetName())
		if err == nil {
			_ = s.CloseSend()
			err = s.RecvMsg(new(infopb.InfoRequest))
		}
		if status.Code(err) == codes.Unimplemented {
			t.Errorf("%s/%s is in the .proto and not served", service, m.GetName())
		}
		cancel()
	}
}

func TestPanicsAndMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	bomb := &sourcetest.Memory{Fail: func() error { panic("at the source") }, About: series.Info{MaxTime: 1}}
	s := newServer(t, ServerOptions{}, reg, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": quietInfo{bomb}}})
	})
	c := dial(t, s.Addr().String(), ClientOptions{Role: "receive"})
	r := &series.Request{Tenant: "a", Matchers: all()}
	if _, _, err := collect(t, c, r); errs.KindOf(err) != errs.Internal ||
		!strings.Contains(err.Error(), "panic: at the source") {
		t.Errorf("series: %v", err)
	}
	if _, _, err := c.LabelNames(context.Background(), r); errs.KindOf(err) != errs.Internal {
		t.Errorf("label names: %v", err)
	}
	if n := value(s.metrics.panics); n != 2 {
		t.Errorf("%v panics", n)
	}
	if n := value(s.metrics.handled.WithLabelValues("server_stream", "thanos.Store", "Series", "Internal")); n != 1 {
		t.Errorf("%v failed Series calls", n)
	}
	if n := value(s.metrics.started.WithLabelValues("server_stream", "thanos.Store", "Series")); n != 1 {
		t.Errorf("%v Series calls began", n)
	}
	if n := value(s.metrics.handled.WithLabelValues("unary", "thanos.info.Info", "Info", "OK")); n != 1 {
		t.Errorf("%v Info calls", n)
	}
}

func TestOptions(t *testing.T) {
	bad := ServerOptions{Address: "nowhere", GracePeriod: -1, TLS: httpx.TLSOptions{CertFile: "only"}}
	err := bad.Validate()
	for _, want := range []string{"host:port", "grace period", "max message bytes", "max streams", "key file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not mention %q", err, want)
		}
	}
	if _, err := NewServer(quiet, nil, bad); err == nil {
		t.Error("a server with bad options")
	}
	if err := DefaultServerOptions().Validate(); err != nil {
		t.Error(err)
	}
	if _, err := Dial("a:1", ClientOptions{TLS: ClientTLS{CertFile: "x", MinVersion: "1.0"}, BatchSize: -1}); err == nil {
		t.Error("a client with bad options")
	}
	if _, err := Dial("a:1", ClientOptions{TLS: ClientTLS{Enabled: true, CAFile: "/does/not/exist"}}); err == nil {
		t.Error("a client without its CA")
	}
	s, err := NewServer(quiet, nil, DefaultServerOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close before Open: %v", err)
	}
}

// TestMutualTLS also replaces the certificates while the processes run.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	issue(t, dir, "one")
	s := newServer(
		t,
		ServerOptions{
			TLS: httpx.TLSOptions{CertFile: file("server.pem"), KeyFile: file("server.key"), ClientCAFile: file("ca.pem")}},
		prometheus.NewRegistry(),
		func(s *Server) { RegisterServed(s, gateway{}) },
	)
	good := ClientTLS{Enabled: true, CAFile: file("ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key")}
	ask := func(o ClientTLS) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := dial(t, s.Addr().String(), ClientOptions{TLS: o}).BlockStates(ctx, nil)
		return err
	}
	if err := ask(good); err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]ClientTLS{
		"plaintext":             {},
		"no client certificate": {Enabled: true, CAFile: file("ca.pem")},
		"another name":          {Enabled: true, CAFile: file("ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key"), ServerName: "elsewhere"},
		"the system's CAs":      {Enabled: true, CertFile: file("client.pem"), KeyFile: file("client.key")},
	} {
		if err := ask(o); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	skip := good
	skip.CAFile, skip.SkipVerify = "", true
	if err := ask(skip); err != nil {
		t.Errorf("skip verify: %v", err)
	}
	issue(t, dir, "two")
	if err := ask(good); err != nil {
		t.Errorf("after the certificates were replaced: %v", err)
	}
}

// TestTLSFaultsSayWhatToDo: each way in which two processes do not agree about TLS names the flag to set.
func TestTLSFaultsSayWhatToDo(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	issue(t, dir, "one")
	issue(t, other, "two")
	in := func(dir, name string) string { return filepath.Join(dir, name) }
	none := httpx.TLSOptions{}
	server := httpx.TLSOptions{CertFile: in(dir, "server.pem"), KeyFile: in(dir, "server.key")}
	mutual := server
	mutual.ClientCAFile = in(dir, "ca.pem")
	client := ClientTLS{Enabled: true, CAFile: in(dir, "ca.pem")}
	stranger, misnamed := client, client
	stranger.CertFile, stranger.KeyFile = in(other, "client.pem"), in(other, "client.key")
	misnamed.ServerName = "elsewhere"
	f := func(what string, has httpx.TLSOptions, asks ClientTLS, want string) {
		t.Helper()
		s := newServer(t, ServerOptions{TLS: has}, prometheus.NewRegistry(), func(s *Server) { RegisterServed(s, gateway{}) })
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := dial(t, s.Addr().String(), ClientOptions{TLS: asks}).BlockStates(ctx, nil)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "desc =") {
			t.Errorf("%s: %v, want %q in it", what, err, want)
		}
	}
	f("neither", none, ClientTLS{}, "")
	f("both", server, client, "")
	f("client only", none, client, "--grpc-server-tls-cert is not set there")
	f("server only", server, ClientTLS{}, "--grpc-client-tls-secure here")
	f("no certificate", mutual, client, "--grpc-client-tls-cert")
	f("another authority's certificate", mutual, stranger, "--grpc-server-tls-client-ca")
	f("another authority", server, ClientTLS{Enabled: true, CAFile: in(other, "ca.pem")}, "--grpc-client-tls-ca")
	f("another name", server, misnamed, "--grpc-client-server-name")
}

// issue writes a CA and certificates signed by it for a server at 127.0.0.1 and a client.
func issue(t *testing.T, dir, name string) {
	t.Helper()
	write := func(file, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}),
			0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	template := func(n int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(n),
			Subject:      pkix.Name{CommonName: name},
			NotBefore:    time.Now().Add(-time.Hour),
			NotAfter:     time.Now().Add(time.Hour),
			IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	caKey, ca := key(), template(1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", der)
	for i, who := range []string{"server", "client"} {
		k := key()
		der, err := x509.CreateCertificate(rand.Reader, template(int64(2+i)), ca, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		write(who+".pem", "CERTIFICATE", der)
		raw, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		write(who+".key", "PRIVATE KEY", raw)
	}
}
