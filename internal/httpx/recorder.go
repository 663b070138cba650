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

// recorder remembers the status of an answer, and cuts off a client that takes it too slowly (ReaderTime). A client may
// need long for a large answer. But a handler holds memory for its answer, and without this bound a client that takes
// nothing, or very little, would keep that memory for ever.
type recorder struct {
	http.ResponseWriter
	control  *http.ResponseController
	bounded  bool // reader bounds the answer
	reader   ReaderTime
	streams  bool      // HTTP/2: a deadline that passes ends the stream, also while nothing is written
	deadline time.Time // the write deadline that is set; zero = none
	late     bool      // the client was cut off
	code     int       // 0 = nothing written yet
}

// newRecorder makes the recorder of an answer. timeout is Options.AnswerTimeout; 0 = the client is never cut off.
func newRecorder(w http.ResponseWriter, r *http.Request, timeout time.Duration) *recorder {
	rec := &recorder{
		ResponseWriter: w, control: http.NewResponseController(w),
		reader: NewReaderTime(timeout, SlowestClient), streams: r.ProtoMajor >= 2,
	}
	// The connection may still have the deadline of its last request. The writer of a test has no deadlines.
	rec.bounded = timeout > 0 && rec.control.SetWriteDeadline(time.Time{}) == nil
	return rec
}

// beginWait bounds the wait for the client to take n bytes. It leaves the deadline as it is when the right one is only
// a little later, since setting a deadline costs more than writing a few bytes.
func (w *recorder) beginWait(n int) {
	if !w.bounded {
		return
	}
	now := time.Now()
	until := now.Add(w.reader.Begin(now, n))
	if !w.deadline.IsZero() && until.Sub(w.deadline) < w.reader.most/8 {
		return
	}
	w.deadline = until
	_ = w.control.SetWriteDeadline(until) // newRecorder has found that this works
}

// endWait ends the wait. On HTTP/2 it lifts the deadline while the handler works.
func (w *recorder) endWait() {
	if !w.bounded {
		return
	}
	w.reader.End(time.Now())
	if w.streams {
		w.deadline = time.Time{}
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}

// end bounds the time in which the client must take what the server still has to send after the handler.
func (w *recorder) end() {
	w.deadline = time.Time{}
	w.beginWait(0)
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(code int) {
	if w.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.code = code
	}
	w.beginWait(0)
	w.ResponseWriter.WriteHeader(code)
	w.endWait()
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (n int, err error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	for first := true; err == nil && (first || n < len(b)); first = false {
		var wrote int
		step := b[n:min(len(b), n+answerStep)]
		w.beginWait(len(step))
		wrote, err = w.ResponseWriter.Write(step)
		n += wrote
		w.endWait()
	}
	w.noted(err)
	return n, err
}

// Flush is FlushError for handlers that ask for an http.Flusher.
func (w *recorder) Flush() { _ = w.FlushError() }

// FlushError sends what has been written.
func (w *recorder) FlushError() error {
	w.beginWait(0)
	err := w.control.Flush()
	w.endWait()
	w.noted(err)
	return err
}

func (w *recorder) noted(err error) {
	w.late = w.late || err != nil && errors.Is(err, os.ErrDeadlineExceeded)
}

// Unwrap lets http.ResponseController reach the server's writer.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Status is the status of the answer until now.
func (w *recorder) Status() int {
	if w.code == 0 {
		return http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	return w.code
}
