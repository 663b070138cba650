package test

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// overloaded is a proxy in front of an S3 server that has too much to do: a share of the requests is answered with
// SlowDown, and a share of the objects that are read is cut off in the middle. Who asks the same again is helped at
// the third time, unless the share is 1.
type overloaded struct {
	mu           sync.Mutex // guards what follows
	rnd          *rand.Rand
	slow, cut    float64
	troubled     map[string]int // by request, since it was helped
	slowed, cuts int
	passed       int
}

// set changes the shares.
func (o *overloaded) set(slow, cut float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.slow, o.cut = slow, cut
}

// counts are how many requests were slowed down, how many objects were cut off, and how many requests passed.
func (o *overloaded) counts() (slowed, cuts, passed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.slowed, o.cuts, o.passed
}

// luck decides about one request.
func (o *overloaded) luck(r *http.Request) (slow, cut bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	same := r.Method + r.URL.String() + r.Header.Get("Range")
	helped := o.troubled[same] >= 2 && o.slow < 1
	slow = !helped && o.rnd.Float64() < o.slow
	cut = !helped && !slow && r.Method == http.MethodGet && r.URL.RawQuery == "" && o.rnd.Float64() < o.cut
	o.troubled[same]++
	switch {
	case slow:
		o.slowed++
	case cut:
		o.cuts++
	default:
		delete(o.troubled, same)
		o.passed++
	}
	return slow, cut
}

// slowDown is what S3 answers when it is asked too often.
const slowDown = `<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message><RequestId>1</RequestId></Error>`

// cutOff is a body that ends early, and not as a body ends.
type cutOff struct {
	io.ReadCloser
	left int64
}

func (c *cutOff) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// startOverloaded starts the proxy in front of an S3 server, and returns the address to use instead of that one.
func startOverloaded(t *testing.T, server string) (o *overloaded, address string) {
	t.Helper()
	o = &overloaded{rnd: rand.New(rand.NewPCG(5, 5)), troubled: map[string]int{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: server})
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorLog: log.New(io.Discard, "", 0), // bodies that are cut off
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Header.Get("X-Cut") != "" && resp.ContentLength > 1 {
				resp.Body = &cutOff{resp.Body, resp.ContentLength / 2}
			}
			return nil
		},
	}
	l := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slow, cut := o.luck(r)
		switch r.Header.Del("X-Cut"); {
		case slow:
			w.Header().Set("Retry-After", "1")
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, slowDown)
			return
		case cut:
			r.Header.Set("X-Cut", "yes")
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(l.Close)
	return o, strings.TrimPrefix(l.URL, "http://")
}

// TestSlowDown: of an S3 server that often says SlowDown, and cuts bodies off, a gateway has the same answers as of one
// that is well, without a warning. When it says nothing but SlowDown the gateway says so, names the object, and
// has no wrong answer. It has whole ones when that is over.
func TestSlowDown(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, s3Bucket)
	plan := blocks.DefaultPlan()
	plan.Blocks, plan.Tenants, plan.Interval = 12, 2, 5*time.Minute
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := blocks.Write(t.Context(), dir, plan); err != nil {
		t.Fatal(err)
	}
	endpoint, _ := startS3In(t, "127.0.0.1", root)
	o, proxied := startOverloaded(t, endpoint)
	o.set(0.4, 0.4)
	sick, err := gateway.Launch(gateway.Setup{Kind: gateway.Hearth, Binary: hearthBinary, Dir: t.TempDir(),
		Bucket: s3Config(proxied) + "  max_retries: 4\n", Flags: []string{"--sync-block-duration=1s"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sick.Process.Kill)
	if err := sick.WaitReady(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	well, ill := dialGateway(t, startGateway(t, gateway.Hearth, hearthBinary, dir)), dialGateway(t, sick)
	mint, maxt := plan.Range()
	requestOf := func(tenant, namespace int) *thanospb.SeriesRequest {
		return &thanospb.SeriesRequest{MinTime: mint, MaxTime: maxt, Matchers: []*thanospb.LabelMatcher{
			{Name: "tenant_id", Value: blocks.Tenant(tenant)}, {Name: "namespace", Value: blocks.Namespace(namespace)}}}
	}
	whole := func(req *thanospb.SeriesRequest) error {
		t.Helper()
		want, err := well.Series(t.Context(), req)
		if err != nil || len(want.Series) == 0 {
			t.Fatalf("%d series, %v", len(want.Series), err)
		}
		got, err := ill.Series(t.Context(), req)
		if err != nil || len(got.Warnings) > 0 {
			return fmt.Errorf("%v, warnings %q", err, got.Warnings)
		}
		if d := gateway.Difference(got, want); d != "" {
			t.Fatalf("a wrong answer: %s", d)
		}
		return nil
	}
	for namespace := range plan.Shape.Namespaces - 1 {
		if err := whole(requestOf(0, namespace)); err != nil {
			t.Errorf("namespace %d: %v", namespace, err)
		}
	}
	slowed, cuts, passed := o.counts()
	t.Logf("SlowDown %d, cut off %d, passed %d", slowed, cuts, passed)
	if slowed < 5 || cuts < 1 {
		t.Errorf("%d requests were slowed down and %d were cut off: the test shows nothing", slowed, cuts)
	}

	o.set(1, 0)
	err = whole(requestOf(1, 0)) // nothing of it was read yet
	t.Logf("nothing but SlowDown: %v", err)
	if err == nil || !strings.Contains(err.Error(), "reduce your request rate") || !strings.Contains(err.Error(), "/index") {
		t.Errorf("nothing but SlowDown: %v", err)
	}
	o.set(0.4, 0.4)
	eventually(t, time.Minute, func() error { return whole(requestOf(1, 0)) })
}
