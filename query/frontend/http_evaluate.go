package frontend

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
)

// reply is an answer that was held back: that of a request which failed is passed on as it is.
type reply struct {
	status int
	header http.Header
	body   bytes.Buffer
	lease  *memory.Lease
	err    error // there was no memory for the body
}

func (r *reply) Header() http.Header { return r.header }

func (r *reply) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *reply) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.err == nil {
		r.err = r.lease.Grow(int64(len(b)))
	}
	if r.err != nil {
		return 0, r.err
	}
	return r.body.Write(b)
}

// result is what is known of the steps of a piece. A reply is one that failed; err is a failure of the frontend
// itself.
type result struct {
	answer
	final bool // the answer may be kept
	reply *reply
	err   error
}

func (r *result) failed() bool { return r.reply != nil || r.err != nil }

// evaluation is one request under way.
type evaluation struct {
	f     *Frontend
	r     *http.Request
	q     request
	lease *memory.Lease // for the series of the answer
}

// piece answers for the steps of p, which lie within one interval: from the cache, as far as that has steps that
// still hold, and else by asking.
func (e *evaluation) piece(ctx context.Context, p piece, interval int64) result {
	key := e.q.key(p.from, interval)
	have, now, ok := e.cached(ctx, key, p)
	var parts []result
	for _, rest := range e.missing(p, have) {
		r := e.ask(ctx, rest)
		if r.failed() {
			return r
		}
		parts = append(parts, r)
	}
	e.f.m.steps(p, have, e.q.step)
	if ok && e.q.write && len(parts) > 0 && !slices.ContainsFunc(parts, func(r result) bool { return !r.final }) {
		e.keep(key, have, parts, now)
	}
	out := result{}
	var all []matrix
	for _, r := range parts {
		all, out.warnings = append(all, r.matrix), union(out.warnings, r.warnings)
	}
	if have != nil {
		if both, ok := p.and(have.piece); ok {
			all = append(all, have.slice(both))
		}
	}
	out.matrix = join(all)
	return out
}

// missing are the parts of p that an entry does not have; have is nil if there is none.
func (e *evaluation) missing(p piece, have *entry) []piece {
	if have == nil {
		return []piece{p}
	}
	return p.without(have.piece, e.q.step)
}

// cached returns the entry under key if its steps fit those of p and still hold, nil if there is none, and what is
// known of changes. ok is false if it is not known what has changed, so that nothing may be kept either.
func (e *evaluation) cached(ctx context.Context, key string, p piece) (have *entry, now known, ok bool) {
	if e.f.opts.Cache == nil || !e.q.read && !e.q.write {
		return nil, now, false
	}
	since := e.f.opts.Now().UnixMilli()
	if e.q.read {
		if data := e.f.opts.Cache.Get(key); data != nil {
			found, err := decode(data)
			if err != nil || found.step != e.q.step || (found.from-p.from)%e.q.step != 0 {
				e.f.m.broken.Inc()
			} else {
				have, since = found, found.asked
			}
		}
	}
	if now, ok = e.f.changes.of(ctx, e.q.tenants, since); !ok {
		return nil, now, false
	}
	if have == nil {
		return nil, now, true
	}
	if mint, maxt, reads := samples(e.q.reach, have.piece); reads && now.changed(mint, maxt, have.asked) {
		e.f.m.changed.Inc()
		return nil, now, true
	}
	if err := e.lease.Grow(have.bytes()); err != nil { // the cache is of no use without memory for what it has
		return nil, now, true
	}
	return have, now, true
}

// keep puts into the cache what the entry under key had, if it holds, and what was asked, as far as that is final.
func (e *evaluation) keep(key string, have *entry, parts []result, now known) {
	step := e.q.step
	whole, had := piece{parts[0].from, parts[len(parts)-1].to}, 0
	var all []matrix
	for _, r := range parts {
		all = append(all, r.matrix)
	}
	// Else what is between them is not known.
	if have != nil && whole.from <= have.to+step && whole.to >= have.from-step {
		whole = piece{min(whole.from, have.from), max(whole.to, have.to)}
		all, had = append(all, have.matrix), have.piece.steps(step)
	}
	last, ok := until(e.q.reach, whole, step, now.settled)
	if !ok {
		return
	}
	if whole.to = last; whole.steps(step) < had+max(1, had/growth) {
		return
	}
	data := (&entry{asked: now.asked, matrix: join(all).slice(whole)}).encode()
	if data != nil {
		e.f.opts.Cache.Put(key, data)
	}
}

// growth says when an entry is written again: when it has grown by this part of what it had. Else each refresh of a
// dashboard would write all of it again for one more step.
const growth = 16

// ask asks for the steps of p, together with everybody who asks for the same now.
func (e *evaluation) ask(ctx context.Context, p piece) result {
	key := binary.AppendVarint(binary.AppendVarint([]byte(e.q.key(p.from, 0)), p.from), p.to)
	r, ok := e.f.flights.do(ctx, string(key), func(ctx context.Context) result { return e.request(ctx, p) })
	if !ok {
		return result{err: errs.Wrap(errs.Unavailable, context.Cause(ctx))}
	}
	if !r.failed() {
		r.err = e.lease.Grow(r.matrix.bytes())
	}
	return r
}

// request sends the request for the steps of p, and again if it failed in a way that may pass.
func (e *evaluation) request(ctx context.Context, p piece) result {
	for try := 0; ; try++ {
		r, again := e.once(ctx, p)
		if !again || try >= e.f.opts.Retries || ctx.Err() != nil {
			return r
		}
		e.f.m.retries.Inc()
		pause := time.NewTimer(retryPause(try))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return r
		}
	}
}

// retryPause is the time before another try: 200 ms and more, up to 2 s, each time by chance up to a half shorter.
func retryPause(try int) time.Duration {
	most := min(200*time.Millisecond<<min(try, 10), 2*time.Second)
	return most - rand.N(most/2)
}

// once sends the request for the steps of p. again says that another try may succeed.
func (e *evaluation) once(ctx context.Context, p piece) (r result, again bool) {
	lease := e.f.owner.Open(e.q.tenants[0])
	defer lease.Close()
	out := &reply{header: http.Header{}, lease: lease}
	ended := e.serve(out, e.subRequest(ctx, p))
	switch {
	case out.err != nil:
		return result{err: out.err}, false
	case ended != nil:
		return result{err: ended}, errs.KindOf(ended) == errs.Unavailable
	case out.status != http.StatusOK:
		return result{reply: out}, out.status >= http.StatusInternalServerError
	}
	a, err := readAnswer(out.body.Bytes(), p, e.q.step)
	if err != nil {
		return result{err: err}, false
	}
	final := len(a.warnings) == 0 && !slices.Contains(directives(out.header), "no-store")
	return result{answer: a, final: final}, false
}

// serve has a request answered. Pieces are evaluated on goroutines of their own, where net/http keeps no panic to its
// request. Without recovering here a querier that dies in the middle of its answer, of which a proxy makes a panic,
// would end the process. Errors: Unavailable if the answer was cut off, Internal after any other panic.
func (e *evaluation) serve(out *reply, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = errs.E(errs.Unavailable, "the answer of a querier was cut off")
		default:
			e.f.log.Error("panic in the evaluation of a query", "panic", p, "stack", string(debug.Stack()))
			err = errs.E(errs.Internal, "internal error: the query was abandoned, see the log of the server")
		}
	}()
	e.f.next.ServeHTTP(out, r)
	out.WriteHeader(http.StatusOK) // where nothing was written
	return nil
}

// subRequest is the request for the steps of p.
func (e *evaluation) subRequest(ctx context.Context, p piece) *http.Request {
	r := e.r.Clone(ctx)
	form := e.q.form(p.from, p.to)
	r.Method = http.MethodPost
	r.URL.RawQuery = ""
	r.Form, r.PostForm = form, form
	r.Body, r.ContentLength = http.NoBody, 0
	r.Header.Del("Accept-Encoding")
	r.Header.Del("Content-Length")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// directives are those of Cache-Control, in lower case.
func directives(h http.Header) (all []string) {
	for _, line := range h.Values("Cache-Control") {
		for d := range strings.SplitSeq(line, ",") {
			all = append(all, strings.ToLower(strings.TrimSpace(d)))
		}
	}
	return all
}

// union is a with what b has beyond it.
func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}
