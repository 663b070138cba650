package samples

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Field numbers and wire types of the two protocols, as the first byte of a field.
const (
	bytesField1, bytesField2, bytesField3, bytesField4, bytesField5 = 0x0a, 0x12, 0x1a, 0x22, 0x2a
	varint1, varint2, varint3                                       = 0x08, 0x10, 0x18
	double1                                                         = 0x09

	sampleSize   = 1 + 8 + 1 + timeSize // value and timestamp with their tags
	timeSize     = 6                    // a varint holds the milliseconds of the years 1971 to 2109 in 5 or 6 bytes
	valueToTime  = 8 + 1
	minTimestamp = 1 << 35
	maxTimestamp = 1<<42 - 1
)

// Request is the encoded message of some series, of which each scrape patches the samples.
type Request struct {
	series []series // this request's part of all series
	body   []byte   // the uncompressed message
	at     []int    // where in body the 8 value bytes of each series are; the timestamp is valueToTime later
	native bool     // has histograms, and so is encoded anew for each scrape
}

// Len is the number of samples in r.
func (r *Request) Len() int { return len(r.series) }

// Encoder encodes requests. It is not safe for concurrent use.
type Encoder struct {
	opts    Options
	rng     *rand.Rand
	scratch []byte
	part    []byte
	symbols map[string]uint32
	table   []byte
}

// NewEncoder returns an encoder whose samples wander as seed decides.
func NewEncoder(o Options, seed uint64) *Encoder {
	return &Encoder{opts: o, rng: rand.New(rand.NewPCG(2, seed))}
}

// encode writes r's message with the samples at time t (ms).
func (e *Encoder) encode(r *Request, t int64) error {
	if t < minTimestamp || t > maxTimestamp {
		return fmt.Errorf("timestamp %d: must be of the years 1971 to 2109", t)
	}
	r.body, r.at = r.body[:0], r.at[:0]
	if e.opts.V2 {
		return e.encodeV2(r, t)
	}
	for i := range r.series {
		s := &r.series[i]
		e.scratch = e.scratch[:0]
		for _, l := range labelsOf(s, e.opts.Labels) {
			e.part = appendString(appendString(e.part[:0], bytesField1, l.name), bytesField2, l.value)
			e.scratch = appendBytes(e.scratch, bytesField1, e.part)
		}
		at, err := e.appendSample(s, t, bytesField2, bytesField4)
		if err != nil {
			return err
		}
		r.body = appendBytes(r.body, bytesField1, e.scratch)
		r.at = append(r.at, len(r.body)-len(e.scratch)+at)
	}
	return nil
}

func (e *Encoder) encodeV2(r *Request, t int64) error {
	e.symbols, e.table = map[string]uint32{}, e.table[:0]
	e.ref("")
	for i := range r.series {
		s := &r.series[i]
		e.scratch, e.part = e.scratch[:0], e.part[:0]
		for _, l := range labelsOf(s, e.opts.Labels) {
			e.part = binary.AppendUvarint(e.part, uint64(e.ref(l.name)))
			e.part = binary.AppendUvarint(e.part, uint64(e.ref(l.value)))
		}
		e.scratch = appendBytes(e.scratch, bytesField1, e.part)
		at, err := e.appendSample(s, t, bytesField2, bytesField3)
		if err != nil {
			return err
		}
		e.part = append(e.part[:0], varint1, byte(s.kind)+1, varint3) // metadata: type, help
		e.part = binary.AppendUvarint(e.part, uint64(e.ref("Made up by the load generator.")))
		e.scratch = appendBytes(e.scratch, bytesField5, e.part)
		r.body = appendBytes(r.body, bytesField5, e.scratch)
		r.at = append(r.at, len(r.body)-len(e.scratch)+at)
	}
	shift := len(e.table)
	r.body = append(append(make([]byte, 0, shift+len(r.body)), e.table...), r.body...)
	for i := range r.at {
		r.at[i] += shift
	}
	return nil
}

// ref is the number of text in the symbol table.
func (e *Encoder) ref(text string) uint32 {
	n, ok := e.symbols[text]
	if !ok {
		n = uint32(len(e.symbols))
		e.symbols[text] = n
		e.table = appendString(e.table, bytesField4, text)
	}
	return n
}

// appendSample adds the sample of s to the series being built and returns where in it the value is.
func (e *Encoder) appendSample(s *series, t int64, floatField, histogramField byte) (at int, err error) {
	if s.kind == native {
		var b []byte
		if e.opts.V2 {
			h := writev2.FromIntHistogram(0, t, s.hist)
			b, err = h.Marshal()
		} else {
			h := prompb.FromIntHistogram(t, s.hist)
			b, err = h.Marshal()
		}
		e.scratch = appendBytes(e.scratch, histogramField, b)
		return 0, err
	}
	e.scratch = append(e.scratch, floatField, sampleSize, double1)
	at = len(e.scratch)
	e.scratch = binary.LittleEndian.AppendUint64(e.scratch, math.Float64bits(s.value))
	e.scratch = append(e.scratch, varint2)
	e.scratch = append(e.scratch, make([]byte, timeSize)...)
	putTime(e.scratch[at+valueToTime:], t)
	return at, nil
}

// Next moves every series of r to its sample of the given scrape, at time t (ms), and returns the message,
// uncompressed. It belongs to r, until the next call. The scrapes of a request are to be asked for in order, from 0.
func (e *Encoder) Next(r *Request, scrape int, t int64) ([]byte, error) {
	anew := r.native || len(r.body) == 0
	n, first := e.opts.churned(), 0
	if scrape == 0 {
		n = 0
	} else {
		first = (scrape - 1) * n % e.opts.Series
	}
	for i := range r.series {
		s := &r.series[i]
		s.advance(e.rng)
		if (s.id-first+e.opts.Series)%e.opts.Series < n { // the replaced ones are a range that wraps around
			s.generation++
			anew = true
		}
	}
	if anew {
		err := e.encode(r, t)
		return r.body, err
	}
	for i, at := range r.at {
		binary.LittleEndian.PutUint64(r.body[at:], math.Float64bits(r.series[i].value))
		putTime(r.body[at+valueToTime:], t)
	}
	return r.body, nil
}

// putTime writes t as a varint of exactly timeSize bytes, padded with a final zero group where fewer would do.
func putTime(b []byte, t int64) {
	for i := range timeSize - 1 {
		b[i] = byte(t)&0x7f | 0x80
		t >>= 7
	}
	b[timeSize-1] = byte(t)
}

func appendString(dst []byte, field byte, s string) []byte {
	dst = binary.AppendUvarint(append(dst, field), uint64(len(s)))
	return append(dst, s...)
}

func appendBytes(dst []byte, field byte, b []byte) []byte {
	dst = binary.AppendUvarint(append(dst, field), uint64(len(b)))
	return append(dst, b...)
}
