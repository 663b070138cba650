package block

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// clocks is where processes write the objects by which they compare their clocks with that of the bucket.
const clocks = deletion.Folder + "clock/"

// MaxSkew is how far the clock of a machine may be from that of the bucket.
const MaxSkew = deletion.MaxSkew

// CheckClock is nil if the clock of this machine agrees with that of the bucket. It writes a small object, named by the
// instance, and asks the bucket when it was written. A provider that keeps no times cannot contradict. Errors: Conflict
// if the clocks differ; Unavailable.
func CheckClock(ctx context.Context, bkt objstore.Bucket, instance string, now func() time.Time) error {
	_, off, err := CompareClocks(ctx, bkt, clocks+instance+".json", instance, now)
	if err == nil && off > MaxSkew {
		err = errs.E(errs.Conflict, "the clock of this machine is %s from that of the bucket, and may be %s: nothing is "+
			"deleted", off.Round(time.Second), MaxSkew)
	}
	return err
}

// CompareClocks writes an object by which the bucket says its time, and how far at least the clock of this machine is
// off it. A provider that keeps no times says the zero time, and 0. Errors: Unavailable.
func CompareClocks(ctx context.Context, bkt objstore.Bucket, object, instance string,
	now func() time.Time) (says time.Time, off time.Duration, err error) {
	from := now()
	raw, err := json.Marshal(struct {
		Version  int    `json:"version"`
		Instance string `json:"instance"`
		Written  int64  `json:"written"` // Unix ms
	}{1, instance, from.UnixMilli()})
	if err == nil {
		err = bkt.Upload(ctx, object, bytes.NewReader(raw))
	}
	if err != nil {
		return says, 0, errs.E(errs.Unavailable, "write %s: %w", object, err)
	}
	to := now()
	attrs, err := bkt.Attributes(ctx, object)
	if err != nil {
		return says, 0, errs.E(errs.Unavailable, "read the time of %s: %w", object, err)
	}
	if says = attrs.LastModified; says.IsZero() {
		return says, 0, nil
	}
	return says, max(from.Sub(says), says.Sub(to), 0), nil
}
