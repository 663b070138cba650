package block

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// View is what a bucket holds at one moment. Nobody changes it once Fetch has returned it.
type View struct {
	// Number and Hash name the index object that the view was made with (docs/format/bucket-index.md). They are 0 and ""
	// if the bucket has no index, or one that is too old; then the whole bucket was listed.
	Number uint64
	Hash   string
	// Metas are the blocks that exist: with a valid meta.json. They have what readers and planners need, and no more
	// (see Meta.essential): FetchMeta returns all of a meta.json. They are shared between views, and their labels between
	// blocks: do not change them.
	Metas map[ulid.ULID]*Meta
	// The marks, of blocks with and without a meta.json.
	Deletions    map[ulid.ULID]DeletionMark
	NoCompact    map[ulid.ULID]NoCompactMark
	NoDownsample map[ulid.ULID]NoDownsampleMark
	// Requests are the deletions that operators asked for.
	Requests *deletion.List
	// Partial are the directories that are no blocks, with the reason. NotFound: there is no meta.json, since an upload or
	// a deletion is under way or was broken off. Invalid: meta.json is faulty. Unavailable: it could not be read.
	Partial map[ulid.ULID]error
	// MarkFaults are the marks that could not be read, by the object's name.
	MarkFaults map[string]error
	// IndexFault is why the index could not be read, nil if it was, or if there is none.
	IndexFault error
}

// States counts the directories of v by state, in Thanos's words: the label state of thanos_blocks_meta_synced. One may
// be counted in two states: a marked block is loaded, too.
func (v View) States() map[string]int {
	states := map[string]int{
		"loaded": len(v.Metas), "marked-for-deletion": len(v.Deletions), "no-meta-json": 0, "corrupted-meta-json": 0,
		"failed": 0,
	}
	for _, err := range v.Partial {
		switch errs.KindOf(err) {
		case errs.NotFound:
			states["no-meta-json"]++
		case errs.Invalid:
			states["corrupted-meta-json"]++
		default:
			states["failed"]++
		}
	}
	return states
}

// errNoMeta is the reason of a directory without a meta.json. There may be many, so they share it.
var errNoMeta = errs.E(errs.NotFound, "there is no meta.json")

// markKey names a mark.
type markKey struct {
	id   ulid.ULID
	kind bucketindex.Kind
}

// markNames are the names of marks in the directory of their block.
var markNames = map[bucketindex.Kind]string{
	bucketindex.Deletion: DeletionMarkName, bucketindex.NoCompact: NoCompactMarkName,
	bucketindex.NoDownsample: NoDownsampleMarkName,
}

func markKind(name string) (bucketindex.Kind, bool) {
	switch name {
	case DeletionMarkName:
		return bucketindex.Deletion, true
	case NoCompactMarkName:
		return bucketindex.NoCompact, true
	case NoDownsampleMarkName:
		return bucketindex.NoDownsample, true
	}
	return 0, false
}

func newView(blocks int) View {
	return View{
		Metas: make(map[ulid.ULID]*Meta, blocks), Deletions: map[ulid.ULID]DeletionMark{},
		NoCompact: map[ulid.ULID]NoCompactMark{}, NoDownsample: map[ulid.ULID]NoDownsampleMark{},
		Partial: map[ulid.ULID]error{}, MarkFaults: map[string]error{},
	}
}

// setMarks puts marks into the maps of v.
func (v *View) setMarks(marks map[markKey]bucketindex.Mark) {
	for _, m := range marks {
		switch m.Kind {
		case bucketindex.Deletion:
			v.Deletions[m.ID] = DeletionMark{m.ID, markVersion, m.Details, m.At}
		case bucketindex.NoCompact:
			v.NoCompact[m.ID] = NoCompactMark{m.ID, markVersion, m.Details, m.At, m.Reason}
		case bucketindex.NoDownsample:
			v.NoDownsample[m.ID] = NoDownsampleMark{m.ID, markVersion, m.Details, m.At, m.Reason}
		}
	}
}

// essential is m as views and indexes have it: without checksums of files, the parents and what rewrites and extensions
// of others say, which only those need who make a new block of it.
func (m *Meta) essential() bucketindex.Block {
	b := bucketindex.Block{
		BlockMeta: m.BlockMeta, Labels: m.Thanos.Labels, Resolution: m.Thanos.Downsample.Resolution,
		Source: m.Thanos.Source, SeriesMaxSize: max(m.Thanos.IndexStats.SeriesMaxSize, 0),
		ChunkMaxSize: max(m.Thanos.IndexStats.ChunkMaxSize, 0), Origin: m.Origin,
	}
	b.Compaction.Parents = nil
	b.Compaction.Level = min(max(b.Compaction.Level, 0), math.MaxInt32)
	for _, f := range m.Thanos.Files {
		if f.SizeBytes > 0 {
			b.Files = append(b.Files, bucketindex.File{Path: f.RelPath, Size: f.SizeBytes})
		}
	}
	if t := m.Thanos.UploadTime; !t.IsZero() {
		b.Uploaded = t.UnixMilli()
	}
	return b
}

// interner makes equal texts and sets of labels of many metas one.
type interner struct {
	sets  map[string]map[string]string
	texts map[string]string
	key   []byte
}

func newInterner() *interner {
	return &interner{sets: map[string]map[string]string{}, texts: map[string]string{}}
}

func (in *interner) text(s string) string {
	if have, ok := in.texts[s]; ok {
		return have
	}
	in.texts[s] = s
	return s
}

// set returns the set that equals m.
func (in *interner) set(m map[string]string) map[string]string {
	in.key = in.key[:0]
	for _, name := range slices.Sorted(maps.Keys(m)) {
		for _, s := range []string{name, m[name]} {
			in.key = binary.AppendUvarint(in.key, uint64(len(s)))
			in.key = append(in.key, s...)
		}
	}
	if have, ok := in.sets[string(in.key)]; ok {
		return have
	}
	in.sets[string(in.key)] = m
	return m
}

// origin returns o with texts that it shares with those of other metas.
func (in *interner) origin(o *Origin) *Origin {
	if o == nil {
		return nil
	}
	out := *o
	out.Removed, out.Producers = in.list(o.Removed), in.list(o.Producers)
	return &out
}

func (in *interner) list(texts []string) []string {
	texts = slices.Clone(texts)
	for i, s := range texts {
		texts[i] = in.text(s)
	}
	return texts
}

// metaOf is the meta of a block of an index. It shares nothing with b but texts and the labels, which in makes one with
// those of other metas. Errors are of kind Invalid.
func metaOf(b *bucketindex.Block, in *interner) (*Meta, error) {
	m := &Meta{BlockMeta: b.BlockMeta, Origin: in.origin(b.Origin)}
	m.Compaction.Sources = slices.Clone(b.Compaction.Sources)
	m.Compaction.Hints = nil
	if len(b.Compaction.Hints) > 0 {
		m.Compaction.Hints = slices.Clone(b.Compaction.Hints)
	}
	m.Thanos = Thanos{
		Version: thanosVersion, Labels: in.set(b.Labels), Downsample: Downsample{b.Resolution}, Source: in.text(b.Source),
		IndexStats: IndexStats{b.SeriesMaxSize, b.ChunkMaxSize},
	}
	if b.Uploaded != 0 {
		m.Thanos.UploadTime = time.UnixMilli(b.Uploaded).UTC()
	}
	if len(b.Files) > 0 {
		m.Thanos.Files = make([]File, len(b.Files))
		for i, f := range b.Files {
			m.Thanos.Files[i] = File{RelPath: in.text(f.Path), SizeBytes: f.Size}
		}
	}
	return m, m.Validate(m.ULID)
}
