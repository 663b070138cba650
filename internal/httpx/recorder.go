package httpx

import (
	"errors"
	"net/http"
	"os"
	"time"
)

// answerStep is how many bytes of an answer are written at a time: a client must take that many within
// Options.AnswerTimeout.
const answerStep = 128 << 10

// recorder remembers the status of an answer, and cuts off a client that does not take it: each step of the answer has a
// deadline of its own, so that a large answer may take as long as it likes while it moves, and a handler holds what it has
// for a silent client no longer than patience.
type recorder struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration // 0 = no bound
	streams  bool          // HTTP/2: a deadline that passes ends the stream at once, also while nobody writes
	armed    time.Time     // when the deadline was set, zero = none is
	late     bool          // the client was cut off
	code     int           // 0 = nothing written yet
}

func newRecorder(w http.ResponseWriter, r *http.Request, patience time.Duration) *recorder {
	rec := &recorder{ResponseWriter: w, control: http.NewResponseController(w), patience: patience, streams: r.ProtoMajor >= 2}
	if patience > 0 && rec.control.SetWriteDeadline(time.Time{}) != nil { // that of the connection's last request is still set
		rec.patience = 0 // not a real connection
	}
	return rec
}

// arm gives the client patience from now on.
func (w *recorder) arm() {
	if w.patience <= 0 {
		return
	}
	now := time.Now()
	if !w.armed.IsZero() && now.Sub(w.armed) < w.patience/8 {
		return
	}
	w.armed = now
	_ = w.control.SetWriteDeadline(now.Add(w.patience)) // it was possible before
}

// disarm lifts the deadline while the handler works.
func (w *recorder) disarm() {
	if w.patience > 0 && w.streams {
		w.armed = time.Time{}
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}

// end bounds what the server still has to send after the handler.
func (w *recorder) end() {
	w.armed = time.Time{}
	w.arm()
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(code int) {
	if w.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.code = code
	}
	w.arm()
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
		w.arm()
		wrote, err = w.ResponseWriter.Write(b[n:min(len(b), n+answerStep)])
		n += wrote
	}
	w.disarm()
	w.noted(err)
	return n, err
}

// Flush is FlushError for handlers that ask for an http.Flusher.
func (w *recorder) Flush() { _ = w.FlushError() }

// FlushError sends what has been written.
func (w *recorder) FlushError() error {
	w.arm()
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
