package bucketindex

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
)

// Index is what one full listing of a bucket found. Slices are sorted by id, ascending, and have each id once; Marks
// are sorted by id, then by kind, and have each pair once.
type Index struct {
	Blocks []Block
	Rest
}

// Rest is an index without its blocks.
type Rest struct {
	Marks []Mark
	// Leftovers are the directories without a meta.json.
	Leftovers []Leftover
}

// Block is what a gateway, a planner or a page needs of a meta.json. It is no replacement for one: fields that are not
// here are lost.
type Block struct {
	// BlockMeta has all fields but Compaction.Parents. Version is always 1.
	tsdb.BlockMeta
	// Labels are the external labels. Blocks with equal labels share one map after Decode; nobody may change it.
	Labels map[string]string
	// Resolution is in ms: 0 raw, 300000, 3600000.
	Resolution int64
	// Source is who made the block.
	Source string
	// Files are the files of the block whose sizes are known.
	Files []File
	// SeriesMaxSize and ChunkMaxSize are in bytes; 0 is unknown.
	SeriesMaxSize, ChunkMaxSize int64
	// Uploaded is when meta.json was written, in Unix milliseconds; 0 is unknown.
	Uploaded int64
	// Origin is nil unless Hearth's compactor made the block. Nobody may change it.
	Origin *Origin
}

// File is a file of a block. Path is relative to the block's directory, Size is in bytes.
type File struct {
	Path string
	Size int64
}

// Kind is the kind of a mark. The values are part of the format.
type Kind uint8

// The kinds of marks.
const (
	Deletion     Kind = 1
	NoCompact    Kind = 2
	NoDownsample Kind = 3
)

// Mark is a mark of a block, which need not be in the index itself.
type Mark struct {
	ID   ulid.ULID
	Kind Kind
	// At is the time that the mark says, in Unix seconds.
	At              int64
	Reason, Details string
	// Own says that the folder of Hearth's own marks had it, too. Such a mark counts only while that folder has it.
	Own bool
}

// Leftover is the directory of a block whose upload or deletion is under way, or was broken off.
type Leftover struct {
	ID ulid.ULID
	// Since is when a writer of the index first saw it without a meta.json, in Unix milliseconds.
	Since int64
}

// Sort puts the slices into the order that Encode expects.
func (ix *Index) Sort() {
	slices.SortFunc(ix.Blocks, func(a, b Block) int { return a.ULID.Compare(b.ULID) })
	ix.Rest.Sort()
}

// Sort puts the slices into the order that Encode expects.
func (r *Rest) Sort() {
	slices.SortFunc(r.Marks, compareMarks)
	slices.SortFunc(r.Leftovers, func(a, b Leftover) int { return a.ID.Compare(b.ID) })
}

// Equal reports whether r and other, both sorted, say the same.
func (r *Rest) Equal(other Rest) bool {
	return slices.Equal(r.Marks, other.Marks) && slices.Equal(r.Leftovers, other.Leftovers)
}

func compareMarks(a, b Mark) int {
	return cmp.Or(a.ID.Compare(b.ID), cmp.Compare(a.Kind, b.Kind))
}
