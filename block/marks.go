package block

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// The reasons that a mark gives, in Thanos's words.
const (
	ReasonManual           = "manual"
	ReasonIndexTooLarge    = "index-size-exceeding"
	ReasonChunksOutOfOrder = "block-index-out-of-order-chunk"
	ReasonVerticalOverlap  = "downsample-vertical-compaction"
)

const markVersion = 1

// DeletionMark says since when a block is to be deleted. Times of marks are in Unix seconds.
type DeletionMark struct {
	ID           ulid.ULID `json:"id"`
	Version      int       `json:"version"`
	Details      string    `json:"details,omitempty"`
	DeletionTime int64     `json:"deletion_time"`
}

// NoCompactMark keeps a block out of compaction.
type NoCompactMark struct {
	ID            ulid.ULID `json:"id"`
	Version       int       `json:"version"`
	Details       string    `json:"details,omitempty"`
	NoCompactTime int64     `json:"no_compact_time"`
	Reason        string    `json:"reason"`
}

// NoDownsampleMark keeps a block out of downsampling.
type NoDownsampleMark struct {
	ID               ulid.ULID `json:"id"`
	Version          int       `json:"version"`
	Details          string    `json:"details,omitempty"`
	NoDownsampleTime int64     `json:"no_downsample_time"`
	Reason           string    `json:"reason"`
}

// IsMark reports whether a path inside a block is that of a mark.
func IsMark(rel string) bool {
	_, ok := markKind(rel)
	return ok
}

// marksFolder has a copy of each mark that Hearth wrote, so that one listing finds them all.
const marksFolder = "hearth/marks/"

// markCopy is the object of Hearth's copy of a mark.
func markCopy(key markKey) string { return marksFolder + key.id.String() + "-" + markNames[key.kind] }

// parseMarkCopy reads the name of an object that markCopy made.
func parseMarkCopy(object string) (markKey, bool) {
	name, ok := strings.CutPrefix(object, marksFolder)
	if !ok || len(name) <= ulid.EncodedSize || name[ulid.EncodedSize] != '-' {
		return markKey{}, false
	}
	id, isID := ParseID(name[:ulid.EncodedSize])
	kind, isMark := markKind(name[ulid.EncodedSize+1:])
	return markKey{id, kind}, isID && isMark
}

// MarkDeletion marks block id to be deleted, counting from at. A mark that exists stays as it is: the delay counts from
// the first one.
func MarkDeletion(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, details string, at time.Time) error {
	return mark(ctx, bkt, markKey{id, bucketindex.Deletion}, DeletionMark{id, markVersion, details, at.Unix()})
}

// MarkNoCompact keeps block id out of compaction. A mark that exists stays as it is.
func MarkNoCompact(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, reason, details string, at time.Time) error {
	return mark(ctx, bkt, markKey{id, bucketindex.NoCompact}, NoCompactMark{id, markVersion, details, at.Unix(), reason})
}

// MarkNoDownsample keeps block id out of downsampling. A mark that exists stays as it is.
func MarkNoDownsample(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, reason, details string,
	at time.Time) error {
	return mark(ctx, bkt, markKey{id, bucketindex.NoDownsample},
		NoDownsampleMark{id, markVersion, details, at.Unix(), reason})
}

// Unmark removes the mark called name (DeletionMarkName, ...) from block id; without one it does nothing.
//
//  1. Hearth's copy: a copy without its mark would stay in force for gateways
//  2. the mark
func Unmark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, name string) error {
	kind, ok := markKind(name)
	if !ok {
		return errs.E(errs.Invalid, "%q is not a mark", name)
	}
	for _, object := range []string{markCopy(markKey{id, kind}), Object(id, name)} {
		if err := remove(ctx, bkt, object); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes an object that need not exist.
func remove(ctx context.Context, bkt objstore.Bucket, object string) error {
	there, err := bkt.Exists(ctx, object)
	if err == nil && there {
		err = bkt.Delete(ctx, object)
	}
	if err != nil && !bkt.IsObjNotFoundErr(err) {
		return unavailable("remove %s: %w", object, err)
	}
	return nil
}

// ReadDeletionMark returns the deletion mark of block id. Errors: NotFound without one, Invalid, Unavailable.
func ReadDeletionMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (DeletionMark, error) {
	m, err := readMark(ctx, bkt, Object(id, DeletionMarkName), id, bucketindex.Deletion)
	return DeletionMark{m.ID, markVersion, m.Details, m.At}, err
}

// mark writes a mark, as putMark does.
func mark(ctx context.Context, bkt objstore.Bucket, key markKey, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return errs.E(errs.Internal, "mark %s: %w", Object(key.id, markNames[key.kind]), err)
	}
	_, err = putMark(ctx, bkt, key, b)
	return err
}

// putMark writes b as a mark, and reports whether it wrote something.
//
//  1. the mark, beside the block, where every reader of Thanos's layout finds it
//  2. Hearth's copy, with the same bytes
//
// A mark that exists stays, and gets the copy that it may lack, since a crash may have come between the two. One that
// cannot be understood counts as absent: a crash may have cut it short.
func putMark(ctx context.Context, bkt objstore.Bucket, key markKey, b []byte) (wrote bool, err error) {
	object := Object(key.id, markNames[key.kind])
	there, err := readSmall(ctx, bkt, object, maxJSON)
	if err == nil {
		if _, err := parseMark(there, key.id, key.kind); err == nil {
			b = there
		}
	}
	for _, name := range []string{object, markCopy(key)} {
		if name != object {
			there, err = readSmall(ctx, bkt, name, maxJSON)
		}
		switch errs.KindOf(err) {
		case errs.OK, errs.NotFound:
			if err == nil && bytes.Equal(there, b) {
				continue
			}
			wrote, err = true, bkt.Upload(ctx, name, bytes.NewReader(b))
		}
		if err != nil {
			return wrote, unavailable("mark %s: %w", name, err)
		}
	}
	return wrote, nil
}

// CopyMark gives block id the mark that raw is, of another bucket, byte for byte, and reports whether it wrote
// something. A mark that exists stays as it is. One that is not of block id is Invalid.
func CopyMark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, name string, raw []byte) (bool, error) {
	kind, ok := markKind(name)
	if !ok {
		return false, errs.E(errs.Invalid, "%q is not a mark", name)
	}
	if _, err := parseMark(raw, id, kind); err != nil {
		return false, errs.E(errs.Invalid, "%s: %w", Object(id, name), err)
	}
	return putMark(ctx, bkt, markKey{id, kind}, raw)
}

// readMark reads a mark from object, and checks that it is one of block id. Errors: NotFound, Invalid, Unavailable.
func readMark(ctx context.Context, bkt objstore.BucketReader, object string, id ulid.ULID,
	kind bucketindex.Kind) (bucketindex.Mark, error) {
	b, err := readJSON(ctx, bkt, object)
	if err != nil {
		return bucketindex.Mark{}, err
	}
	m, err := parseMark(b, id, kind)
	if err != nil {
		return bucketindex.Mark{}, errs.E(errs.Invalid, "%s: %w", object, err)
	}
	return m, nil
}

// parseMark decodes a mark, and checks that it is one of block id.
func parseMark(b []byte, id ulid.ULID, kind bucketindex.Kind) (bucketindex.Mark, error) {
	var m struct { // all kinds in one: they differ in the name of the time
		ID           ulid.ULID `json:"id"`
		Version      int       `json:"version"`
		Details      string    `json:"details"`
		Reason       string    `json:"reason"`
		Deletion     int64     `json:"deletion_time"`
		NoCompact    int64     `json:"no_compact_time"`
		NoDownsample int64     `json:"no_downsample_time"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return bucketindex.Mark{}, err
	}
	if m.ID != id || m.Version != markVersion {
		return bucketindex.Mark{}, fmt.Errorf("is of block %s, version %d", m.ID, m.Version)
	}
	at := map[bucketindex.Kind]int64{bucketindex.Deletion: m.Deletion, bucketindex.NoCompact: m.NoCompact,
		bucketindex.NoDownsample: m.NoDownsample}
	return bucketindex.Mark{ID: id, Kind: kind, At: at[kind], Reason: m.Reason, Details: m.Details}, nil
}
