package tracing

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
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
	// HeaderTraceID in an answer is the id of the trace, if the request was sampled.
	HeaderTraceID = "X-Thanos-Trace-Id"
)

// Keys of the notes of a request.
const (
	NoteTenant = "tenant"
	NoteQuery  = "query"
)

// maxNote bounds what is kept of a text that a client sent, in bytes. Without it, clients could fill the log with long
// texts.
const maxNote = 1024

// record is what is known of a request that is under way.
type record struct {
	id string

	mu    sync.Mutex        // guards notes
	notes map[string]string // nil = the request has no line in the log, so nothing is noted
}

type recordKey struct{}

func recordOf(ctx context.Context) *record {
	r, _ := ctx.Value(recordKey{}).(*record)
	return r
}

// Note adds a value to the lines in the log and to the span of ctx's request: the tenant, or the query. Of a long text
// only the beginning is kept. It does nothing for a request that is neither logged nor sampled.
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

// noted is the note under key, "" without one.
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

// requestID is the id that a client gave. It is a new id if the client gave none, or one that could break a line of the
// log.
func requestID(given string) string {
	if validID(given) {
		return given
	}
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], rand.Uint64())
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

// clip is the beginning of s, at most about maxNote bytes, with whole characters. Bytes that are not UTF-8 are
// replaced: a collector is sent many spans in one message, and one such byte would make all of it invalid.
func clip(s string) string {
	if len(s) > maxNote {
		end := maxNote
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
