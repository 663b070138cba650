package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// toolBucketFlags name the bucket that a tool works on.
type toolBucketFlags struct {
	config content
	tenant string
}

func (f *toolBucketFlags) bind(c *kingpin.CmdClause) {
	f.config.bind(c, "objstore.config", bucketHelp)
}

// bindTenant adds the flag for buckets in which each tenant's blocks are below its name.
func (f *toolBucketFlags) bindTenant(c *kingpin.CmdClause) {
	c.Flag("tenant", "Look only at what is below this name in the bucket: the blocks of a tenant in the layout of Mimir "+
		"and Cortex.").StringVar(&f.tenant)
}

// build opens the bucket.
func (f *toolBucketFlags) build(b *builder) objstore.InstrumentedBucket {
	bkt := openToolBucket(b, nil, &f.config, "it names the bucket")
	if f.tenant == "" {
		return bkt
	}
	id, err := tenant.Parse(f.tenant)
	if err != nil {
		b.check(fmt.Errorf("--tenant: %w", err))
	}
	return objstore.WithNoopInstr(objstore.NewPrefixedBucket(bkt, string(id)))
}

// openToolBucket opens the bucket that config describes. why says what the flag is for; reg may be nil.
func openToolBucket(b *builder, reg prometheus.Registerer, config *content, why string) objstore.InstrumentedBucket {
	yaml, err := config.read()
	b.check(err)
	if yaml == nil {
		b.check(fmt.Errorf("--%s or --%[1]s-file is needed: %s", config.name, why))
	}
	bkt, err := block.OpenBucket(b.log, reg, config.where(), yaml, "hearth-tools")
	b.check(err)
	b.add(config.name, func(context.Context, func(error)) error { return nil }, bkt.Close)
	return bkt
}

// ownerOf is which labels of blocks name their tenant, and tell the copies of a ring apart: as the bucket says, else
// the defaults of all roles. Errors: Invalid; Unavailable.
func ownerOf(ctx context.Context, bkt objstore.BucketReader) (block.Owner, error) {
	id, err := identityOf(ctx, bkt)
	return id.Owner, err
}

// identityOf is what the bucket says of itself, with the names of the defaults where it says none. One to which no
// process of Hearth has written has no uuid.
func identityOf(ctx context.Context, bkt objstore.BucketReader) (block.Identity, error) {
	id, err := block.ReadIdentity(ctx, bkt)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return id, err
	}
	usual := defaultShared()
	id.Owner = id.Or(block.Owner{TenantLabel: usual.tenantLabel, ReplicaLabel: usual.replicaLabel})
	return id, nil
}

// runChangingTool makes the command a tool that writes to bkt. It refuses a bucket in Mimir's layout, since Hearth only
// reads those.
func (b *builder) runChangingTool(bkt objstore.BucketReader, job func(context.Context) error) {
	b.runTool(func(ctx context.Context) error {
		if err := block.MayAdd(ctx, bkt); err != nil {
			return err
		}
		return job(ctx)
	})
}

// bindOutput adds the flag for the form of the output. forms is what its help says of text and json.
func bindOutput(c *kingpin.CmdClause, to *string, forms string) {
	c.Flag("output", "Form of the output: "+forms+".").Short('o').Default("text").EnumVar(to, "text", "json")
}

// toolTimeout adds the flag that bounds how long a tool reads metas.
func toolTimeout(c *kingpin.CmdClause, to *time.Duration) {
	*to = 5 * time.Minute
	durationFlag(c, "timeout", "How long the metas of all blocks may take to be read.", to)
}

// listToolBlocks lists the blocks of a bucket, and logs what cannot be understood. If something could not be read, the
// view has what could, and the error is of kind Unavailable.
func listToolBlocks(ctx context.Context, b *builder, bkt objstore.BucketReader,
	opts block.FetcherOptions) (block.View, error) {
	opts.Progress = b.progress("reading meta.json files and marks")
	v, err := block.NewFetcher(bkt, opts).Fetch(ctx)
	if err != nil {
		return v, err
	}
	unread := 0
	for id, err := range v.Partial {
		switch errs.KindOf(err) {
		case errs.NotFound:
		case errs.Invalid:
			b.log.Warn("a block is left out, since its meta.json is faulty", "block", id, "err", err)
		default:
			unread++
			b.log.Error("a block is left out, since its meta.json cannot be read", "block", id, "err", err)
		}
	}
	for object, err := range v.MarkFaults {
		if errs.KindOf(err) != errs.Invalid {
			unread++
		}
		b.log.Warn("a mark is left out", "object", object, "err", err)
	}
	if unread > 0 {
		return v, errs.E(errs.Unavailable, "%d objects could not be read", unread)
	}
	return v, nil
}

// runListing makes the command a tool that shows what is in bkt, as far as it can be read in time. Where the index of
// the bucket is young enough, marks that other tools wrote since are not seen.
func (b *builder) runListing(bkt objstore.BucketReader, timeout time.Duration,
	show func(context.Context, block.View) error) {
	b.runTool(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		v, fault := listToolBlocks(ctx, b, bkt, block.FetcherOptions{MaxIndexAge: listIndexAge})
		if v.Metas == nil {
			return fault
		}
		return errors.Join(fault, show(ctx, v))
	})
}

// progress returns a function that says how far a tool is: on a terminal in one line, else in the log every 10 s. It is
// safe for concurrent use.
func (b *builder) progress(doing string) func(done, of int) {
	every := 10 * time.Second
	info, err := os.Stderr.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	if terminal {
		every = 200 * time.Millisecond
	}
	var mu sync.Mutex // guards last
	last := time.Now()
	return func(done, of int) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case terminal && done == of:
			fmt.Fprint(os.Stderr, "\r\x1b[K")
		case time.Since(last) < every:
			return
		case terminal:
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s: %d of %d", doing, done, of)
		default:
			b.log.Info(doing, "done", done, "of", of)
		}
		last = time.Now()
	}
}

// ulids is a repeatable flag value: ids of blocks.
type ulids struct{ to *[]ulid.ULID }

// Set adds an id.
func (u ulids) Set(s string) error {
	id, ok := block.ParseID(s)
	if !ok || len(s) != ulid.EncodedSize {
		return fmt.Errorf("%q is no id of a block", s)
	}
	*u.to = append(*u.to, id)
	return nil
}

// String is the ids.
func (u ulids) String() string {
	if u.to == nil || len(*u.to) == 0 {
		return ""
	}
	return fmt.Sprint(*u.to)
}

// IsCumulative says that the flag may be given more than once.
func (u ulids) IsCumulative() bool { return true }

// notLooked reports whether a tool ended with err because it could not look: the bucket does not answer, or somebody
// stopped it.
func notLooked(err error) bool {
	return errs.KindOf(err) == errs.Unavailable || errors.Is(err, context.Canceled)
}
