package indexheader

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/hearth-metrics/hearth/block"
)

// bigIndex writes the index of a block of n series, 100 of each pod, as a cluster of Kubernetes has them, with a number
// of chunks each.
func bigIndex(b *testing.B, n, chunksEach int) (dir string, id ulid.ULID) {
	b.Helper()
	dir, id = b.TempDir(), ulid.ULID{1}
	if err := os.MkdirAll(filepath.Join(dir, id.String()), 0o777); err != nil {
		b.Fatal(err)
	}
	w, err := index.NewWriter(b.Context(), filepath.Join(dir, id.String(), block.IndexName))
	if err != nil {
		b.Fatal(err)
	}
	name := func(i int) string { return fmt.Sprintf("container_metric_%03d_total", i) }
	pods := n / 100
	of := func(metric, pod int) labels.Labels {
		return labels.FromStrings("__name__", name(metric), "cluster", "eu-1", "container", fmt.Sprint("app-", pod%200),
			"id", fmt.Sprintf("/kubepods/burstable/pod%016x", uint64(pod)*0x9e3779b97f4a7c15), "instance",
			fmt.Sprintf("10.0.%d.%d:10250", pod/250%250, pod%250), "job", "kubelet", "namespace", fmt.Sprint("team-", pod%50),
			"node", fmt.Sprintf("node-%04d", pod%500), "pod", fmt.Sprintf("app-%d-7d9f8b6c5-%05d", pod%200, pod), "zone",
			fmt.Sprint("z", pod%3))
	}
	symbols := map[string]bool{}
	for i := range max(100, pods) {
		of(i%100, min(i, pods-1)).Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	for _, s := range slices.Sorted(maps.Keys(symbols)) {
		if err := w.AddSymbol(s); err != nil {
			b.Fatal(err)
		}
	}
	metas := make([]chunks.Meta, chunksEach)
	ref := storage.SeriesRef(0)
	for metric := range 100 {
		all := make([]labels.Labels, 0, pods)
		for pod := range pods {
			all = append(all, of(metric, pod))
		}
		slices.SortFunc(all, labels.Compare)
		for _, ls := range all {
			for i := range metas {
				metas[i] = chunks.Meta{Ref: chunks.ChunkRef((int(ref)*chunksEach + i) * 200), MinTime: int64(i) * 1000,
					MaxTime: int64(i)*1000 + 999}
			}
			if err := w.AddSeries(ref, ls, metas...); err != nil {
				b.Fatal(err)
			}
			ref++
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, id
}

// sparseSize is what the samples of r would take in a file: of each 32 entries the first value, where it is and its
// postings, and a checksum; the same of symbols.
func sparseSize(r *Reader, symbols int) (n int) {
	var buf [binary.MaxVarintLen64]byte
	for label, of := range r.names {
		n += len(label) + 8
		for _, e := range of.entries {
			n += len(e.value) + 1 + 2 + binary.PutUvarint(buf[:], uint64(e.off)) + 4
		}
	}
	return n + symbols/32*(2+4)
}

// BenchmarkWhatToShip measures what a producer could put beside a block, and what reading it takes: the whole header,
// or its samples. HEARTH_LONG=1 adds the block of 2 million series.
func BenchmarkWhatToShip(b *testing.B) {
	sizes := []int{100_000}
	if os.Getenv("HEARTH_LONG") != "" {
		sizes = append(sizes, 2_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir, id := bigIndex(b, n, 1+n/100_000)
			bkt, err := filesystem.NewBucket(dir)
			if err != nil {
				b.Fatal(err)
			}
			path := filepath.Join(b.TempDir(), "index-header")
			if err := Build(context.Background(), bkt, id, path); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			var r *Reader
			for b.Loop() {
				if r, err = Open(path); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
			if r, err = Open(path); err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			entries := 0
			for _, label := range r.LabelNames() {
				_ = r.Values(b.Context(), label, "", func(string, index.Range) bool { entries++; return true })
			}
			b.ReportMetric(float64(r.IndexSize()), "index-B")
			b.ReportMetric(float64(r.Size()), "header-B")
			b.ReportMetric(float64(sparseSize(r, entries)), "samples-B")
			b.ReportMetric(float64(entries), "pairs")
		})
	}
}
