package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Downstream are the queriers behind a frontend of its own process. They get requests in turn. It is an http.Handler
// and a series.ArrivalSource.
type Downstream struct {
	opts  DownstreamOptions
	proxy *httputil.ReverseProxy
	next  atomic.Uint64

	cancel context.CancelFunc
	done   chan struct{}
	fault  errs.Last
}

// DownstreamOptions of a Downstream.
type DownstreamOptions struct {
	// URLs are those of the queriers, with the path before /api/v1.
	URLs []*url.URL
	// Transport sends the requests.
	Transport http.RoundTripper
	// Forward are the headers that are passed on although they are the sender's own: Authorization, Cookie.
	Forward []string
	// Tenant finds the tenants of a request. Queriers get them in TenantHeader alone.
	Tenant       tenant.Resolver
	TenantHeader string
}

// NewDownstream makes a Downstream.
func NewDownstream(opts DownstreamOptions) (*Downstream, error) {
	if len(opts.URLs) == 0 {
		return nil, errs.E(errs.Invalid, "query frontend: no querier is named")
	}
	for _, u := range opts.URLs {
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, errs.E(errs.Invalid, "querier %q: want http://host:port or https://host:port", u.Redacted())
		}
	}
	d := &Downstream{opts: opts, done: make(chan struct{})}
	d.fault.Set(errs.E(errs.Unavailable, "no querier has answered yet"))
	d.proxy = &httputil.ReverseProxy{Transport: opts.Transport, Rewrite: d.rewrite, ErrorHandler: unreachable,
		FlushInterval: -1}
	return d, nil
}

// pick is the querier whose turn it is.
func (d *Downstream) pick() *url.URL { return d.opts.URLs[d.next.Add(1)%uint64(len(d.opts.URLs))] }

// ServeHTTP implements http.Handler.
func (d *Downstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ids, err := d.opts.Tenant.Read(r)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	d.proxy.ServeHTTP(w, r.WithContext(tenant.WithSet(r.Context(), ids)))
}

// ownHeaders are what a sender proves to be itself by. They are meant for this process.
var ownHeaders = []string{"Authorization", "Cookie", tenant.HeaderOrgID, tenant.HeaderThanos}

// rewrite makes the request to a querier.
func (d *Downstream) rewrite(p *httputil.ProxyRequest) {
	p.SetURL(d.pick())
	kept := http.Header{}
	for _, name := range d.opts.Forward {
		if values := p.In.Header.Values(name); len(values) > 0 {
			kept[http.CanonicalHeaderKey(name)] = values
		}
	}
	for _, name := range append(ownHeaders, d.opts.Tenant.Header) {
		p.Out.Header.Del(name)
	}
	for name, values := range kept {
		p.Out.Header[name] = values
	}
	p.Out.Header.Set(d.opts.TenantHeader, tenantsOf(tenant.SetFrom(p.In.Context())))
	if p.In.Method == http.MethodPost && p.In.PostForm != nil { // the body was read
		body := p.In.PostForm.Encode()
		p.Out.Body, p.Out.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
}

// tenantsOf names tenants in a header.
func tenantsOf(ids []tenant.ID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, "|")
}

// unreachable answers where no querier does.
func unreachable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil { // the client is gone
		err = context.Cause(r.Context())
	}
	promapi.WriteError(w, errs.E(errs.Unavailable, "no answer of a querier: %w", err))
}

// maxArrivals bounds an answer about arrivals: 336 hours of a few numbers.
const maxArrivals = 64 << 10

// Arrivals implements series.ArrivalSource. A querier that does not know the question is not Hearth's: the error is
// of kind Unsupported.
func (d *Downstream) Arrivals(ctx context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	body, status, err := d.get(ctx, promapi.ArrivalsPath+"?since="+strconv.FormatInt(since, 10), string(id))
	switch {
	case err != nil:
		return series.Arrivals{}, err
	case status == http.StatusNotFound, status == http.StatusNotImplemented, status == http.StatusUnprocessableEntity:
		return series.Arrivals{}, errs.E(errs.Unsupported, "the querier does not say when samples arrived")
	case status != http.StatusOK:
		return series.Arrivals{}, errs.E(errs.Unavailable, "status %d: %.200s", status, body)
	}
	var out struct{ Data series.Arrivals }
	if err := json.Unmarshal(body, &out); err != nil {
		return series.Arrivals{}, errs.Wrap(errs.Internal, err)
	}
	return out.Data, nil
}

// get asks the querier whose turn it is.
func (d *Downstream) get(ctx context.Context, path, tenants string) (body []byte, status int, err error) {
	base := d.pick()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base.String(), "/")+path, nil)
	if err != nil {
		return nil, 0, errs.Wrap(errs.Internal, err)
	}
	if tenants != "" {
		r.Header.Set(d.opts.TenantHeader, tenants)
	}
	resp, err := d.opts.Transport.RoundTrip(r)
	if err != nil {
		return nil, 0, errs.E(errs.Unavailable, "querier %s: %w", base.Redacted(), err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err = io.Copy(&b, io.LimitReader(resp.Body, maxArrivals)); err != nil {
		return nil, 0, errs.E(errs.Unavailable, "querier %s: %w", base.Redacted(), err)
	}
	return b.Bytes(), resp.StatusCode, nil
}

// readyInterval is how often queriers are asked whether one of them answers.
const readyInterval = 10 * time.Second

// Open begins to ask whether a querier answers. A querier that does not is no error.
func (d *Downstream) Open(ctx context.Context, _ func(error)) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	go func() {
		defer close(d.done)
		for {
			d.look(life)
			wait := readyInterval
			if d.fault.Get() != nil {
				wait = time.Second
			}
			select {
			case <-time.After(wait):
			case <-life.Done():
				return
			}
		}
	}()
	return nil
}

// look asks each querier until one is ready.
func (d *Downstream) look(ctx context.Context) {
	var fault error
	for range d.opts.URLs {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		_, status, err := d.get(asking, "/-/ready", "")
		cancel()
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("a querier is not ready: status %d", status)
		}
		if fault = err; err == nil {
			break
		}
	}
	d.fault.Set(fault)
}

// Close ends what Open began.
func (d *Downstream) Close() error {
	d.cancel()
	<-d.done
	return nil
}

// Ready is nil if a querier was ready when it was asked last.
func (d *Downstream) Ready() error { return d.fault.Get() }
