package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/golang/snappy"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestReadSnappy(t *testing.T) {
	text := []byte(strings.Repeat("hearth ", 10000))
	body := snappy.Encode(nil, text)
	f := func(r io.Reader, maxCompressed, maxDecoded int, want errs.Kind, words string) {
		t.Helper()
		b := GetBuffer()
		defer PutBuffer(b)
		got, err := b.ReadSnappy(r, int64(maxCompressed), int64(maxDecoded))
		if errs.KindOf(err) != want || err != nil && !strings.Contains(err.Error(), words) {
			t.Fatalf("error %v, want %s with %q", err, want, words)
		}
		if err == nil && !bytes.Equal(got, text) {
			t.Fatalf("%d bytes, want %d", len(got), len(text))
		}
	}
	f(bytes.NewReader(body), len(body), len(text), errs.OK, "")
	f(iotest.OneByteReader(bytes.NewReader(body)), len(body), len(text), errs.OK, "")
	f(iotest.DataErrReader(bytes.NewReader(body)), len(body), len(text), errs.OK, "")
	f(bytes.NewReader(body), len(body)-1, len(text), errs.TooLarge, "limit")
	f(bytes.NewReader(body), len(body), len(text)-1, errs.TooLarge,
		"decompresses to 70000 bytes, more than the limit of 69999")
	f(bytes.NewReader(body[:len(body)-1]), len(body), len(text), errs.Invalid, "not snappy")
	f(bytes.NewReader(nil), len(body), len(text), errs.Invalid, "not snappy")
	f(strings.NewReader("\xff\xff\xff\xff"), len(body), len(text), errs.Invalid, "not snappy")
	f(bytes.NewReader(text), len(text), len(text), errs.Invalid, "not snappy")
	f(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(body))), len(body), len(text), errs.Unavailable,
		"after 1 bytes")
	f(io.MultiReader(bytes.NewReader(body[:9]), iotest.ErrReader(io.ErrUnexpectedEOF)), len(body), len(text),
		errs.Unavailable, "after 9 bytes")
	f(iotest.ErrReader(errors.New("reset by peer")), len(body), len(text), errs.Unavailable, "reset by peer")
}

// TestOwnedBody: what a batch keeps of a body is what its series are in, and the rest serves the next one.
func TestOwnedBody(t *testing.T) {
	body := snappyBody(typicalV1(500))
	buf := &Buffer{}
	msg, err := buf.ReadSnappy(bytes.NewReader(body), 1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewSeriesCache(1000).DecodeV1(testTenant, msg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	b.Own(buf)
	if had, least := b.body.capacity(), len(msg); had < least || had > least+least/4 {
		t.Errorf("the batch keeps %d bytes for a body of %d", had, least)
	}
	if got := b.Buffered(); got < int64(len(msg)+len(b.canonical)) {
		t.Errorf("%d bytes are counted", got)
	}
}

// TestReadSnappyBelievesNobody: a size that the bytes cannot decompress to is not allocated.
func TestReadSnappyBelievesNobody(t *testing.T) {
	body := append(binary.AppendUvarint(nil, 1<<30), 0, 0)
	b := &Buffer{}
	if _, err := b.ReadSnappy(bytes.NewReader(body), 100, 1<<40); errs.KindOf(err) != errs.Invalid {
		t.Fatal(err)
	}
	if cap(b.decoded) > 0 {
		t.Fatalf("%d bytes allocated", cap(b.decoded))
	}
	zeros := snappy.Encode(nil, make([]byte, 1<<20)) // about the best there is
	if got, err := b.ReadSnappy(bytes.NewReader(zeros), 1<<20, 1<<20); err != nil || len(got) != 1<<20 {
		t.Fatal(len(got), err)
	}
}

func FuzzReadSnappy(f *testing.F) {
	f.Add(snappy.Encode(nil, []byte("hearth hearth hearth hearth hearth hearth")))
	f.Add(snappy.Encode(nil, typicalV1(2)))
	f.Fuzz(func(t *testing.T, body []byte) {
		const limit = 1 << 20
		b := GetBuffer()
		defer PutBuffer(b)
		got, err := b.ReadSnappy(bytes.NewReader(body), limit, limit)
		if n, e := snappy.DecodedLen(body); e == nil && n > limit || len(body) > limit {
			if errs.KindOf(err) != errs.TooLarge {
				t.Fatalf("%d bytes: error %v", n, err)
			}
			return
		}
		want, wantErr := snappy.Decode(nil, body)
		if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v; want %d, %v", len(got), err, len(want), wantErr)
		}
	})
}
