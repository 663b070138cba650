package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// tenantToolFlags are those of tools that delete a tenant, or undo that.
type tenantToolFlags struct {
	bucket toolBucketFlags
	tenant string
	reason string
	output string
	dryRun bool
}

func (f *tenantToolFlags) bind(c *kingpin.CmdClause, what string) {
	f.bucket.bind(c)
	c.Arg("tenant", "Name of the tenant.").Required().StringVar(&f.tenant)
	c.Flag("reason", "Why, for people: it is kept in the bucket.").StringVar(&f.reason)
	c.Flag("dry-run", "Only say what would be done. It is the default: --no-dry-run "+what+".").Default("true").
		BoolVar(&f.dryRun)
	bindOutput(c, &f.output, "text or json")
}

// id is the name of the tenant.
func (f *tenantToolFlags) id(b *builder) tenant.ID {
	id, err := tenant.Parse(f.tenant)
	b.check(err)
	return id
}

func tenantDeleteCommand() command {
	return command{
		name: "tools tenant delete",
		help: "Ask for the deletion of a tenant: it takes no writes from now on, and after a delay receivers, store " +
			"gateways and compactors delete what they have of it, now and later. Until then it can be undone.",
		first:   []string{"objstore.config-file", "delay", "reason"},
		subject: subject{"What to delete", []string{"delay", "reason", "confirm", "dry-run", "output"}},
		bind:    bindTenantDelete,
	}
}

func bindTenantDelete(c *kingpin.CmdClause) func(*builder) {
	var (
		f       tenantToolFlags
		delay   = deletion.DefaultDelay
		confirm string
	)
	f.bind(c, "asks for the deletion")
	durationFlag(c, "delay", "Time until the data goes. It can be undone in all of it but the last 10m, or the last "+
		"quarter if that is less.", &delay)
	c.Flag("confirm", "Digest of the tenant's blocks, which the dry run says: the blocks must still be these, and no "+
		"others are deleted, except those that receivers make of what they have. Needed for the tenant "+
		string(tenant.Default)+".").PlaceHolder("DIGEST").StringVar(&confirm)
	return func(b *builder) {
		id := f.id(b)
		bkt := f.bucket.build(b)
		b.runChangingTool(bkt, func(ctx context.Context) error {
			v, err := listToolBlocks(ctx, b, bkt, block.FetcherOptions{})
			if err != nil {
				return err
			}
			of, err := block.ReadIdentity(ctx, bkt)
			if err != nil {
				return err
			}
			p, err := change.DeleteTenant(v, of, id, time.Now(), change.Asked{By: whoAmI(), Tool: "tools tenant delete",
				Reason: f.reason, Delay: delay, Confirm: confirm})
			if err != nil {
				return err
			}
			if f.dryRun {
				b.log.Info("nothing was changed: this is only a plan; --no-dry-run asks for it")
				return writeTenantPlan(b.stdout, f.output, "planned", p)
			}
			audit, err := change.ApplyDeletion(ctx, bkt, p.Request, time.Now)
			if err != nil {
				return err
			}
			b.log.Info("the deletion is asked for", "tenant", id, "request", p.Request.ID.String(), "audit", audit)
			return writeTenantPlan(b.stdout, f.output, "asked", p)
		})
	}
}

// writeTenantPlan says what a deletion is about.
func writeTenantPlan(w io.Writer, output, result string, p change.TenantPlan) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(struct {
			Result string `json:"result"`
			change.TenantPlan
		}{result, p})
	}
	r := &p.Request
	_, err := fmt.Fprintf(w, "%s: delete tenant %q, request %s\n"+
		"writes are refused from %s on\nit can be undone until   %s\nthe data goes at         %s\n"+
		"blocks in the bucket: %d, %d bytes, digest %s\n"+
		"blocks that say no tenant, and stay: %d\n", result, r.Tenant, r.ID, textTime(r.Asked), textTime(r.UndoUntil),
		textTime(r.Due), len(p.Blocks), p.Bytes, p.Digest, p.Nobodys)
	return err
}

func textTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func tenantUndeleteCommand() command {
	return command{
		name: "tools tenant undelete",
		help: "Undo a deletion that is not due yet: nothing is lost. With --anew, let a tenant that was deleted be made " +
			"anew: it takes writes again, and what it had stays deleted.",
		first:   []string{"objstore.config-file", "anew", "reason"},
		subject: subject{"What to undo", []string{"anew", "reason", "dry-run", "output"}},
		bind:    bindTenantUndelete,
	}
}

func bindTenantUndelete(c *kingpin.CmdClause) func(*builder) {
	var (
		f    tenantToolFlags
		anew bool
	)
	f.bind(c, "does it")
	c.Flag("anew", "The deletion is due: let the tenant be made anew. Blocks of it that were made before now are deleted "+
		"all the same, whenever they come.").BoolVar(&anew)
	return func(b *builder) {
		id := f.id(b)
		bkt := f.bucket.build(b)
		b.runChangingTool(bkt, func(ctx context.Context) error {
			list, err := deletion.NewReader(bkt).Read(ctx)
			if err != nil {
				return err
			}
			e, err := change.UndeleteTenant(list, id, anew, time.Now())
			if err != nil {
				return err
			}
			u := undoing{tool: "tools tenant undelete", reason: f.reason, output: f.output, dryRun: f.dryRun}
			if anew {
				u.ends = deletion.Renewed
			}
			return u.apply(ctx, b, bkt, e)
		})
	}
}

// undoing is how a tool undoes a deletion that was asked for.
type undoing struct {
	tool, reason, output string
	dryRun               bool
	ends                 deletion.State // what becomes of a deletion that is due; "" = it is not due, and undone
}

// apply undoes a deletion, or only says so, and writes what it did.
func (u undoing) apply(ctx context.Context, b *builder, bkt objstore.Bucket, e *deletion.Entry) error {
	result := "planned"
	if u.dryRun {
		b.log.Info("nothing was changed: this is only a plan; --no-dry-run does it")
	} else {
		says := deletion.NewChange(e.ID, time.Now())
		says.By, says.Tool, says.Reason = whoAmI(), u.tool, u.reason
		audit, err := change.ApplyUndo(ctx, bkt, says, u.ends != "", time.Now)
		if err != nil {
			return err
		}
		b.log.Info("done", "tenant", e.Tenant, "request", e.ID.String(), "audit", audit)
		result = string(cmp.Or(u.ends, deletion.Undone))
	}
	if u.output == "json" {
		return json.NewEncoder(b.stdout).Encode(map[string]string{"result": result, "tenant": string(e.Tenant),
			"request": e.ID.String()})
	}
	_, err := fmt.Fprintf(b.stdout, "%s: tenant %q, request %s of %s\n", result, e.Tenant, e.ID, textTime(e.Asked))
	return err
}

func tenantListCommand() command {
	return command{
		name: "tools tenant list",
		help: "List the deletions of tenants that were asked for, the oldest first, with their state: waiting, held, " +
			"undone, due or renewed, and how many blocks of what is deleted the bucket still has.",
		first:   []string{"objstore.config-file", "output"},
		subject: subject{"Output", []string{"output", "timeout"}},
		bind:    bindTenantList,
	}
}

func bindTenantList(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket  toolBucketFlags
		output  string
		timeout time.Duration
	)
	bucket.bind(c)
	bindOutput(c, &output, "text or json")
	toolTimeout(c, &timeout)
	return func(b *builder) {
		bkt := bucket.build(b)
		b.runListing(bkt, timeout, func(ctx context.Context, v block.View) error {
			of, err := block.ReadIdentity(ctx, bkt)
			if err != nil && len(v.Requests.Entries()) > 0 {
				return err
			}
			for object, err := range v.Requests.Unreadable() {
				b.log.Error("an object cannot be read, and has no effect", "object", object, "err", err)
			}
			return writeDeletions(b.stdout, output, v.TenantDeletions(of.TenantLabel, time.Now()))
		})
	}
}

func writeDeletions(w io.Writer, output string, all []block.TenantDeletion) error {
	for _, d := range all {
		var err error
		if output == "json" {
			err = json.NewEncoder(w).Encode(d)
		} else {
			_, err = fmt.Fprintf(w, "%s %s %q asked %s by %s due %s: %d blocks left, %d bytes: %q\n", d.ID, d.State, d.Tenant,
				textTime(d.Asked), d.By, textTime(d.Due), d.Blocks, d.Bytes, d.Reason)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
