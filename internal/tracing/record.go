package tracing

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Names of headers. In gRPC's metadata they are in lower case.
const (
	HeaderRequestID = "X-Request-ID"
	// HeaderForce, with any value, makes a request sampled.
	HeaderForce = "X-Thanos-Force-Tracing"
	// HeaderTraceID, in an answer, names the trace of a request that was sampled.
	HeaderTraceID = "X-Thanos-Trace-Id"
)

// What may be noted of a request.
const (
	NoteTenant = "tenant"
	NoteQuery  = "query"
)

// maxNote bounds what is kept of a text that a client sent, in bytes: a log must not grow with what others send.
const maxNote = 1024

// record is a request while it is worked on.
type record struct {
	id string

	mu    sync.Mutex        // guards notes
	notes map[string]string // nil = nobody will read them
}

type recordKey struct{}

func recordOf(ctx context.Context) *record {
	r, _ := ctx.Value(recordKey{}).(*record)
	return r
}

// Note says something of ctx's request, for its lines in the log and its span: whose it is, what is asked. Of long texts
// the beginning is kept. It does nothing for a request that is neither logged nor sampled.
func Note(ctx context.Context, key, value string) {
	r := recordOf(ctx)
	if r == nil {
		return
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(attribute.String(key, clip(value)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.notes != nil {
		r.notes[key] = clip(value)
	}
}

// noted are the notes so far.
func (r *record) noted(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notes[key]
}

// RequestID is the id of ctx's request, "" without one.
func RequestID(ctx context.Context) string {
	if r := recordOf(ctx); r != nil {
		return r.id
	}
	return ""
}

// maxRequestID bounds the id that a client gives.
const maxRequestID = 128

// requestID is the id that a client gave, or a new one where it gave none or one that would spoil a line of a log.
func requestID(given string) string {
	if validID(given) {
		return given
	}
	var raw [16]byte
	for i := 0; i < len(raw); i += 8 {
		n := rand.Uint64()
		for j := range 8 {
			raw[i+j] = byte(n >> (8 * j))
		}
	}
	return hex.EncodeToString(raw[:])
}

func validID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// clip is the beginning of s, whole characters of it.
func clip(s string) string {
	if len(s) <= maxNote {
		return s
	}
	end := maxNote
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
