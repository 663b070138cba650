package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestReopensWhatWasInUse: after a restart the index-headers that were open are opened without any request, and others
// are not. A list that is damaged is as good as none.
func TestReopensWhatWasInUse(t *testing.T) {
	bkt := inMemory(t)
	used := upload(t, bkt, makeBlock(t, few()), ring(team, "r1"))
	upload(t, bkt, makeBlock(t, few()), ring("other", "r1"))
	dir := t.TempDir()
	in := func(o *Options) { o.Dir, o.StartTimeout = dir, time.Minute }
	open := func(want ...ulid.ULID) *Gateway {
		t.Helper()
		g := opened(t, bkt, in)
		var got []ulid.ULID
		for _, u := range g.headers.uses() {
			got = append(got, u.id)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("open: %v, want %v", got, want)
		}
		return g
	}
	g := open()
	seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
	g.Close()
	open(used).Close()
	path := filepath.Join(dir, usesName)
	list, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, list[:len(list)-1], 0o666); err != nil {
		t.Fatal(err)
	}
	open().Close()
}

// TestUses writes lists and reads them; each damaged byte is noticed.
func TestUses(t *testing.T) {
	list := []use{{ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV"), 1_700_000_000_000}, {ulid.ULID{15: 1}, -5}}
	for _, want := range [][]use{nil, list[:1], list} {
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
	f.Add(encodeUses([]use{{ulid.ULID{1}, 7}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if all, err := decodeUses(b); err == nil && !bytes.Equal(encodeUses(all), b) {
			t.Error("a list of another form was accepted")
		}
	})
}
