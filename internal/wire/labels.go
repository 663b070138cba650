package wire

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const nameLabel = "__name__"

// MaxLabelLength is the longest label name or value in bytes: a TSDB cannot hold a longer one.
const MaxLabelLength = 1<<24 - 1

// pair is a label of a message that is not canonical yet, by its places in the message.
type pair struct{ nameAt, nameLen, valueAt, valueLen uint32 }

func (p pair) name(msg []byte) []byte  { return msg[p.nameAt : p.nameAt+p.nameLen] }
func (p pair) value(msg []byte) []byte { return msg[p.valueAt : p.valueAt+p.valueLen] }

// canonicalBytes is how many bytes pairs take at most once they are canonical.
func canonicalBytes(pairs []pair) (n int) {
	for _, p := range pairs {
		n += int(p.nameLen) + int(p.valueLen) + 2
	}
	return n
}

// canonicalize sorts pairs and appends their canonical bytes to dst. A label without a value is left out, as if it were
// absent. fault says what makes the labels unusable ("" = nothing); then out is dst.
func canonicalize(dst, msg []byte, pairs []pair) (out []byte, fault string) {
	slices.SortFunc(pairs, func(a, b pair) int { return bytes.Compare(a.name(msg), b.name(msg)) })
	out = dst
	var last []byte
	for _, p := range pairs {
		name, value := p.name(msg), p.value(msg)
		switch {
		case len(name) == 0:
			return dst, "a label has no name"
		case len(name) > MaxLabelLength || len(value) > MaxLabelLength:
			return dst, "label " + quote(name) + " is longer than 16 MiB"
		case bytes.Equal(name, last):
			return dst, "label " + quote(name) + " occurs twice"
		case !utf8.Valid(name) || !utf8.Valid(value):
			return dst, "label " + quote(name) + " is not UTF-8"
		}
		last = name
		if len(value) == 0 {
			continue
		}
		out = append(out, name...)
		out = append(out, Sep)
		out = append(out, value...)
		out = append(out, Sep)
	}
	return out, ""
}

// valueOf is the value of label name in canonical bytes, nil if there is none.
func valueOf(canonical []byte, name string) []byte {
	for len(canonical) > 0 {
		n, v, rest := NextLabel(canonical)
		if n == name {
			return canonical[len(n)+1 : len(n)+1+len(v)]
		}
		canonical = rest
	}
	return nil
}

// Bounds of what a Failure says to people.
const (
	maxQuoted   = 64   // bytes of one label name or value
	maxText     = 512  // bytes of all labels of a series
	maxRejected = 1000 // failures that are listed one by one
)

func quote(s []byte) string { return string(appendQuoted(nil, s)) }

func appendQuoted(dst, s []byte) []byte {
	if len(s) <= maxQuoted {
		return strconv.AppendQuote(dst, alias(s))
	}
	return append(strconv.AppendQuote(dst, alias(s[:maxQuoted])), "..."...)
}

// labelText writes labels for people, as many as fit: {name="value", ...}.
type labelText struct{ buf []byte }

func (t *labelText) add(name, value []byte) {
	switch {
	case len(t.buf) > maxText:
		return
	case len(t.buf) == 0:
		t.buf = append(t.buf, '{')
	default:
		t.buf = append(t.buf, ", "...)
	}
	if len(t.buf) > maxText {
		t.buf = append(t.buf, "..."...)
		return
	}
	if legacyName(name) {
		t.buf = append(t.buf, name...)
	} else {
		t.buf = appendQuoted(t.buf, name)
	}
	t.buf = append(t.buf, '=')
	t.buf = appendQuoted(t.buf, value)
}

func (t *labelText) String() string {
	if len(t.buf) == 0 {
		return "{}"
	}
	return string(append(t.buf, '}'))
}

func legacyName(s []byte) bool {
	for _, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxQuoted
}

// Text writes the labels of s for people, cut where they get long.
func (s *Series) Text() string { return textOf(s.Labels()) }

func textOfPairs(msg []byte, pairs []pair) string {
	var t labelText
	for _, p := range pairs {
		t.add(p.name(msg), p.value(msg))
	}
	return t.String()
}

func textOf(canonical []byte) string {
	var t labelText
	for len(canonical) > 0 {
		name, value, rest := NextLabel(canonical)
		t.add([]byte(name), []byte(value))
		canonical = rest
	}
	return t.String()
}

// reject adds f to the failures of b. Beyond maxRejected they are counted together in one more.
func (b *Batch) reject(f Failure, reason func() string) {
	f.Series, f.Kind = -1, errs.Invalid
	switch n := len(b.Rejected); {
	case n < maxRejected:
		f.Reason = reason()
		b.Rejected = append(b.Rejected, f)
	case n == maxRejected:
		f.Reason = "further series of the request, not listed one by one"
		b.Rejected = append(b.Rejected, f)
	default:
		last := &b.Rejected[n-1]
		last.Samples += f.Samples
		last.Histograms += f.Histograms
		last.Exemplars += f.Exemplars
		last.Whole += f.Whole
	}
}
