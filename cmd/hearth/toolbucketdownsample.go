package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/compact"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// downsampleIdle are the flags of Thanos's tool, which goes on until it is stopped, that are idle here.
var downsampleIdle = []idleFlag{
	{"wait-interval", idleText, "the tool ends when all is done; hearth compact goes on"},
	{"http-address", idleText, "the tool ends when all is done, and has no port"},
	{"http-grace-period", idleText, "the tool ends when all is done, and has no port"},
	{"http.config", idleText, "the tool ends when all is done, and has no port"},
}

func bucketDownsampleCommand() command {
	return command{
		name: "tools bucket downsample",
		help: "Make the blocks of 5m and 1h that are missing in a bucket, and end. They are those that a compactor would " +
			"make, which downsamples by itself: this is for buckets without one. Nothing is merged, marked or deleted.",
		first: []string{"objstore.config-file", "data-dir"},
		subject: subject{"How to downsample", []string{"data-dir", "downsample.concurrency", "block-files-concurrency",
			"hash-func", "compact.memory"}},
		idle: idleTable{never: downsampleIdle},
		bind: bindBucketDownsample,
	}
}

func bindBucketDownsample(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket toolBucketFlags
		opts   = compact.DefaultOptions()
		memory = byteSize(opts.Jobs.Memory)
		hash   string
		dir    string
	)
	bucket.bind(c)
	c.Flag("data-dir", "Directory for what jobs need on local disk, in a folder of it that is emptied at the start.").
		Default("./data").StringVar(&dir)
	c.Flag("downsample.concurrency", "How many blocks are downsampled at once.").
		Default(fmt.Sprint(opts.Jobs.Concurrency)).SetValue(whole[int]{&opts.Jobs.Concurrency})
	c.Flag("block-files-concurrency", "Files of a block that are sent to the bucket at a time.").
		Default(fmt.Sprint(opts.Jobs.BlockFiles)).SetValue(whole[int]{&opts.Jobs.BlockFiles})
	c.Flag("hash-func", "SHA256 puts the checksums of a block's files into its meta.json.").Default("").
		EnumVar(&hash, "SHA256", "")
	c.Flag("compact.memory", "Memory that one block may use while it is downsampled, such as 256MB.").
		Default(memory.String()).SetValue(&memory)
	return func(b *builder) {
		bkt := bucket.build(b)
		lockDirectory(b, dir)
		opts.Dir, opts.Instance = filepath.Join(dir, "downsample"), ulid.Make().String()
		opts.ConsistencyDelay = 0
		opts.Jobs.MaxLevel, opts.Jobs.Memory, opts.Jobs.Hash = 0, int64(memory), hash != ""
		b.runChangingTool(bkt, func(ctx context.Context) error {
			id, err := identityOf(ctx, bkt)
			if err != nil {
				return err
			}
			opts.TenantLabel, opts.ReplicaLabel = id.TenantLabel, id.ReplicaLabel
			opts.BucketID = func() (string, bool) { return id.UUID, true }
			blocks, err := compact.New(b.log, prometheus.NewRegistry(), bkt, opts)
			if err != nil {
				return errs.Wrap(errs.Invalid, err)
			}
			if err := blocks.RunJobs(ctx); err != nil {
				return err
			}
			if failed := blocks.Status().Failed; len(failed) > 0 {
				return errs.E(errs.Conflict, "%d blocks or jobs failed before and are left out, the first one being %s: %s",
					len(failed), failed[0].ID, failed[0].Error)
			}
			return nil
		})
	}
}
