package compact

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxRecord bounds the compactor's own objects, in bytes.
const maxRecord = 16 << 20

// putRecord writes an object of the compactor's own.
func (c *Compactor) putRecord(ctx context.Context, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return errs.E(errs.Internal, "%s: %w", name, err)
	}
	if len(b) > maxRecord {
		return errs.E(errs.TooLarge, "%s would have %d bytes, and may have %d", name, len(b), maxRecord)
	}
	if err := c.bkt.Upload(ctx, name, bytes.NewReader(b)); err != nil {
		return errs.E(errs.Unavailable, "write %s: %w", name, err)
	}
	return nil
}

// getRecord reads an object of the compactor's own into v. Errors: NotFound, Invalid, Unavailable.
func (c *Compactor) getRecord(ctx context.Context, name string, v any) error {
	r, err := c.quietly.Get(ctx, name)
	if err != nil {
		kind := errs.Unavailable
		if c.bkt.IsObjNotFoundErr(err) {
			kind = errs.NotFound
		}
		return errs.E(kind, "read %s: %w", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	switch {
	case err != nil:
		return errs.E(errs.Unavailable, "read %s: %w", name, err)
	case len(b) > maxRecord:
		return errs.E(errs.Invalid, "%s is larger than %d bytes", name, maxRecord)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errs.E(errs.Invalid, "%s: %w", name, err)
	}
	return nil
}

// listRecords returns the ids of the records in a folder, which are called <ULID>.json. Other names are passed over.
func (c *Compactor) listRecords(ctx context.Context, in string) (ids []ulid.ULID, err error) {
	err = c.bkt.Iter(ctx, in, func(name string) error {
		text, ok := strings.CutSuffix(strings.TrimPrefix(name, in), ".json")
		if id, err := ulid.ParseStrict(text); ok && err == nil && id.String() == text {
			ids = append(ids, id)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, errs.E(errs.Unavailable, "list %s: %w", in, err)
	}
	return ids, nil
}

// removeRecord deletes an object of the compactor's own, which need not exist.
func (c *Compactor) removeRecord(ctx context.Context, name string) error {
	there, err := c.bkt.Exists(ctx, name)
	if err == nil && there {
		err = c.bkt.Delete(ctx, name)
	}
	if err != nil && !c.bkt.IsObjNotFoundErr(err) {
		return errs.E(errs.Unavailable, "delete %s: %w", name, err)
	}
	return nil
}
