package ship

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// Options configure a Shipper. All durations must be positive.
type Options struct {
	// Record is the path of the file that lists the blocks in the bucket; see RecordName. Its directory must exist when
	// the first block is shipped.
	Record string
	// Origin is Thanos's part of the meta.json of a block in the bucket: the external labels that its samples have, who
	// made it, its resolution. It is asked when the block is shipped. IndexStats, Files and UploadTime are filled in
	// afterwards.
	Origin func(Block) block.Thanos
	// Check is asked before a block is sent, each time; nil = all may be. An error of kind Conflict is no failure: the
	// block is passed over. Invalid means that the block must not be in the bucket. Other errors are those of the bucket.
	Check func(context.Context, Block) error
	// RecordAlways has the record written in the first pass, and whenever it would be another, also where nothing is
	// shipped. A Prometheus that delays compaction until blocks are shipped compacts nothing while there is no record.
	RecordAlways bool
	// Timeout bounds the upload of one block.
	Timeout time.Duration
	// Retry is the wait before a block that could not be shipped, or a bucket that failed, is tried again. It doubles with
	// each failure up to 32 times as much.
	Retry time.Duration
	// Upload says how the files of a block are sent.
	Upload block.UploadOptions
}

// Validate reports all that is wrong with o.
func (o Options) Validate() error {
	var faults []error
	if o.Record == "" {
		faults = append(faults, errors.New("record of shipped blocks: must be set"))
	}
	if o.Origin == nil {
		faults = append(faults, errors.New("origin of blocks: must be set"))
	}
	if o.Timeout <= 0 {
		faults = append(faults, fmt.Errorf("ship timeout %s: must be positive", o.Timeout))
	}
	if o.Retry <= 0 {
		faults = append(faults, fmt.Errorf("retry %s: must be positive", o.Retry))
	}
	if o.Upload.Concurrency < 0 {
		faults = append(faults, fmt.Errorf("file concurrency %d: must not be negative", o.Upload.Concurrency))
	}
	return errors.Join(faults...)
}
