package store

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
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
			got = append(got, u.ID)
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
