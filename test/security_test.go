package test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// authority signs certificates for 127.0.0.1 and localhost, of servers and of clients.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its own certificate, PEM
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// sign makes a certificate and its key, as files.
func (a *authority) sign(name string) (certFile, keyFile string) {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+"-key.pem", "PRIVATE KEY", private)
}

// client trusts a and shows the certificate in the files, none when they are "".
func (a *authority) client(certFile, keyFile string) *http.Client {
	a.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	c := &tls.Config{RootCAs: roots}
	if certFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// try is do with another client: the body of an answer, and its status.
func try(c *http.Client, method, url string, header http.Header, body []byte) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func basicAuth(user, password string) http.Header {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header
}

// TestWebConfig: TLS and basic auth of the HTTP port cover whatever is served there.
func TestWebConfig(t *testing.T) {
	t.Parallel()
	const password = "correct-horse-battery"
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t, "hearth test")
	cert, key := ca.sign("server")
	file := filepath.Join(t.TempDir(), "web.yml")
	text := fmt.Sprintf("tls_server_config:\n  cert_file: %s\n  key_file: %s\nbasic_auth_users:\n  anna: %s\n", cert, key,
		hash)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newPlainNode(t, "all", "all", "--http.config="+file)
	n.start()
	client := ca.client("", "")
	base, anna := "https://"+n.http, basicAuth("anna", password)
	eventually(t, 20*time.Second, func() error {
		code, body, err := try(client, http.MethodGet, base+"/-/ready", anna, nil)
		if code != 200 {
			return fmt.Errorf("%d %s %w", code, body, err)
		}
		return nil
	})

	now := time.Now()
	write := func(header http.Header) (int, string) {
		t.Helper()
		code, body, err := try(client, http.MethodPost, base+"/api/v1/receive", writeHeader(header),
			writeBody("tls", 1, now.UnixMilli()))
		if err != nil {
			t.Fatal(err)
		}
		return code, body
	}
	query := base + "/api/v1/query?" + url.Values{"query": {"load"}, "time": {seconds(now.Add(time.Second))}}.Encode()
	for name, header := range map[string]http.Header{
		"nobody": nil, "a wrong password": basicAuth("anna", "wrong-horse"), "an unknown user": basicAuth("otto", password),
	} {
		if code, body := write(header); code != 401 {
			t.Errorf("a write by %s: %d %s, want 401", name, code, body)
		}
		for _, path := range []string{"/", "/metrics", "/-/ready", "/api/v1/status/flags", "/debug/pprof/cmdline", "/api/v1/query?query=1"} {
			if code, body, err := try(client, http.MethodGet, base+path, header, nil); code != 401 {
				t.Errorf("%s by %s: %d %s %v, want 401", path, name, code, body, err)
			}
		}
	}
	if code, body, err := try(client, http.MethodGet, query, anna, nil); code != 200 ||
		!strings.Contains(body, `"result":[]`) {
		t.Errorf("what was refused is there: %d %s %v", code, body, err)
	}
	if code, body := write(anna); code/100 != 2 {
		t.Fatalf("a write with the right password: %d %s", code, body)
	}
	if code, body, err := try(client, http.MethodGet, query, anna, nil); code != 200 ||
		!strings.Contains(body, `"job":"tls"`) {
		t.Errorf("query: %d %s %v", code, body, err)
	}
	if code, body, err := try(client, http.MethodGet, base+"/metrics", anna, nil); code != 200 ||
		!strings.Contains(body, "hearth_build_info") {
		t.Errorf("/metrics: %d %.200s %v", code, body, err)
	}
	if _, err := get("http://"+n.http+"/metrics", anna); err == nil {
		t.Error("plain HTTP is answered on the TLS port")
	}
	if _, err := (&http.Client{Timeout: 10 * time.Second}).Get(base + "/metrics"); err == nil {
		t.Error("a client that does not know the authority gets an answer: the test shows nothing")
	}
	for _, port := range []string{"--remote-write.address", "--grpc-address"} {
		if !strings.Contains(n.output(), " port="+port+" secured_by=") {
			t.Errorf("nobody is told that %s is open", port)
		}
	}
	_, flags, err := try(client, http.MethodGet, base+"/api/v1/status/flags", anna, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{password, string(hash), "wrong-horse"} {
		if strings.Contains(n.output(), secret) || strings.Contains(flags, secret) {
			t.Errorf("%q is in the log or the flags", secret)
		}
	}
}

// TestRemoteWriteTLS: the remote-write port by its own flags, with client certificates, that change while it runs.
func TestRemoteWriteTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "hearth test"), newAuthority(t, "somebody")
	cert, key := ca.sign("server")
	n := newPlainNode(t, "receive", "receive", "--remote-write.server-tls-cert="+cert,
		"--remote-write.server-tls-key="+key, "--remote-write.server-tls-client-ca="+ca.file)
	n.start()
	n.waitReady()
	write := func(c *http.Client, scheme string) (int, error) {
		code, _, err := try(c, http.MethodPost, scheme+"://"+n.write+"/api/v1/receive", writeHeader(nil),
			writeBody("tls", 1, time.Now().UnixMilli()))
		return code, err
	}
	if code, err := write(ca.client(ca.sign("sender")), "https"); code/100 != 2 {
		t.Errorf("with a client certificate: %d %v", code, err)
	}
	if code, err := write(ca.client("", ""), "https"); err == nil {
		t.Errorf("without a client certificate: %d", code)
	}
	stranger, strangerKey := other.sign("sender")
	if code, err := write(ca.client(stranger, strangerKey), "https"); err == nil {
		t.Errorf("with the certificate of another authority: %d", code)
	}
	if code, _ := write(httpClient, "http"); code/100 == 2 {
		t.Error("plain HTTP is taken on the TLS port")
	}
	// A renewed authority: the new files count from the next connection on, without a restart.
	for from, to := range map[string]string{other.file: ca.file} {
		renewed, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, renewed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, err := write(ca.client(stranger, strangerKey), "https"); code/100 != 2 {
		t.Errorf("with a certificate of the renewed authority: %d %v", code, err)
	}
}

// TestGRPCTLS: between processes only certificates of the cluster's authority count, for writes and for reads.
func TestGRPCTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "hearth test"), newAuthority(t, "somebody")
	server := func(a *authority, name string) []string {
		cert, key := a.sign(name)
		return []string{"--grpc-server-tls-cert=" + cert, "--grpc-server-tls-key=" + key,
			"--grpc-server-tls-client-ca=" + a.file}
	}
	client := func(a *authority, name string) []string {
		cert, key := a.sign(name)
		return []string{"--grpc-client-tls-secure", "--grpc-client-tls-cert=" + cert, "--grpc-client-tls-key=" + key,
			"--grpc-client-tls-ca=" + ca.file}
	}
	r := newPlainNode(t, "receive", "receive", append(server(ca, "receive"), client(ca, "receive-client")...)...)
	ring := fmt.Sprintf(`--receive.hashrings=[{"endpoints":[%q]}]`, r.grpc)
	member := func(name, role string, more ...string) *node {
		if role == "distributor" {
			more = append(more, ring)
		} else {
			more = append(more, "--endpoint="+r.grpc)
		}
		return newPlainNode(t, name, role, more...)
	}
	noCert := []string{"--grpc-client-tls-secure", "--grpc-client-tls-ca=" + ca.file}
	d := member("distributor", "distributor", append(server(ca, "distributor"), client(ca, "distributor-client")...)...)
	q := member("query", "query", append(server(ca, "query"), client(ca, "query-client")...)...)
	strangers := map[string][]*node{
		"write": {member("w-plain", "distributor"), member("w-nocert", "distributor", noCert...),
			member("w-other", "distributor", client(other, "w")...)},
		"read": {member("q-plain", "query"), member("q-nocert", "query", noCert...),
			member("q-other", "query", client(other, "q")...)},
	}
	all := append(append([]*node{r, d, q}, strangers["write"]...), strangers["read"]...)
	for _, n := range all {
		n.start()
	}
	for _, n := range all {
		n.waitReady()
	}
	now := time.Now()
	write := func(n *node, job string) error {
		_, err := do(http.MethodPost, n.url("/api/v1/receive"), writeHeader(nil), writeBody(job, 1, now.UnixMilli()))
		return err
	}
	jobs := func(n *node) (string, error) {
		ans, err := n.api("default-tenant").query("count by (job) (load)", now.Add(time.Second))
		return string(ans.Data) + strings.Join(ans.Warnings, " "), err
	}
	eventually(t, 20*time.Second, func() error { return write(d, "ours") })
	for _, n := range strangers["write"] {
		if err := write(n, n.name); status(err) != 503 {
			t.Errorf("a write through %s: %v, want 503", n.name, err)
		}
	}
	eventually(t, 20*time.Second, func() error {
		got, err := jobs(q)
		if err != nil || !strings.Contains(got, `"ours"`) || strings.Contains(got, `"w-`) {
			return fmt.Errorf("%s %w", got, err)
		}
		return nil
	})
	for _, n := range strangers["read"] {
		if got, err := jobs(n); err == nil && (strings.Contains(got, "ours") || !strings.Contains(got, r.grpc)) {
			t.Errorf("%s reads %s; it should get nothing, and be told what did not answer", n.name, got)
		}
	}
}

// TestSilentSenders: hundreds of bodies that never come, of whatever size they claim to be, keep nobody from writing.
func TestSilentSenders(t *testing.T) {
	n := newPlainNode(t, "all", "all", "--self-scrape.interval=0s")
	n.start()
	n.waitReady()
	for i := range 600 {
		conn, err := net.Dial("tcp", n.http)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn,
			"POST /api/v1/receive HTTP/1.1\r\nHost: x\r\nTHANOS-TENANT: t%d\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\nContent-Length: 4000000\r\n\r\n",
			i)
	}
	eventually(t, 8*time.Second, func() error { // they are cut off after ten
		b, err := get(n.url("/metrics"), nil)
		if err != nil ||
			!strings.Contains(string(b), `hearth_http_inflight_requests{handler="/api/v1/receive",listener="http"} 600`) {
			return fmt.Errorf("not all requests have begun: %w", err)
		}
		return nil
	})
	wantWrite(t, httpClient, n.url(""), nil, writeBody("calm", 1, time.Now().UnixMilli()), 204)
	eventually(t, 60*time.Second, func() error {
		b, err := get(n.url("/metrics"), nil)
		if err != nil ||
			!strings.Contains(string(b), `hearth_http_inflight_requests{handler="/api/v1/receive",listener="http"} 0`) {
			return fmt.Errorf("they are not cut off: %w", err)
		}
		return nil
	})
}

// TestSecrets: keys of object storage show nowhere, wherever they were given.
func TestSecrets(t *testing.T) {
	t.Parallel()
	endpoint := addr(freePorts(t, 1)[0])
	yaml := fmt.Sprintf("type: S3\nconfig:\n  bucket: metrics\n  endpoint: %s\n  access_key: THEACCESSKEY\n  secret_key: %s\n  insecure: true\n  region: us-east-1\n",
		endpoint, s3Secret)
	file := filepath.Join(t.TempDir(), "hearth.yml")
	indented := "objstore.config: |\n  " + strings.ReplaceAll(strings.TrimSpace(yaml), "\n", "\n  ") + "\n"
	if err := os.WriteFile(file, []byte(indented), 0o600); err != nil {
		t.Fatal(err)
	}
	nodes := map[string]*node{}
	for name, given := range map[string]struct{ args, env []string }{
		"flag":     {args: []string{"--objstore.config=" + yaml}},
		"two args": {args: []string{"--objstore.config", yaml}},
		"env":      {env: []string{"HEARTH_OBJSTORE_CONFIG=" + yaml}},
		"file":     {args: []string{"--config.file=" + file}},
	} {
		n := newPlainNode(t, "store", "store", append(given.args, "--log.level=debug")...)
		n.process = start(t, "store", hearthBinary, given.env, n.args...)
		nodes[name] = n
	}
	for name, n := range nodes {
		eventually(t, 20*time.Second, func() error {
			_, err := get(n.url("/-/ready"), nil)
			if status(err) != 503 || !strings.Contains(err.Error(), endpoint) {
				return fmt.Errorf("the configuration given as %s is not in use: %w", name, err)
			}
			return nil
		})
		for _, path := range []string{"/api/v1/status/flags", "/-/ready?verbose", "/-/ready?format=json", "/metrics", "/debug/pprof/cmdline"} {
			code, body, err := try(httpClient, http.MethodGet, n.url(path), nil, nil)
			if err != nil || code == 404 {
				t.Fatalf("%s: %d %v", path, code, err)
			}
			if strings.Contains(body, s3Secret) || strings.Contains(body, "THEACCESSKEY") {
				t.Errorf("given as %s, the key is in %s: %s", name, path, body)
			}
		}
		n.stop(20 * time.Second)
		if strings.Contains(n.output(), s3Secret) || strings.Contains(n.output(), "THEACCESSKEY") {
			t.Errorf("given as %s, the key is in the log", name)
		}
	}
	for _, wrong := range []string{"secret_key: *" + s3Secret, "insecure: " + s3Secret} {
		refuses(t, nil,
			[]string{"store", "--data-dir=" + t.TempDir(), "--objstore.config=type: S3\nconfig: {bucket: b, " + wrong + "}"},
			"--objstore.config:")
	}
	p := start(t, "typo", hearthBinary, nil, "store", "--objstore.config="+strings.Replace(yaml, "bucket:", "buckte:", 1))
	if p.wait(20*time.Second) == 0 || !strings.Contains(p.output(), "buckte") || strings.Contains(p.output(), s3Secret) {
		t.Errorf("a typing error is answered with\n%s", p.output())
	}
}
