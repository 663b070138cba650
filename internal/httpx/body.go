package httpx

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// boundBody puts deadlines on reading the body. They are lifted at its end, so that they never end the work itself.
func (s *Server) boundBody(w *recorder, r *http.Request) {
	isEmpty := r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0
	isUnbounded := s.opts.BodyTimeout <= 0 && s.opts.BodyWindow <= 0
	if isEmpty || isUnbounded {
		return
	}
	now := time.Now()
	b := &timedBody{
		ReadCloser: r.Body,
		control:    w.control,
		cutOff:     s.metrics.cutOff.WithLabelValues("body"),
	}
	b.pace.window = s.opts.BodyWindow
	b.pace.bytes = int64(s.opts.BodyWindow.Seconds() * float64(s.opts.BodyRate))
	if s.opts.BodyTimeout > 0 {
		b.pace.end = now.Add(s.opts.BodyTimeout)
	}
	b.pace.begin(now)
	// The deadline is set at once, so that it also holds if the handler does not read the body.
	if w.control.SetReadDeadline(b.pace.deadline) == nil {
		r.Body = b
	}
}

// LongBody lets the body of a request take d as a whole, for a handler that streams large ones. The body must still
// keep its pace. The handler calls it before it reads.
func LongBody(r *http.Request, d time.Duration) {
	if b, ok := r.Body.(*timedBody); ok && !b.read && !b.pace.end.IsZero() {
		b.pace.end = time.Now().Add(d)
	}
}

// pace says until when the next bytes of a body must come. A small body needs no pace: it ends in its first window.
type pace struct {
	window   time.Duration // 0 = only end bounds the body
	bytes    int64         // that must come in a window
	end      time.Time     // for the whole body; zero = no bound
	came     int64         // bytes that came in this window
	deadline time.Time     // for the next bytes
}

// begin begins a window.
func (p *pace) begin(now time.Time) {
	p.came, p.deadline = 0, p.end
	if w := now.Add(p.window); p.window > 0 && (p.end.IsZero() || w.Before(p.end)) {
		p.deadline = w
	}
}

// got counts n bytes, and reports whether they began a new window.
func (p *pace) got(n int, now func() time.Time) bool {
	p.came += int64(n)
	if p.window <= 0 || p.came < p.bytes {
		return false
	}
	p.begin(now())
	return true
}

// timedBody is a body whose reads have the deadlines of a pace.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController // nil after the deadline was lifted
	pace    pace
	read    bool // the handler has begun to read
	cutOff  prometheus.Counter
}

// Read implements io.Reader. The first window begins with the first Read, since the handler may have waited before it.
func (b *timedBody) Read(p []byte) (int, error) {
	if b.control != nil && !b.read {
		b.read = true
		b.pace.begin(time.Now())
		_ = b.control.SetReadDeadline(b.pace.deadline) // boundBody has found that this works
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case b.control == nil:
	case err == io.EOF:
		_ = b.control.SetReadDeadline(time.Time{})
		b.control = nil
	case err != nil:
		if errors.Is(err, os.ErrDeadlineExceeded) {
			b.cutOff.Inc()
		}
	case b.pace.got(n, time.Now):
		_ = b.control.SetReadDeadline(b.pace.deadline)
	}
	return n, err
}
