package block

import (
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/tenant"
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

// ownFolder is the name at the root of the bucket below which Hearth keeps what is not a block.
const ownFolder = "hearth"

// Object is the name in the bucket of a file of block id; rel is its path inside the block.
func Object(id ulid.ULID, rel string) string { return id.String() + objstore.DirDelim + rel }

// place is where a block is: in the directory of a tenant, or at the root of the bucket.
type place struct {
	id   ulid.ULID
	home tenant.ID // "" = at the root
}

func (p place) object(rel string) string {
	if p.home == "" {
		return Object(p.id, rel)
	}
	return string(p.home) + objstore.DirDelim + Object(p.id, rel)
}

// ParseID reads the first element of an object name as a block id. Only the canonical upper-case spelling is one.
func ParseID(name string) (ulid.ULID, bool) {
	first, _, _ := strings.Cut(name, objstore.DirDelim)
	id, err := ulid.ParseStrict(first)
	return id, err == nil && id.String() == first
}
