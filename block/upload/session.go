package upload

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// folder has the sessions, as <ULID>.json, and the files that were sent, below <ULID>/.
const folder = "hearth/uploads/"

// The states of a session, in the words of Mimir's API.
const (
	uploading  = "uploading"
	validating = "validating"
	failed     = "failed"
	complete   = "complete" // there is no session any more: the block is in the bucket
)

// maxSession bounds a session and the meta.json that begins one, in bytes.
const maxSession = 1 << 20

// session is a block that is being sent.
type session struct {
	Version int       `json:"version"`
	Tenant  tenant.ID `json:"tenant"`
	// State is one of the constants; Error says why it failed.
	State string `json:"state"`
	Error string `json:"error,omitempty"`
	// Began is when it was started.
	Began time.Time `json:"began"`
	// By is the process that validates the block, and Touched when it last said so.
	By      string    `json:"by,omitempty"`
	Touched time.Time `json:"touched,omitzero"`
	// Meta is what meta.json becomes, except what is known only when it is written.
	Meta json.RawMessage `json:"meta"`

	meta *block.Meta // Meta, read
}

func sessionName(id ulid.ULID) string { return folder + id.String() + ".json" }

// stagedName is where the file rel of a block is kept until all files are there.
func stagedName(id ulid.ULID, rel string) string { return folder + block.Object(id, rel) }

// bytes is how large the block will be, by what its client says.
func (s *session) bytes() int64 { return s.meta.Bytes() }

// holds reports whether s has files in the bucket, or may get some.
func (s *session) holds() bool { return s.State == uploading || s.State == validating }

// read returns the session of a block. Errors: NotFound; Invalid; Unavailable.
func (r *Receiver) read(ctx context.Context, id ulid.ULID) (*session, error) {
	name := sessionName(id)
	o, err := r.quietly.Get(ctx, name)
	if err != nil && r.bkt.IsObjNotFoundErr(err) {
		return nil, notStarted(id)
	}
	if err != nil {
		return nil, errs.E(errs.Unavailable, "read %s: %w", name, err)
	}
	defer o.Close()
	b, err := io.ReadAll(io.LimitReader(o, 2*maxSession+1))
	if err != nil {
		return nil, errs.E(errs.Unavailable, "read %s: %w", name, err)
	}
	s := &session{}
	if err = json.Unmarshal(b, s); err == nil {
		s.meta, err = block.ReadMeta(bytes.NewReader(s.Meta), id)
	}
	if err == nil && s.Version != 1 {
		err = fmt.Errorf("version %d, want 1", s.Version)
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "%s: %w", name, err)
	}
	return s, nil
}

// of is read for requests of a tenant: the session of another one does not exist for it.
func (r *Receiver) of(ctx context.Context, id ulid.ULID, t tenant.ID) (*session, error) {
	s, err := r.read(ctx, id)
	if err == nil && s.Tenant != t {
		return nil, notStarted(id)
	}
	return s, err
}

func notStarted(id ulid.ULID) error {
	return errs.E(errs.NotFound, "the upload of block %s was not started, or it ended: begin it anew", id)
}

// hasFailed is the answer to a request to go on with s, which has failed.
func (s *session) hasFailed(id ulid.ULID) error {
	return errs.E(errs.Conflict, "the upload of block %s failed, and has to begin anew: %s", id, s.Error)
}

func (r *Receiver) write(ctx context.Context, id ulid.ULID, s *session) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return errs.E(errs.Internal, "session of block %s: %w", id, err)
	}
	if err := r.bkt.Upload(ctx, sessionName(id), bytes.NewReader(raw)); err != nil {
		return errs.E(errs.Unavailable, "write %s: %w", sessionName(id), err)
	}
	return nil
}

// list returns the ids of all sessions, and of the folders of files of which there is no session.
func (r *Receiver) list(ctx context.Context) (sessions, orphans []ulid.ULID, err error) {
	var folders []ulid.ULID
	err = r.bkt.Iter(ctx, folder, func(name string) error {
		rel := strings.TrimPrefix(name, folder)
		text, isSession := strings.CutSuffix(rel, ".json")
		if id, err := ulid.ParseStrict(strings.TrimSuffix(text, objstore.DirDelim)); err == nil {
			if isSession {
				sessions = append(sessions, id)
			} else {
				folders = append(folders, id)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, nil, errs.E(errs.Unavailable, "list %s: %w", folder, err)
	}
	orphans = slices.DeleteFunc(folders, func(id ulid.ULID) bool { return slices.Contains(sessions, id) })
	return sessions, orphans, nil
}

// unstage removes the files that were sent for a block.
func (r *Receiver) unstage(ctx context.Context, id ulid.ULID) error {
	return r.remove(ctx, objstore.NewPrefixedBucket(r.bkt, strings.TrimSuffix(folder, objstore.DirDelim)), id)
}

// remove deletes all objects of a block's directory in bkt, unless there is a meta.json.
func (r *Receiver) remove(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	names, err := block.ObjectsOf(ctx, bkt, id)
	if err != nil || slices.Contains(names, block.MetaName) {
		return err
	}
	return block.Delete(ctx, bkt, id)
}

// end removes a session and all that it left. The session goes last, so that what is left is found again.
func (r *Receiver) end(ctx context.Context, id ulid.ULID) error {
	if err := r.unstage(ctx, id); err != nil {
		return err
	}
	if err := r.bkt.Delete(ctx, sessionName(id)); err != nil && !r.bkt.IsObjNotFoundErr(err) {
		return errs.E(errs.Unavailable, "delete %s: %w", sessionName(id), err)
	}
	return nil
}

// Labels that Mimir's blocks have, which say nothing of a block once it has its tenant's label.
var mimirLabels = []string{"__org_id__", "__ingester_id__", "__compactor_shard_id__"}

// The bounds of what a block says of itself.
const (
	maxSpan    = 32 * 24 * time.Hour // Prometheus makes blocks of 31 days at most
	maxAhead   = 10 * time.Minute    // clocks differ
	maxFiles   = 10_000
	maxSegment = 4 << 30 // offsets in segments have 32 bits
)

var segmentName = regexp.MustCompile(`^` + block.ChunksName + `/[0-9]{6}$`)

// metaOf reads the meta.json that begins an upload, and returns what the block's becomes: its times, statistics and
// files are those of the client, and who it belongs to is what this process says. Errors: Invalid; TooLarge.
func metaOf(raw []byte, id ulid.ULID, t tenant.ID, opts *Options, now time.Time) (*block.Meta, error) {
	said, err := block.ReadMeta(bytes.NewReader(raw), id)
	if err != nil {
		return nil, err
	}
	fault := func(format string, args ...any) error {
		return errs.E(errs.Invalid, "meta.json of block %s: "+format, append([]any{id}, args...)...)
	}
	for name := range said.Thanos.Labels {
		if name != opts.TenantLabel && !slices.Contains(mimirLabels, name) {
			return nil, fault("it has the external label %q, which would be lost: an uploaded block has its tenant's label "+
				"alone (hearth tools bucket upload-blocks keeps all)", name)
		}
	}
	span := time.Duration(min(uint64(said.MaxTime-said.MinTime), uint64(maxSpan/time.Millisecond)+1)) * time.Millisecond
	switch {
	case said.MinTime < 0 || said.MinTime >= said.MaxTime:
		return nil, fault("its time is from %d to %d", said.MinTime, said.MaxTime)
	case span > maxSpan:
		return nil, fault("it spans more than %s", maxSpan)
	case said.MaxTime > now.Add(maxAhead).UnixMilli():
		return nil, fault("it ends in the future")
	case said.Thanos.Downsample.Resolution != 0:
		return nil, fault("it is downsampled: send the raw block")
	case said.Stats.NumSeries == 0 || said.Stats.NumSamples == 0 || said.Stats.NumChunks == 0:
		return nil, fault("its stats say that it has no samples")
	case said.Compaction.Failed:
		return nil, fault("its compaction failed")
	}
	files, err := filesOf(said, fault)
	if err != nil {
		return nil, err
	}
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: said.MinTime, MaxTime: said.MaxTime,
		Stats: said.Stats, Version: 1}}
	m.Stats.NumTombstones = 0 // they are not sent
	m.Compaction.Level = max(said.Compaction.Level, 1)
	// It is made of itself. What it says that it was made of must hide no block of the bucket.
	m.Compaction.Sources = []ulid.ULID{id}
	m.Thanos = block.Thanos{Version: 1, Labels: map[string]string{opts.TenantLabel: string(t)}, Source: block.SourceUpload,
		Files: files}
	if n := m.Bytes(); n > opts.MaxBytes {
		return nil, errs.E(errs.TooLarge, "block %s has %d bytes, and an uploaded block may have %d", id, n, opts.MaxBytes)
	}
	return m, nil
}

// filesOf are the files that a client is to send, in order: the index, and segments that are numbered without a gap.
func filesOf(m *block.Meta, fault func(string, ...any) error) (files []block.File, err error) {
	segments, indexes := 0, 0
	for _, f := range m.Thanos.Files {
		switch {
		case f.RelPath == block.MetaName:
			continue
		case f.RelPath == block.IndexName:
			indexes++
		case segmentName.MatchString(f.RelPath):
			if f.SizeBytes > maxSegment {
				return nil, fault("file %s has %d bytes, and may have %d", f.RelPath, f.SizeBytes, int64(maxSegment))
			}
			segments++
		default:
			return nil, fault("file %q is neither %s nor a segment in %s", f.RelPath, block.IndexName, block.ChunksName)
		}
		if f.SizeBytes <= 0 {
			return nil, fault("file %s has no size", f.RelPath)
		}
		files = append(files, block.File{RelPath: f.RelPath, SizeBytes: f.SizeBytes})
	}
	if indexes != 1 || segments == 0 || len(files) > maxFiles {
		return nil, fault("thanos.files names %d indexes and %d segments: want one, and 1 to %d", indexes, segments, maxFiles)
	}
	slices.SortFunc(files, func(a, b block.File) int { return cmp.Compare(a.RelPath, b.RelPath) })
	for i := range segments {
		if want := block.SegmentPath(i); files[i].RelPath != want {
			return nil, fault("thanos.files does not name %s", want)
		}
	}
	return files, nil
}

// file is the file of a session that rel names. Errors: Invalid.
func (s *session) file(rel string) (block.File, error) {
	i := slices.IndexFunc(s.meta.Thanos.Files, func(f block.File) bool { return f.RelPath == rel })
	if i < 0 || path.Clean(rel) != rel {
		return block.File{}, errs.E(errs.Invalid, "path %q is none of the files that the upload was started with", rel)
	}
	return s.meta.Thanos.Files[i], nil
}
