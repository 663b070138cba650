package compact

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// ruleFolders have a folder for each tenant with rules of its own: Hearth's, and Mimir's and Cortex's
// (docs/format/rules.md).
var ruleFolders = []string{"hearth/rules/", "rules/"}

// deleteRules deletes the rules of tenants whose deletion is due. There are two listings for all tenants, since a
// request stays for ever. What counts is the time of the look: an undo that was made in time was there then.
func (c *Compactor) deleteRules(ctx context.Context, l *look) error {
	gone := map[string]takes{} // by tenant
	for _, id := range l.view.Requests.Tenants() {
		of := func(made time.Time) *block.Request { return l.view.Requests.Takes(id, made, l.at) }
		if of(time.Time{}) != nil {
			gone[string(id)] = of
		}
	}
	if len(gone) == 0 {
		return nil
	}
	var faults []error
	for _, folder := range ruleFolders {
		var found []string
		err := c.bkt.Iter(ctx, folder, func(name string) error {
			id, dir := strings.CutSuffix(strings.TrimPrefix(name, folder), "/")
			if dir && gone[id] != nil {
				found = append(found, id)
			}
			return nil
		})
		if err != nil {
			faults = append(faults, errs.E(errs.Unavailable, "list %s: %w", folder, err))
		}
		for _, id := range found {
			faults = append(faults, c.deleteRulesBelow(ctx, folder+id+"/", gone[id], l.at))
		}
	}
	return errors.Join(faults...)
}

// takes is the request by which what a tenant had at a time is deleted, nil if there is none.
type takes func(made time.Time) *block.Request

// deleteRulesBelow deletes the objects below dir of which of returns a request.
func (c *Compactor) deleteRulesBelow(ctx context.Context, dir string, of takes, now time.Time) error {
	var names []string
	var request *block.Request
	if err := c.walkRules(ctx, dir, func(a objstore.IterObjectAttributes) {
		if e := of(ruleMade(a, now)); e != nil {
			names, request = append(names, a.Name), e
		}
	}); err != nil {
		return errs.E(errs.Unavailable, "list %s: %w", dir, err)
	}
	for _, name := range names {
		if err := c.bkt.Delete(ctx, name); err != nil && !c.bkt.IsObjNotFoundErr(err) {
			c.metrics.deletionFailures.Inc()
			return errs.E(errs.Unavailable, "delete %s: %w", name, err)
		}
	}
	if len(names) > 0 {
		c.log.Info("deleted the rules of a deleted tenant", "tenant", request.Tenant, "objects", len(names), "request",
			request.ID.String(), "by", request.By)
	}
	return nil
}

// walkRules calls do with each object below dir, with the time of its change where the provider tells it in listings.
func (c *Compactor) walkRules(ctx context.Context, dir string, do func(objstore.IterObjectAttributes)) error {
	var options []objstore.IterOption
	supported := c.bkt.SupportedIterOptions()
	for _, o := range []struct {
		kind   objstore.IterOptionType
		option objstore.IterOption
	}{{objstore.Recursive, objstore.WithRecursiveIter()}, {objstore.UpdatedAt, objstore.WithUpdatedAt()}} {
		if slices.Contains(supported, o.kind) {
			options = append(options, o.option)
		}
	}
	return c.bkt.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error {
		if strings.HasSuffix(a.Name, "/") {
			return c.walkRules(ctx, a.Name, do)
		}
		do(a)
		return ctx.Err()
	}, options...)
}

// ruleMade is when an object was made: by the id in its name, which Hearth's have, or by when it was changed. Where the
// provider does not tell it counts as made at now, so that what may be of a tenant that was made anew stays.
func ruleMade(a objstore.IterObjectAttributes, now time.Time) time.Time {
	name, _ := strings.CutSuffix(a.Name[strings.LastIndex(a.Name, "/")+1:], ".yaml")
	if id, err := ulid.ParseStrict(name); err == nil {
		return id.Timestamp()
	}
	if changed, ok := a.LastModified(); ok && !changed.IsZero() {
		return changed
	}
	return now
}
