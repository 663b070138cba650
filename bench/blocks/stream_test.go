package blocks

import (
	"path/filepath"
	"testing"
	"time"
)

// TestWriteStream: together the replicas have all samples, and each one has what its difference leaves it.
func TestWriteStream(t *testing.T) {
	const windows, replicas = 2, 3
	s := Stream{Seed: 5, Shape: Shape{Metrics: 10, Namespaces: 2, Pods: 8}, Window: 2 * time.Hour, Windows: windows,
		Interval: 15 * time.Second, End: DefaultPlan().End, Replicas: replicas}
	const seriesOf, whole = 160, 160 * 480
	for differ, blocks := range map[Difference]int{Same: 6, Restarts: 6, Gaps: 6, Late: 12} {
		s.Differ = differ
		dir := t.TempDir()
		if err := WriteStream(t.Context(), dir, s); err != nil {
			t.Fatal(err)
		}
		metas := metasOf(t, dir)
		if len(metas) != blocks {
			t.Fatalf("difference %d: %d blocks, want %d", differ, len(metas), blocks)
		}
		var samples, chunksOf uint64
		perReplica := map[string]int{}
		for _, m := range metas {
			series, n := readBlock(t, filepath.Join(dir, m.ULID.String()), m)
			if series > seriesOf || n != m.Stats.NumSamples {
				t.Errorf("difference %d: %d series, %d samples; meta.json says %+v", differ, series, n, m.Stats)
			}
			samples += n
			chunksOf += m.Stats.NumChunks
			perReplica[m.Thanos.Labels["receive_replica"]]++
		}
		all := uint64(whole * windows * replicas)
		switch differ {
		case Gaps:
			if samples > all*995/1000 || samples < all*980/1000 {
				t.Errorf("gaps: %d samples of %d, want 1 %% less", samples, all)
			}
		default:
			if samples != all {
				t.Errorf("difference %d: %d samples, want %d", differ, samples, all)
			}
		}
		if more := chunksOf > seriesOf*4*windows*replicas; more != (differ == Restarts || differ == Late) {
			t.Errorf("difference %d: %d chunks", differ, chunksOf)
		}
		if len(perReplica) != replicas {
			t.Errorf("difference %d: replicas %v", differ, perReplica)
		}
	}
	s.Replicas = 0
	if s.Validate() == nil {
		t.Error("no error for a stream without replicas")
	}
}
