package block

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

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

func isMark(rel string) bool {
	return rel == DeletionMarkName || rel == NoCompactMarkName || rel == NoDownsampleMarkName
}

// MarkDeletion marks block id to be deleted, counting from at. A mark that exists stays as it is: the delay counts from
// the first one.
func MarkDeletion(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, details string, at time.Time) error {
	return mark(ctx, bkt, id, DeletionMarkName, DeletionMark{id, markVersion, details, at.Unix()})
}

// MarkNoCompact keeps block id out of compaction. A mark that exists stays as it is.
func MarkNoCompact(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, reason, details string, at time.Time) error {
	return mark(ctx, bkt, id, NoCompactMarkName, NoCompactMark{id, markVersion, details, at.Unix(), reason})
}

// MarkNoDownsample keeps block id out of downsampling. A mark that exists stays as it is.
func MarkNoDownsample(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, reason, details string,
	at time.Time) error {
	return mark(ctx, bkt, id, NoDownsampleMarkName, NoDownsampleMark{id, markVersion, details, at.Unix(), reason})
}

// Unmark removes the mark called name (DeletionMarkName, ...) from block id; without one it does nothing.
func Unmark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, name string) error {
	if !isMark(name) {
		return errs.E(errs.Invalid, "%q is not a mark", name)
	}
	object := Object(id, name)
	there, err := bkt.Exists(ctx, object)
	if err == nil && there {
		err = bkt.Delete(ctx, object)
	}
	if err != nil && !bkt.IsObjNotFoundErr(err) {
		return unavailable("unmark %s: %w", object, err)
	}
	return nil
}

// ReadDeletionMark returns the deletion mark of block id. Errors: NotFound without one, Invalid, Unavailable.
func ReadDeletionMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (DeletionMark, error) {
	var m DeletionMark
	err := readMark(ctx, bkt, id, DeletionMarkName, &m)
	return m, err
}

// ReadNoCompactMark returns the no-compact mark of block id. Errors as of ReadDeletionMark.
func ReadNoCompactMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (NoCompactMark, error) {
	var m NoCompactMark
	err := readMark(ctx, bkt, id, NoCompactMarkName, &m)
	return m, err
}

// ReadNoDownsampleMark returns the no-downsample mark of block id. Errors as of ReadDeletionMark.
func ReadNoDownsampleMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (NoDownsampleMark, error) {
	var m NoDownsampleMark
	err := readMark(ctx, bkt, id, NoDownsampleMarkName, &m)
	return m, err
}

func mark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, name string, v any) error {
	object := Object(id, name)
	there, err := bkt.Exists(ctx, object)
	if err != nil {
		return unavailable("mark %s: %w", object, err)
	}
	if there {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return errs.E(errs.Internal, "mark %s: %w", object, err)
	}
	if err := bkt.Upload(ctx, object, bytes.NewReader(b)); err != nil {
		return unavailable("mark %s: %w", object, err)
	}
	return nil
}

// readMark reads a mark and checks that it is one of block id.
func readMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, name string, v any) error {
	object := Object(id, name)
	if err := getJSON(ctx, bkt, object, v); err != nil {
		return err
	}
	var of ulid.ULID
	var version int
	switch m := v.(type) {
	case *DeletionMark:
		of, version = m.ID, m.Version
	case *NoCompactMark:
		of, version = m.ID, m.Version
	case *NoDownsampleMark:
		of, version = m.ID, m.Version
	}
	if of != id || version != markVersion {
		return errs.E(errs.Invalid, "%s: is of block %s, version %d", object, of, version)
	}
	return nil
}
