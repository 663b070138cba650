package store

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// header is a block's index-header as requests read it. Strings that come from it are valid while the block is held.
type header interface {
	LookupSymbol(ctx context.Context, ref uint32) (string, error)
	LabelNames() []string
	Values(ctx context.Context, name, prefix string, f func(value string, postings index.Range) bool) error
	Ranges(ctx context.Context, dst []index.Range, name string, values ...string) ([]index.Range, error)
	IndexSize() int64
	SeriesRange() index.Range
}

// headerFile gives a block's index-header to those that hold the block. Header may take long and may fail; Close is
// called once, when nobody holds the block any more.
type headerFile interface {
	Header(ctx context.Context) (header, error)
	// WasOpen reports whether the index-header was open once.
	WasOpen() bool
	Close() error
}

// bucketBlock is a block that is served. It stays open while somebody holds a reference: the snapshot has one, and each
// request that reads the block has one.
type bucketBlock struct {
	headerFile
	meta     *block.Meta
	tenant   tenant.ID
	external labels.Labels
	segments []segment
	refs     atomic.Int32
	// entrySize and chunkSize are what is read for a series entry or a chunk with what is around its data.
	entrySize, chunkSize readAhead
}

// segment is one file of chunks. size is -1 if meta.json does not say it.
type segment struct {
	object string
	size   int64
	number int // of the file's name: 1 for chunks/000001
}

// newBucketBlock takes f over. The caller has the first reference.
func newBucketBlock(m *block.Meta, id tenant.ID, f headerFile) *bucketBlock {
	b := &bucketBlock{headerFile: f, meta: m, tenant: id, external: m.ExternalLabels()}
	for _, f := range m.Thanos.Files {
		if strings.HasPrefix(f.RelPath, block.ChunksName+"/") {
			b.segments = append(b.segments, segment{m.Object(f.RelPath), f.SizeBytes, 0})
		}
	}
	slices.SortFunc(b.segments, func(x, y segment) int { return strings.Compare(x.object, y.object) })
	b.entrySize.start(m.Thanos.IndexStats.SeriesMaxSize, seriesGuess)
	b.chunkSize.start(m.Thanos.IndexStats.ChunkMaxSize, chunkGuess)
	b.refs.Store(1)
	return b
}

// segment is the file of chunks that references call i. Of what meta.json lists only the sizes are used, as hints.
func (b *bucketBlock) segment(i int) segment {
	object := b.meta.Object(block.SegmentPath(i))
	at := slices.IndexFunc(b.segments, func(s segment) bool { return s.object == object })
	if at < 0 {
		return segment{object, -1, i + 1}
	}
	return segment{object, b.segments[at].size, i + 1}
}

// hold adds a reference. The caller has one, or holds Gateway.mu while b is in the snapshot.
func (b *bucketBlock) hold() { b.refs.Add(1) }

// release gives a reference back. The last one closes the block.
func (b *bucketBlock) release() {
	if b.refs.Add(-1) == 0 {
		b.Close()
	}
}

func (b *bucketBlock) indexObject() string { return b.meta.Object(block.IndexName) }
