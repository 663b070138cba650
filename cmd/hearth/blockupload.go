package main

import (
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/block/upload"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// uploadFlags are those of a process that takes blocks over HTTP.
type uploadFlags struct {
	on   bool
	opts upload.Options
	size byteSize
}

func (f *uploadFlags) bind(c *kingpin.CmdClause) {
	f.opts = upload.DefaultOptions()
	f.size = byteSize(f.opts.MaxBytes)
	c.Flag("compact.block-upload", "Take blocks that operators send over HTTP, as mimirtool backfill does: they are "+
		"checked, get the label of their tenant, and go into the bucket.").BoolVar(&f.on)
	c.Flag("compact.block-upload-max-size", "Bytes that an uploaded block may have, and all unfinished uploads of one "+
		"tenant together, such as 64GB.").Default(f.size.String()).SetValue(&f.size)
	durationFlag(c, "compact.block-upload-timeout", "How long an upload may take. What is not finished then is removed.",
		&f.opts.Lifetime)
}

// build adds what takes blocks, and returns its routes; none if the flag is not set. dir is for local files.
func (f *uploadFlags) build(b *builder, bucket *bucket, shared sharedFlags, dir string, refuse bool) []httpx.Route {
	if !f.on {
		return nil
	}
	resolver, err := shared.resolver("")
	b.check(err)
	f.opts.Dir, f.opts.Refuse = filepath.Join(dir, "upload"), refuse
	f.opts.TenantLabel, f.opts.MaxBytes = shared.tenantLabel, int64(f.size)
	r := upload.New(b.log, b.reg, bucket, f.opts)
	b.addPart("block upload", r.Open, r.Close, nil)
	return r.Routes(resolver.Write)
}
