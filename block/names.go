package block

import (
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
)

// The names inside a block's directory.
const (
	MetaName             = "meta.json"
	IndexName            = "index"
	ChunksName           = "chunks"
	IndexHeaderName      = "index-header" // what Hearth adds to a block; see block/indexheader
	DeletionMarkName     = "deletion-mark.json"
	NoCompactMarkName    = "no-compact-mark.json"
	NoDownsampleMarkName = "no-downsample-mark.json"
)

// debugMetas is where copies of meta.json stay for people, also after their block is gone.
const debugMetas = "debug/metas"

// Object is the name in the bucket of a file of block id; rel is its path inside the block.
func Object(id ulid.ULID, rel string) string { return id.String() + objstore.DirDelim + rel }

// ParseID reads the first element of an object name as a block id. Only the canonical upper-case spelling is one.
func ParseID(name string) (ulid.ULID, bool) {
	first, _, _ := strings.Cut(name, objstore.DirDelim)
	id, err := ulid.ParseStrict(first)
	return id, err == nil && id.String() == first
}
