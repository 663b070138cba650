package httpx

import (
	"errors"
	"net/http"
	"os"
	"time"
)

const (
	// answerStep is how many bytes of an answer are written at a time.
	answerStep = 128 << 10
	// SlowestClient is the rate, in bytes per Options.AnswerTimeout, below which a client falls behind: 68 KiB per second
	// by default. A poor link has several times that.
	SlowestClient = 2 << 20
)

// recorder remembers the status of an answer, and cuts off a client that does not take it, or takes it so slowly that
// it is behind by more than Options.AnswerTimeout. A large answer may take long, and a handler holds what it has for a
// client that takes nothing, or a trickle, for a bounded time.
type recorder struct {
	http.ResponseWriter
	control  *http.ResponseController
	bounded  bool // patience bounds the answer
	patience Patience
	streams  bool      // HTTP/2: a deadline that passes ends the stream at once, also while nobody writes
	deadline time.Time // that is set, zero = none is
	late     bool      // the client was cut off
	code     int       // 0 = nothing written yet
}

func newRecorder(w http.ResponseWriter, r *http.Request, patience time.Duration) *recorder {
	rec := &recorder{ResponseWriter: w, control: http.NewResponseController(w),
		patience: NewPatience(patience, SlowestClient), streams: r.ProtoMajor >= 2}
	// A connection that is a real one still has the deadline of its last request.
	rec.bounded = patience > 0 && rec.control.SetWriteDeadline(time.Time{}) == nil
	return rec
}

// arm bounds the wait for the client to take n bytes. A deadline that is set stays when the right one is little later,
// since setting one costs more than writing a few bytes.
func (w *recorder) arm(n int) {
	if !w.bounded {
		return
	}
	now := time.Now()
	until := now.Add(w.patience.Begin(now, n))
	if !w.deadline.IsZero() && until.Sub(w.deadline) < w.patience.most/8 {
		return
	}
	w.deadline = until
	_ = w.control.SetWriteDeadline(until) // it was possible before
}

// disarm ends the wait, and lifts the deadline while the handler works.
func (w *recorder) disarm() {
	if !w.bounded {
		return
	}
	w.patience.End(time.Now())
	if w.streams {
		w.deadline = time.Time{}
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}

// end bounds what the server still has to send after the handler.
func (w *recorder) end() {
	w.deadline = time.Time{}
	w.arm(0)
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(code int) {
	if w.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.code = code
	}
	w.arm(0)
	w.ResponseWriter.WriteHeader(code)
	w.disarm()
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (n int, err error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	for first := true; err == nil && (first || n < len(b)); first = false {
		var wrote int
		step := b[n:min(len(b), n+answerStep)]
		w.arm(len(step))
		wrote, err = w.ResponseWriter.Write(step)
		n += wrote
		w.disarm()
	}
	w.noted(err)
	return n, err
}

// Flush is FlushError for handlers that ask for an http.Flusher.
func (w *recorder) Flush() { _ = w.FlushError() }

// FlushError sends what has been written.
func (w *recorder) FlushError() error {
	w.arm(0)
	err := w.control.Flush()
	w.disarm()
	w.noted(err)
	return err
}

func (w *recorder) noted(err error) {
	w.late = w.late || err != nil && errors.Is(err, os.ErrDeadlineExceeded)
}

// Unwrap lets http.ResponseController reach the server's writer.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) status() int {
	if w.code == 0 {
		return http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	return w.code
}
