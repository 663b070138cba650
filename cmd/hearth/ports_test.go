package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// certificateFiles are a certificate of its own authority and its key.
func certificateFiles(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return file("cert.pem", "CERTIFICATE", der), file("key.pem", "PRIVATE KEY", secret)
}

// warnedPorts builds the role without starting it, and returns "port secured_by" of each warning about a port.
func warnedPorts(t *testing.T, args []string) (warned []string, p *process) {
	t.Helper()
	for i, arg := range args {
		args[i] = strings.Replace(arg, "--log.level=error", "--log.level=warn", 1)
	}
	app, setups := commands()
	command, err := app.Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p = newProcess(app, command, &bytes.Buffer{}, &log)
	if err := setups[command](p); err != nil {
		t.Fatal(err)
	}
	p.warnOpenPorts()
	for line := range strings.Lines(log.String()) {
		if _, about, ok := strings.Cut(line, " port=--"); ok {
			port, flag, _ := strings.Cut(strings.TrimSpace(about), " secured_by=--")
			warned = append(warned, port+" "+flag)
		}
	}
	slices.Sort(warned)
	return warned, p
}

// TestOpenPorts: a process says which of its ports are more open than another one, and names no port that is not.
func TestOpenPorts(t *testing.T) {
	cert, key := certificateFiles(t)
	web := func(text string) string {
		path := filepath.Join(t.TempDir(), "web.yml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "--http.config=" + path
	}
	tls := "tls_server_config: {cert_file: " + cert + ", key_file: " + key + "}\n"
	mutual := "tls_server_config: {cert_file: " + cert + ", key_file: " + key + ", client_ca_file: " + cert + ", client_auth_type: RequireAndVerifyClientCert}\n"
	password := "basic_auth_users: {anna: $2a$04$0123456789012345678901uO3yUO9RzWQ5sSJYZqA5r8t3WnZb0eG}\n"
	files := func(prefix string) []string {
		return []string{"--" + prefix + "-cert=" + cert, "--" + prefix + "-key=" + key}
	}
	httpTLS, writeTLS, grpcTLS := []string{web(tls)}, files("remote-write.server-tls"), files("grpc-server-tls")
	grpcMutual := append(files("grpc-server-tls"), "--grpc-server-tls-client-ca="+cert)
	gossipTLS := append(files("gossip.tls"), "--gossip.tls-enabled")
	users := []string{"--auth.tenants-file=" + usersFile(t)}
	const (
		grpcOpen, grpcPlain     = "grpc-address grpc-server-tls-client-ca", "grpc-address grpc-server-tls-cert"
		writeOpen, writePlain   = "remote-write.address auth.tenants-file", "remote-write.address remote-write.server-tls-cert"
		httpOpen, httpPlain     = "http-address auth.tenants-file", "http-address http.config"
		gossipPlain, everything = "gossip.address gossip.tls-enabled", "all"
	)
	f := func(role string, flags [][]string, want ...string) {
		t.Helper()
		got, _ := warnedPorts(t, append(roleArgs(t, role), slices.Concat(flags...)...))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s %q: warned of %q, want %q", role, slices.Concat(flags...), got, want)
		}
	}
	for _, role := range roles {
		f(role, nil)
	}
	f(everything, [][]string{httpTLS}, grpcPlain, gossipPlain, writePlain)
	f(everything, [][]string{httpTLS, writeTLS}, grpcPlain, gossipPlain)
	f(everything, [][]string{httpTLS, writeTLS, grpcTLS, gossipTLS})
	f(everything, [][]string{writeTLS}, grpcPlain, gossipPlain, httpPlain)
	f(everything, [][]string{users}, grpcOpen)
	f(everything, [][]string{users, grpcMutual}, gossipPlain, httpPlain, writePlain)
	f(everything, [][]string{users, httpTLS, writeTLS, grpcMutual, gossipTLS})
	f(everything, [][]string{{web(password)}}, grpcOpen, writeOpen)
	f(everything, [][]string{{web(password)}, users}, grpcOpen)
	f(everything, [][]string{{web(mutual)}, writeTLS, grpcTLS, gossipTLS}, grpcOpen, writeOpen)
	f("receive", [][]string{grpcMutual}, gossipPlain, httpOpen, httpPlain, writeOpen, writePlain)
	f("store", [][]string{users}, grpcOpen)
	f("query", [][]string{grpcMutual, gossipTLS}, httpOpen, httpPlain)
}

// TestWelcome: the address to open, and the one to paste, are ones that answer.
func TestWelcome(t *testing.T) {
	cert, key := certificateFiles(t)
	web := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(web, []byte("tls_server_config: {cert_file: "+cert+", key_file: "+key+"}\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	f := func(want string, not string, flags ...string) {
		t.Helper()
		_, p := warnedPorts(t, append(roleArgs(t, "all"), flags...))
		p.welcome(p.listeners[0].Guard(), "0.0.0.0:10902", "data")
		if out := p.stdout.(*bytes.Buffer).String(); !strings.Contains(out, want) || strings.Contains(out, not) {
			t.Errorf("%q: %s", flags, out)
		}
	}
	f("url: http://localhost:10902/api/v1/receive", "https:")
	f("url: https://localhost:10902/api/v1/receive", "http:", "--http.config="+web)
	f("authorization", "https:", "--auth.tenants-file="+usersFile(t))
}
