package compact

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// doneFolder has a record of each output of this compactor that was deleted.
const doneFolder = folder + "done/"

// done says that an output was made, used and deleted. Its name is a function of its inputs. A compactor that still
// works with an old look at the bucket would make it again, and so bring back what was replaced or what retention took.
type done struct {
	Version int       `json:"version"`
	ID      ulid.ULID `json:"id"`
	// At is when the deletion began, in Unix seconds.
	At int64 `json:"at"`
}

func doneName(id ulid.ULID) string { return doneFolder + id.String() + ".json" }

// doneRecord writes the record of an output, before its deletion begins. A record that exists stays: a deletion that is
// resumed began then.
func (c *Compactor) doneRecord(ctx context.Context, id ulid.ULID) error {
	there, err := c.bkt.Exists(ctx, doneName(id))
	if err != nil {
		return errs.E(errs.Unavailable, "look for %s: %w", doneName(id), err)
	}
	if there {
		return nil
	}
	return c.putRecord(ctx, doneName(id), done{1, id, c.opts.Now().Unix()})
}

// doneLife is how long a record stays: by then no compactor is left that still works with a look at the bucket in which
// the inputs of the output are there.
func doneLife(deleteDelay time.Duration) time.Duration { return max(2*deleteDelay, time.Hour) }

// forgetDone removes old records. One that cannot be read counts from when it was first seen. Only the loop that
// deletes calls it.
func (c *Compactor) forgetDone(ctx context.Context) error {
	ids, err := c.listRecords(ctx, doneFolder)
	if err != nil {
		return err
	}
	before := c.doneAt
	c.doneAt = make(map[ulid.ULID]time.Time, len(ids)) // without those that other compactors removed
	for _, id := range ids {
		if at, known := before[id]; known {
			c.doneAt[id] = at
		}
	}
	for _, id := range ids {
		at, known := c.doneAt[id]
		if !known {
			var d done
			switch err := c.getRecord(ctx, doneName(id), &d); errs.KindOf(err) {
			case errs.OK:
				at = time.Unix(d.At, 0)
			case errs.NotFound:
				continue
			case errs.Invalid: // count from when it was first seen
				at = c.opts.Now()
			default:
				return err
			}
			c.doneAt[id] = at
		}
		if c.opts.Now().Sub(at) <= doneLife(c.opts.DeleteDelay) {
			continue
		}
		if err := c.removeRecord(ctx, doneName(id)); err != nil {
			return err
		}
		delete(c.doneAt, id)
	}
	return nil
}
