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
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || s.opts.BodyTimeout <= 0 &&
		s.opts.BodyWindow <= 0 {
		return
	}
	now := time.Now()
	b := &timedBody{ReadCloser: r.Body, control: w.control, pace: pace{window: s.opts.BodyWindow,
		bytes: int64(s.opts.BodyWindow.Seconds() * float64(s.opts.BodyRate))},
		cutOff: s.metrics.cutOff.WithLabelValues("body")}
	if s.opts.BodyTimeout > 0 {
		b.pace.end = now.Add(s.opts.BodyTimeout)
	}
	b.pace.begin(now)
	if w.control.SetReadDeadline(b.pace.deadline) == nil { // it holds also when the handler does not read the body
		r.Body = b
	}
}

// pace says until when the next bytes of a body must come. A body that ends needs no pace: a small one has one window.
type pace struct {
	window   time.Duration // 0 = none
	bytes    int64         // that must come in a window
	end      time.Time     // of all, zero = none
	came     int64         // in this window
	deadline time.Time
}

// begin begins a window.
func (p *pace) begin(now time.Time) {
	p.came, p.deadline = 0, p.end
	if w := now.Add(p.window); p.window > 0 && (p.end.IsZero() || w.Before(p.end)) {
		p.deadline = w
	}
}

// got takes n bytes into account, and reports whether a new window has begun.
func (p *pace) got(n int, now func() time.Time) bool {
	p.came += int64(n)
	if p.window <= 0 || p.came < p.bytes {
		return false
	}
	p.begin(now())
	return true
}

type timedBody struct {
	io.ReadCloser
	control *http.ResponseController // nil when the deadline is lifted
	pace    pace
	read    bool // the handler has begun to read
	cutOff  prometheus.Counter
}

// Read implements io.Reader. The first window begins with the first Read, since the handler may have waited before.
func (b *timedBody) Read(p []byte) (int, error) {
	if b.control != nil && !b.read {
		b.read = true
		b.pace.begin(time.Now())
		_ = b.control.SetReadDeadline(b.pace.deadline) // it was possible before
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
