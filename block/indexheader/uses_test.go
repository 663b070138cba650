package indexheader

import (
	"bytes"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestUses writes lists and reads them; each damaged byte is noticed.
func TestUses(t *testing.T) {
	list := []Use{{ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV"), 1_700_000_000_000}, {ulid.ULID{15: 1}, -5}}
	for _, want := range [][]Use{nil, list[:1], list} {
		if got, err := decodeUses(encodeUses(want)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	good := encodeUses(list)
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 1
		if _, err := decodeUses(b); err == nil {
			t.Errorf("byte %d flipped: accepted", i)
		}
		if _, err := decodeUses(good[:i]); errs.KindOf(err) != errs.Invalid {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	later := slices.Clone(good)
	later[4]++
	if _, err := decodeUses(later); errs.KindOf(err) != errs.Unsupported {
		t.Error(err)
	}
}

func FuzzUses(f *testing.F) {
	f.Add(encodeUses([]Use{{ulid.ULID{1}, 7}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if all, err := decodeUses(b); err == nil && !bytes.Equal(encodeUses(all), b) {
			t.Error("a list of another form was accepted")
		}
	})
}
