package httpx

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

var quiet = slog.New(slog.DiscardHandler)

func testOptions() Options {
	o := DefaultOptions()
	o.Address = "127.0.0.1:0"
	return o
}

// open starts a server whose route / says hello; it is closed at the end of the test.
func open(t *testing.T, opts Options, routes ...func(*Server)) *Server {
	t.Helper()
	s := New(quiet, nil, opts)
	handle(s, "/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	for _, route := range routes {
		route(s)
	}
	if err := s.Open(t.Context(), func(err error) { t.Error("listener failed:", err) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// get returns status and body of one request on a connection of its own.
func get(t *testing.T, url string, config *tls.Config, user ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(user) == 2 {
		r.SetBasicAuth(user[0], user[1])
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// authority is a CA made for one test; its files are in dir.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.issue(t, "ca")
	return a
}

// issue writes <name>.crt and <name>.key for 127.0.0.1, signed by the CA; the first one is the CA itself.
func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  a.cert == nil,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if a.cert == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		a.key = key
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	a.write(t, name+".crt", string(certPEM))
	a.write(t, name+".key", string(keyPEM))
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(a.file(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return a.file(name)
}

// client trusts the CA and shows certs.
func (a *authority) client(certs ...tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, Certificates: certs}
}

func TestWebConfigTLSAndBasicAuth(t *testing.T) {
	ca := newAuthority(t)
	ca.issue(t, "server")
	hash, err := bcrypt.GenerateFromPassword([]byte("ember"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	opts := withWebConfig(t, ca.write(t, "web.yml", fmt.Sprintf(
		"tls_server_config: {cert_file: server.crt, key_file: server.key}\nbasic_auth_users: {anna: %q}\n"+
			"http_server_config: {headers: {X-Frame-Options: deny}}\n", hash)))
	url := "https://" + open(t, opts).Addr() + "/"

	if code, body := get(t, url, ca.client(), "anna", "ember"); code != 200 || body != "hello" {
		t.Errorf("right password: %d %q", code, body)
	}
	if code, _ := get(t, url, ca.client(), "anna", "ash"); code != 401 {
		t.Errorf("wrong password: %d, want 401", code)
	}
	if code, _ := get(t, url, ca.client()); code != 401 {
		t.Errorf("no password: %d, want 401", code)
	}
	if code, body := get(t, url, &tls.Config{}); code != 0 || !strings.Contains(body, "unknown authority") {
		t.Errorf("client that does not know the CA: %d %q", code, body)
	}
	if code, _ := get(t, strings.Replace(url, "https", "http", 1), nil); code != 400 {
		t.Errorf("plain HTTP on a TLS port: %d, want 400", code)
	}
}

// withWebConfig are the options of a server with a web configuration.
func withWebConfig(t *testing.T, file string) Options {
	t.Helper()
	o := testOptions()
	o.WebConfig, o.Auth = true, NewAuth(quiet, nil, AuthOptions{WebConfigFile: file, Interval: time.Hour})
	if err := o.Auth.Reload(); err != nil {
		t.Fatal(err)
	}
	return o
}

// A web configuration that is wrong keeps a process from starting; the error names the file and no secret.
func TestWebConfigFaults(t *testing.T) {
	ca := newAuthority(t)
	ca.issue(t, "server")
	f := func(file string, words ...string) {
		t.Helper()
		err := NewAuth(quiet, nil, AuthOptions{WebConfigFile: file, Interval: time.Hour}).Reload()
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v: want %q, and no secret", err, w)
			}
		}
	}
	f(ca.file("absent.yml"), "absent.yml", "no such file")
	f(ca.write(t, "bad.yml", "tls_server: {}\n"), "bad.yml", "tls_server")
	f(ca.write(t, "half.yml", "tls_server_config: {cert_file: server.crt}\n"), "half.yml", "key")
	f(ca.write(t, "list.yml", "basic_auth_users: [s3cret]\n"), "list.yml")
	f(ca.write(t, "text.yml", "basic_auth_users: s3cret\n"), "text.yml")
	f(ca.write(t, "anchor.yml", "basic_auth_users: {a: *s3cret}\n"), "anchor.yml")
	f(ca.write(t, "plain.yml", "basic_auth_users: {a: s3cret}\n"), "plain.yml")
}

func TestMutualTLSByFiles(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	ca.issue(t, "server")
	client, foreign := ca.issue(t, "client"), stranger.issue(t, "client")
	opts := testOptions()
	opts.TLS = TLSOptions{CertFile: ca.file("server.crt"), KeyFile: ca.file("server.key"), ClientCAFile: ca.file("ca.crt")}
	var seen string
	s := open(t, opts, func(s *Server) {
		handle(s, "/who", func(_ http.ResponseWriter, r *http.Request) {
			seen = r.TLS.PeerCertificates[0].Subject.CommonName + " " + r.Proto
		})
	})
	url := "https://" + s.Addr() + "/who"

	if code, body := get(t, url, ca.client(client)); code != 200 || seen != "client HTTP/2.0" {
		t.Errorf("known client: %d %q, seen %q", code, body, seen)
	}
	if code, body := get(t, url, ca.client()); code != 0 {
		t.Errorf("client without certificate: %d %q, want refusal", code, body)
	}
	if code, body := get(t, url, ca.client(foreign)); code != 0 {
		t.Errorf("client of another CA: %d %q, want refusal", code, body)
	}
	old := ca.client(client)
	old.MaxVersion = tls.VersionTLS12
	if code, body := get(t, url, old); code != 0 {
		t.Errorf("TLS 1.2: %d %q, want refusal", code, body)
	}

	// A renewed certificate is used without a restart: here one of another CA.
	ca.write(t, "server.crt", read(t, stranger.file("client.crt")))
	ca.write(t, "server.key", read(t, stranger.file("client.key")))
	if code, body := get(t, url, stranger.client(client)); code != 200 {
		t.Errorf("after renewal: %d %q", code, body)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOpenErrors(t *testing.T) {
	ca := newAuthority(t)
	ca.issue(t, "server")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	f := func(change func(*Options), want ...string) {
		t.Helper()
		opts := testOptions()
		change(&opts)
		s := New(quiet, nil, opts)
		err := s.Open(t.Context(), func(error) {})
		if err == nil {
			t.Errorf("opened, want an error with %q", want)
		}
		for _, w := range want {
			if err != nil && !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close after a failed Open: %v", err)
		}
	}
	f(func(o *Options) { o.Address = taken.Addr().String() }, "--http-address", taken.Addr().String(),
		"address already in use")
	f(func(o *Options) { o.Address, o.AddressFlag = "nonsense", "--remote-write.address" }, "--remote-write.address",
		`"nonsense"`)
	f(func(o *Options) { o.WebConfig = true }, "web configuration")
	f(func(o *Options) { o.TLS.CertFile = ca.file("server.crt") }, "key")
	f(func(o *Options) { o.TLS.ClientCAFile = ca.file("ca.crt") }, "client CA needs a server certificate")
	f(func(o *Options) { o.TLS = TLSOptions{CertFile: ca.file("server.crt"), KeyFile: ca.file("ca.key")} }, "server.crt",
		"ca.key")
	f(func(o *Options) {
		o.TLS = TLSOptions{CertFile: ca.file("server.crt"), KeyFile: ca.file("server.key"),
			ClientCAFile: ca.file("server.key")}
	}, "server.key", "no PEM certificate")
	f(func(o *Options) {
		o.TLS = TLSOptions{MinVersion: "2", Ciphers: []string{"ROT13"}, Curves: []string{"round"}}
		o.GracePeriod = -time.Second
	}, "ROT13", `"2"`, "round", "grace period")
}

func TestCloseLetsRequestsFinish(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := open(t, testOptions(), func(s *Server) {
		handle(s, "/slow", func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-leave
			fmt.Fprint(w, "whole")
		})
	})
	type result struct {
		code int
		body string
	}
	got := make(chan result)
	go func() {
		resp, err := http.Get("http://" + s.Addr() + "/slow")
		if err != nil {
			got <- result{0, err.Error()}
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body) // a cut body shows in what was read
		got <- result{resp.StatusCode, string(body)}
	}()
	<-entered
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	awaitRefused(t, s.Addr()) // Close stopped the listener and now waits
	select {
	case <-closed:
		t.Fatal("Close did not wait for the request")
	default:
	}
	close(leave)
	if r := <-got; r.code != 200 || r.body != "whole" {
		t.Errorf("request under way at Close: %d %q", r.code, r.body)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func awaitRefused(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
	}
	t.Fatal("still accepting")
}

func TestCloseCutsOffAfterGracePeriod(t *testing.T) {
	opts := testOptions()
	opts.GracePeriod = 20 * time.Millisecond
	entered, ended := make(chan struct{}), make(chan error, 1)
	s := open(t, opts, func(s *Server) {
		handle(s, "/stuck", func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
			ended <- r.Context().Err()
		})
	})
	go func() {
		if resp, err := http.Get("http://" + s.Addr() + "/stuck"); err == nil {
			resp.Body.Close()
		}
	}()
	<-entered
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("context ended with %v", err)
		}
	default:
		t.Error("Close returned before the handler did")
	}
}

// A client that sends its body too slowly is cut off; one whose body has ended has all the time its work needs.
func TestBodyTimeout(t *testing.T) {
	opts := testOptions()
	opts.BodyTimeout = 50 * time.Millisecond
	bodies, late := make(chan error, 1), make(chan error, 1)
	s := open(t, opts, func(s *Server) {
		handle(s, "POST /body", func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			bodies <- err
		})
		handle(s, "POST /work", func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Error(err)
			}
			select {
			case <-r.Context().Done():
			case <-time.After(4 * opts.BodyTimeout):
			}
			late <- r.Context().Err()
		})
	})
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	if err := <-bodies; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("slow body: %v, want a deadline", err)
	}
	resp, err := http.Post("http://"+s.Addr()+"/work", "text/plain", strings.NewReader("all of it"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := <-late; err != nil {
		t.Errorf("work after the body ended by %v", err)
	}
}

func TestAdvice(t *testing.T) {
	var h Health
	h.AddAdvice("bucket", func() error { return errors.New("dark") })
	ask := func(url string, status int, want string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.serveReady(w, httptest.NewRequest(http.MethodGet, url, nil))
		if w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %d %s", url, w.Code, w.Body, status, want)
		}
	}
	ask("/-/ready", 200, "ready\n[!] bucket: dark\n")
	ask("/-/ready?format=json", 200, `"advisory":true,"error":"dark"`)
	h.AddCheck("tsdb", func() error { return errors.New("shut") })
	ask("/-/ready", 503, "not ready\n[!] bucket: dark\n[-] tsdb: shut\n")
}
