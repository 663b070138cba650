package gateway

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// Directory is the object store YAML of a directory.
func Directory(dir string) string {
	return fmt.Sprintf("type: FILESYSTEM\nconfig:\n  directory: %s\n", dir)
}

const (
	s3Key    = "benchkey"
	s3Secret = "benchsecret123"
)

// S3 is an S3 server over a directory, whose sub-directories are the buckets, behind a proxy that counts.
type S3 struct {
	proxy   *http.Server
	address string
	server  *server.Process

	mu     sync.Mutex // guards counts
	counts Counts
}

// StartS3 starts the versitygw binary on root, with its log in logs.
func StartS3(ctx context.Context, binary, root, logs string) (*S3, error) {
	ports, err := server.Ports(1)
	if err != nil {
		return nil, err
	}
	at := server.Address(ports[0])
	if err := os.Setenv("ROOT_ACCESS_KEY", s3Key); err != nil {
		return nil, err
	}
	if err := os.Setenv("ROOT_SECRET_KEY", s3Secret); err != nil {
		return nil, err
	}
	p, err := server.Start("s3", binary, logs, "--quiet", "--region", "us-east-1", "--port", at, "posix", root)
	if err != nil {
		return nil, err
	}
	s := &S3{server: p, counts: Counts{ByKind: map[string]float64{}}}
	err = server.Poll(ctx, 20*time.Second, func(context.Context) error {
		c, err := net.Dial("tcp", at)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("%w\n%s", err, p.Tail(20))
	}
	listener, err := net.Listen("tcp", server.Address(0))
	if err != nil {
		p.Kill()
		return nil, err
	}
	s.address = listener.Addr().String()
	target := &url.URL{Scheme: "http", Host: at}
	s.proxy = &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // a gateway lets go of a read that it made twice
				fmt.Fprintln(os.Stderr, "the S3 server:", err)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
		ModifyResponse: func(resp *http.Response) error {
			s.count(kindOf(resp.Request), 0)
			resp.Body = &countedBody{ReadCloser: resp.Body, s3: s}
			return nil
		},
	}}
	go func() { _ = s.proxy.Serve(listener) }() // it ends with Close
	return s, nil
}

// Config is the object store YAML of a bucket.
func (s *S3) Config(bucket string) string {
	return fmt.Sprintf("type: S3\nconfig:\n  bucket: %s\n  endpoint: %s\n  region: us-east-1\n  access_key: %s\n"+
		"  secret_key: %s\n  insecure: true\n", bucket, s.address, s3Key, s3Secret)
}

// Counts of all requests so far.
func (s *S3) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Counts{ByKind: maps.Clone(s.counts.ByKind), Bytes: s.counts.Bytes}
}

// Close ends the proxy and the server.
func (s *S3) Close() error {
	s.server.Kill()
	return s.proxy.Close()
}

func (s *S3) count(kind string, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind != "" {
		s.counts.ByKind[kind]++
	}
	s.counts.Bytes += float64(bytes)
}

// kindOf names a request as S3's price lists do.
func kindOf(r *http.Request) string {
	switch q := r.URL.Query(); {
	case r.Method == http.MethodGet && (q.Has("list-type") || q.Has("prefix")):
		return "LIST"
	case r.Method == http.MethodGet && q.Has("location"):
		return "LOCATION"
	case r.Method == http.MethodGet && r.Header.Get("Range") != "":
		return "GET range"
	}
	return r.Method
}

// countedBody counts what is read of it.
type countedBody struct {
	io.ReadCloser
	s3 *S3
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.s3.count("", n)
	return n, err
}
