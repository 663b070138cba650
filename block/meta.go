package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Where a block was made: the values that Thanos.Source has today.
const (
	SourceSidecar   = "sidecar"
	SourceReceive   = "receive"
	SourceCompactor = "compactor"
	SourceRuler     = "ruler"
	SourceRewrite   = "bucket.rewrite"
	SourceUpload    = "bucket.upload"
	SourceRepair    = "bucket.repair"
	SourceTest      = "test"

	sourceCompactorRepair = "compactor.repair"
)

// MaxMetaSize is the largest meta.json that is read, in bytes. A compacted block lists its sources and segment files:
// tens of kilobytes at most.
const MaxMetaSize = 16 << 20

// The versions of the two parts of meta.json that exist.
const (
	metaVersion   = 1
	thanosVersion = 1
)

// Meta is a block's meta.json: what Prometheus says of the block, and what Thanos adds. Times are in ms; MaxTime is
// exclusive.
type Meta struct {
	tsdb.BlockMeta
	Thanos Thanos `json:"thanos"`
	// Origin is extensions.hearth of Thanos, nil unless Hearth's compactor made the block. Views and indexes keep it,
	// though they have no extensions. Do not change it.
	Origin *Origin `json:"-"`

	home tenant.ID // in whose directory it was found; "" = at the root of the bucket
	read []byte    // what ReadMeta has read; its unknown fields are written again
}

// Object is the name in the bucket of a file of the block; rel is its path inside the block.
func (m *Meta) Object(rel string) string { return place{m.ULID, m.home}.object(rel) }

// Look reads the meta.json of the block anew, to find out whether it is still there. Errors are those of FetchMeta.
func (m *Meta) Look(ctx context.Context, bkt objstore.BucketReader) error {
	_, err := place{m.ULID, m.home}.meta(ctx, bkt)
	return err
}

// Thanos is the part of meta.json that says where a block came from. Fields keep the order in which Thanos writes them.
type Thanos struct {
	// Version is 1; absent means 1.
	Version int `json:"version,omitempty"`
	// Labels are the external labels: the identity of the stream that the block is a piece of. Never nil after ReadMeta.
	Labels map[string]string `json:"labels"`
	// Downsample is the resolution, which tells raw blocks from downsampled ones.
	Downsample Downsample `json:"downsample"`
	// Source is who made the block: SourceReceive, ...
	Source string `json:"source"`
	// SegmentFiles are the names in chunks/, sorted. Older readers use it; newer ones use Files.
	SegmentFiles []string `json:"segment_files,omitempty"`
	// Files are all files of the block, sorted by path. Upload fills it.
	Files []File `json:"files,omitempty"`
	// Rewrites tell what was deleted or relabelled afterwards. Kept as found.
	Rewrites json.RawMessage `json:"rewrites,omitempty"`
	// IndexStats bound how much a reader must fetch for one series or chunk.
	IndexStats IndexStats `json:"index_stats"`
	// Extensions belong to whoever wrote them. Kept as found.
	Extensions json.RawMessage `json:"extensions,omitempty"`
	// UploadTime is when meta.json was written to the bucket; zero in old blocks.
	UploadTime time.Time `json:"upload_time"`
}

// Downsample is the resolution of a block in ms: 0 raw, 300000, 3600000.
type Downsample struct {
	Resolution int64 `json:"resolution"`
}

// IndexStats are the sizes in bytes of the largest series entry in the index and of the largest chunk; 0 is unknown.
type IndexStats struct {
	SeriesMaxSize int64 `json:"series_max_size,omitempty"`
	ChunkMaxSize  int64 `json:"chunk_max_size,omitempty"`
}

// File is one file of a block.
type File struct {
	RelPath string `json:"rel_path"`
	// SizeBytes is 0 for meta.json, whose size is not known while it is written.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	Hash      *Hash `json:"hash,omitempty"`
}

// Hash is the checksum of a file. Func is "SHA256".
type Hash struct {
	Func  string `json:"hashFunc"`
	Value string `json:"value"`
}

// ExternalLabels are Thanos.Labels as a label set.
func (m *Meta) ExternalLabels() labels.Labels { return labels.FromMap(m.Thanos.Labels) }

// SizeOf is how many bytes the meta says that a file of the block has, 0 if it does not say so.
func (m *Meta) SizeOf(rel string) int64 {
	for _, f := range m.Thanos.Files {
		if f.RelPath == rel {
			return f.SizeBytes
		}
	}
	return 0
}

// Bytes is how large the block is, as Files say. It is 0 in old blocks, which list none.
func (m *Meta) Bytes() (n int64) {
	for _, f := range m.Thanos.Files {
		n += f.SizeBytes
	}
	return n
}

// Uploaded is when the block came into the bucket. One whose meta.json does not say when counts from when it was made.
func (m *Meta) Uploaded() time.Time {
	if t := m.Thanos.UploadTime; !t.IsZero() {
		return t
	}
	return m.ULID.Timestamp()
}

// Validate reports all that is wrong with m, as kind Invalid. id is the block directory that m was found in.
func (m *Meta) Validate(id ulid.ULID) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if m.Version != metaVersion {
		fault("version %d, want %d", m.Version, metaVersion)
	}
	if m.ULID != id {
		fault("ulid %s in the directory of %s", m.ULID, id)
	}
	if m.MinTime > m.MaxTime {
		fault("minTime %d after maxTime %d", m.MinTime, m.MaxTime)
	}
	if m.Thanos.Downsample.Resolution < 0 {
		fault("resolution %d", m.Thanos.Downsample.Resolution)
	}
	for _, f := range m.Thanos.Files {
		if !localPath(f.RelPath) || f.SizeBytes < 0 {
			fault("file %q of %d bytes", f.RelPath, f.SizeBytes)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return errs.E(errs.Invalid, "meta.json of block %s: %w", id, errors.Join(faults...))
}

// localPath reports whether p is a plain path inside a block directory.
func localPath(p string) bool {
	return p != "" && p == path.Clean(p) && p != "." && p != ".." && p[0] != '/' && !strings.HasPrefix(p, "../") &&
		!strings.ContainsAny(p, "\\\x00")
}

// ReadMeta decodes and validates the meta.json of block id. The fields that are needed to serve the block must be
// right: id, version, times, external labels and resolution. All other fields are advice: unknown ones are kept for
// Write, and known ones that are malformed are left out. Errors are of kind Invalid, except those of r itself, which
// are passed on.
func ReadMeta(r io.Reader, id ulid.ULID) (*Meta, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxMetaSize+1))
	if err != nil {
		return nil, fmt.Errorf("meta.json of block %s: %w", id, err)
	}
	if len(b) > MaxMetaSize {
		return nil, errs.E(errs.Invalid, "meta.json of block %s is larger than %d bytes", id, MaxMetaSize)
	}
	m := &Meta{}
	if err := m.decode(b); err != nil {
		return nil, errs.E(errs.Invalid, "meta.json of block %s: %w", id, err)
	}
	m.Thanos.Files = slices.DeleteFunc(m.Thanos.Files, func(f File) bool {
		return !localPath(f.RelPath) || f.SizeBytes < 0
	})
	if err := m.Validate(id); err != nil {
		return nil, err
	}
	if m.Thanos.Labels == nil {
		m.Thanos.Labels = map[string]string{}
	}
	m.Origin = m.Thanos.origin(id)
	m.read = b
	return m, nil
}

// decode reads b, and leaves out those parts that are advice and malformed.
func (m *Meta) decode(b []byte) error {
	if json.Unmarshal(b, m) == nil {
		return nil
	}
	*m = Meta{}
	var needed struct {
		ULID    ulid.ULID `json:"ulid"`
		MinTime int64     `json:"minTime"`
		MaxTime int64     `json:"maxTime"`
		Version int       `json:"version"`
		Thanos  struct {
			Labels     map[string]string `json:"labels"`
			Downsample Downsample        `json:"downsample"`
		} `json:"thanos"`
	}
	if err := json.Unmarshal(b, &needed); err != nil {
		return err
	}
	var advice struct {
		Stats      json.RawMessage            `json:"stats"`
		Compaction map[string]json.RawMessage `json:"compaction"`
		Thanos     map[string]json.RawMessage `json:"thanos"`
	}
	_ = json.Unmarshal(b, &advice)
	m.ULID, m.MinTime, m.MaxTime, m.Version = needed.ULID, needed.MinTime, needed.MaxTime, needed.Version
	take(advice.Stats, &m.Stats)
	take(advice.Compaction["level"], &m.Compaction.Level)
	take(advice.Compaction["sources"], &m.Compaction.Sources)
	take(advice.Compaction["parents"], &m.Compaction.Parents)
	take(advice.Compaction["hints"], &m.Compaction.Hints)
	t := &m.Thanos
	t.Labels, t.Downsample = needed.Thanos.Labels, needed.Thanos.Downsample
	take(advice.Thanos["version"], &t.Version)
	take(advice.Thanos["source"], &t.Source)
	take(advice.Thanos["segment_files"], &t.SegmentFiles)
	take(advice.Thanos["files"], &t.Files)
	take(advice.Thanos["rewrites"], &t.Rewrites)
	take(advice.Thanos["index_stats"], &t.IndexStats)
	take(advice.Thanos["extensions"], &t.Extensions)
	take(advice.Thanos["upload_time"], &t.UploadTime)
	return nil
}

// take decodes raw into dst. If raw does not have the form of dst, dst stays as it was.
func take[T any](raw json.RawMessage, dst *T) {
	var v T
	if len(raw) > 0 && json.Unmarshal(raw, &v) == nil {
		*dst = v
	}
}

// Write encodes m as Prometheus and Thanos do: JSON indented by tabs. Fields that Meta does not have, and that were in
// the meta.json that m or what it was copied from was read from, come last in their object. They are lost only with the
// entry of a list (files, parents) that was changed.
func (m *Meta) Write(w io.Writer) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func (m *Meta) encode() ([]byte, error) {
	out := *m
	if out.Thanos.Version == 0 {
		out.Thanos.Version = thanosVersion
	}
	if out.Thanos.Labels == nil {
		out.Thanos.Labels = map[string]string{}
	}
	var err error
	if o := out.Origin; o != nil && !reflect.DeepEqual(o, out.Thanos.origin(m.ULID)) {
		out.Thanos.Extensions, err = withOrigin(out.Thanos.Extensions, o)
	}
	var compact []byte
	if err == nil {
		compact, err = json.Marshal(&out)
	}
	if err != nil {
		return nil, errs.E(errs.Internal, "encode meta.json of block %s: %w", m.ULID, err)
	}
	if m.read != nil {
		compact = keepUnknown(m.read, compact, reflect.TypeFor[Meta]())
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "\t"); err != nil {
		return nil, errs.E(errs.Internal, "encode meta.json of block %s: %w", m.ULID, err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
