package store

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
)

// rawSeries is a series of a block as it is to be written: its labels in this order, and ready chunks.
type rawSeries struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// writeBlock writes a local block of in, whatever is wrong with it, and returns its directory.
func writeBlock(t testing.TB, in []rawSeries) string {
	t.Helper()
	id := ulid.MustNew(uint64(time.Now().UnixMilli()), rand.NewChaCha8([32]byte{byte(rand.Uint32())}))
	dir := filepath.Join(t.TempDir(), id.String())
	w, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		t.Fatal(err)
	}
	ix, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string]bool{}
	for _, s := range in {
		s.labels.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	for _, s := range sorted(symbols, 0) {
		if err := ix.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(in, func(a, b rawSeries) int { return labels.Compare(a.labels, b.labels) })
	m := block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: math.MaxInt64, MaxTime: math.MinInt64, Version: 1}}
	for i, s := range in {
		metas := slices.Clone(s.chunks)
		if err := w.WriteChunks(metas...); err != nil {
			t.Fatal(err)
		}
		if err := ix.AddSeries(storage.SeriesRef(i+1), s.labels, metas...); err != nil {
			t.Fatal(err)
		}
		for _, c := range metas {
			m.MinTime, m.MaxTime = min(m.MinTime, c.MinTime), max(m.MaxTime, c.MaxTime+1)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	m.Stats.NumSeries = uint64(len(in))
	f, err := os.Create(filepath.Join(dir, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.Write(f); err != nil {
		t.Fatal(err)
	}
	return dir
}
