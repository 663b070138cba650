package ship

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// Lister lists the blocks that are to be in the bucket, oldest first. It leaves out those that are not to be shipped at
// all. The result is the caller's. An error means that nothing is known of the blocks.
type Lister func() ([]Block, error)

// Dir lists all blocks in dir: the directories that are named by a ULID. A TSDB gives a block this name when the block
// is whole. Everything else in dir is left alone.
func Dir(dir string) Lister {
	return func() ([]Block, error) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		var all []Block
		for _, e := range entries {
			if id, ok := block.ParseID(e.Name()); ok && e.IsDir() {
				all = append(all, readBlock(filepath.Join(dir, e.Name()), id))
			}
		}
		slices.SortStableFunc(all, func(a, b Block) int { return cmp.Compare(a.Meta.MinTime, b.Meta.MinTime) })
		return all, nil
	}
}

func readBlock(dir string, id ulid.ULID) Block {
	b := Block{ID: id, Dir: dir}
	f, err := os.Open(filepath.Join(dir, block.MetaName))
	if err != nil {
		b.Fault = err
		return b
	}
	defer f.Close()
	m, err := block.ReadMeta(f, id)
	if err != nil {
		b.Fault = err
		return b
	}
	b.Meta = m.BlockMeta
	return b
}

// Overlapping is another block of the same stream in the bucket that overlaps with a local one, whose part of Thanos is
// origin; nil if there is none.
func Overlapping(there block.View, local Block, origin block.Thanos) *block.Meta {
	for _, m := range there.Select(block.Within(local.Meta.MinTime, local.Meta.MaxTime-1)) {
		if m.ULID != local.ID && maps.Equal(m.Thanos.Labels, origin.Labels) && m.Thanos.Downsample == origin.Downsample {
			return m
		}
	}
	return nil
}
