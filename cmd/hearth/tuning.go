package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/receive"
	"github.com/hearth-metrics/hearth/tsdb"
)

// forever is a retention that never ends: 100 years.
const forever = 100 * 365 * 24 * time.Hour

// tuningFlags are Thanos's flags of local data that few need.
type tuningFlags struct {
	maxBytes      byteSize
	compressed    bool
	hashFunc      string
	minMax        [2]time.Duration
	blockDuration time.Duration // the default
}

func (f *tuningFlags) bind(c *kingpin.CmdClause, db *tsdb.Options, r *receive.Options) {
	f.blockDuration = db.BlockDuration
	c.Flag("tsdb.max-retention-bytes", "Disk that one tenant's blocks, head and logs may take, such as 512MB or 2GB; "+
		"the oldest blocks that are in the bucket go first. 0 = no bound.").
		Default("0").SetValue(&f.maxBytes)
	c.Flag("tsdb.wal-compression", "Compress the write-ahead log with snappy. What was written otherwise is "+
		"read in any case.").
		Default("true").BoolVar(&f.compressed)
	c.Flag("tsdb.no-lockfile", "Do not lock the data directory, on file systems that know no locks. No second process "+
		"may use it.").BoolVar(&db.NoLock)
	c.Flag("tsdb.out-of-order.cap-max", "Samples in an out-of-order chunk, at most 255; 0 = 32.").
		Default("0").SetValue(whole[int64]{&db.OutOfOrderCap})
	c.Flag("hash-func", "SHA256 puts the checksums of a block's files into its meta.json in the bucket.").
		Default("").EnumVar(&f.hashFunc, "", "SHA256")
	c.Flag("shipper.upload-concurrency", "Files of one block that are sent to the bucket at a time; 0 = 1.").
		Default("0").SetValue(whole[int]{&r.FileConcurrency})
	for i, name := range [2]string{"min", "max"} {
		c.Flag("tsdb."+name+"-block-duration", "Another name of --tsdb.block-duration; both must say the same.").Hidden().
			SetValue(duration{&f.minMax[i]})
	}
}

// settle turns what the flags say into the options of the TSDBs and of the receiver, and returns shared as it is meant.
// Where Thanos means something by a value that Hearth does not have, it warns and says what is done instead.
func (f *storageFlags) settle(log *slog.Logger, shared sharedFlags) (sharedFlags, error) {
	t, db := &f.tuning, &f.tsdb
	db.MaxBytes = int64(t.maxBytes)
	if !t.compressed {
		db.WALCompression = compression.None
	}
	f.receive.HashFiles = t.hashFunc != ""
	if err := t.settleBlocks(db); err != nil {
		return shared, err
	}
	defaults := defaultShared()
	if shared.window == 0 {
		shared.window = defaults.window
		log.Warn("out-of-order samples are always taken; --tsdb.out-of-order.time-window=0s means the default", "window",
			shared.window)
	}
	if shared.future == 0 {
		shared.future = defaults.future
		log.Warn("samples too far in the future are always refused; --tsdb.too-far-in-future.time-window=0s means the "+
			"default", "window", shared.future)
	}
	if shared.retention == 0 { // as in Thanos
		shared.retention = forever
	}
	db.Retention, db.Window, db.Future = shared.retention, shared.window, shared.future
	db.OutOfOrderCap, db.MaxExemplars = max(db.OutOfOrderCap, 0), max(db.MaxExemplars, 0) // below 0 is 0 in Thanos
	return shared, nil
}

// settleBlocks finds the one length that blocks have.
func (f *tuningFlags) settleBlocks(db *tsdb.Options) error {
	low, high := f.minMax[0], f.minMax[1]
	if low == 0 && high == 0 {
		return nil
	}
	low, high = cmp.Or(low, f.blockDuration), cmp.Or(high, f.blockDuration) // Thanos's defaults
	if low != high {
		return fmt.Errorf("--tsdb.min-block-duration %s and --tsdb.max-block-duration %s differ: blocks are merged in the "+
			"bucket only", low, high)
	}
	if db.BlockDuration != f.blockDuration && db.BlockDuration != low {
		return fmt.Errorf("--tsdb.min-block-duration %s and --tsdb.block-duration %s differ: one of them is enough", low,
			db.BlockDuration)
	}
	db.BlockDuration = low
	return nil
}
