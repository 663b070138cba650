package block

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// The largest bucket-index.json.gz that is read, in bytes: in the bucket, and inflated. A block takes some 200 bytes
// inflated, so a tenant may have 150,000.
const (
	maxMimirIndex    = 8 << 20
	maxMimirInflated = 32 << 20
)

// mimirIndex is what the bucket-index.json.gz of a tenant says of the blocks that somebody wants to know.
type mimirIndex struct {
	blocks  []bucketindex.Block // without Labels
	deleted map[ulid.ULID]int64 // since when, in Unix seconds
}

// mimirBlock has what is used of an entry of the index, as Mimir and Cortex write it.
type mimirBlock struct {
	ID      ulid.ULID `json:"block_id"`
	MinTime int64     `json:"min_time"` // ms
	MaxTime int64     `json:"max_time"`
	// UploadedAt is in Unix seconds.
	UploadedAt int64  `json:"uploaded_at"`
	Source     string `json:"source"`           // Mimir's
	Level      int    `json:"compaction_level"` // Mimir's
	// The sizes are Cortex's.
	SeriesMaxSize int64 `json:"series_max_size"`
	ChunkMaxSize  int64 `json:"chunk_max_size"`
}

// readMimirIndex decodes the index of a tenant. It keeps only the blocks and marks whose ids are wanted, so what it
// returns is bounded by them. Errors: Invalid; those of r are passed on.
func readMimirIndex(r io.Reader, wanted func(ulid.ULID) bool) (mimirIndex, error) {
	ix := mimirIndex{deleted: map[ulid.ULID]int64{}}
	compressed := &bounded{r: r, left: maxMimirIndex, what: "compressed"}
	z, err := gzip.NewReader(compressed)
	if err != nil {
		return mimirIndex{}, mimirFault(compressed, err)
	}
	// All of it is read first: a decoder that gets it piece by piece looks at a long run of spaces anew with each piece.
	text, err := io.ReadAll(&bounded{r: z, left: maxMimirInflated, what: "inflated"})
	if err != nil {
		return mimirIndex{}, mimirFault(compressed, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	version := 0
	err = eachMember(d, func(name string) error {
		switch name {
		case "version":
			return d.Decode(&version)
		case "blocks":
			return eachElement(d, func() error {
				var b mimirBlock
				if err := d.Decode(&b); err != nil {
					return err
				}
				if wanted(b.ID) {
					ix.blocks = append(ix.blocks, b.block())
				}
				return nil
			})
		case "block_deletion_marks":
			return eachElement(d, func() error {
				var m struct {
					ID ulid.ULID `json:"block_id"`
					At int64     `json:"deletion_time"`
				}
				if err := d.Decode(&m); err != nil {
					return err
				}
				if wanted(m.ID) {
					ix.deleted[m.ID] = m.At
				}
				return nil
			})
		}
		return d.Decode(&json.RawMessage{})
	})
	switch {
	case err != nil:
		return mimirIndex{}, errs.Wrap(errs.Invalid, err)
	case version != 1 && version != 2:
		return mimirIndex{}, errs.E(errs.Invalid, "version %d, want 1 or 2", version)
	}
	return ix, nil
}

// mimirFault is err, as kind Invalid unless the bucket did not deliver the bytes.
func mimirFault(from *bounded, err error) error {
	if from.err != nil {
		return from.err
	}
	return errs.Wrap(errs.Invalid, err)
}

// eachMember calls f with the name of each member of a JSON object. f reads the value. null is an empty object.
func eachMember(d *json.Decoder, f func(name string) error) error {
	return eachWithin(d, '{', func() error {
		name, err := d.Token()
		if err != nil {
			return err
		}
		return f(name.(string)) // within an object, Token returns names as strings or an error
	})
}

// eachElement calls f for each element of a JSON array. f reads it. null is an empty array.
func eachElement(d *json.Decoder, f func() error) error { return eachWithin(d, '[', f) }

func eachWithin(d *json.Decoder, begin json.Delim, f func() error) error {
	switch t, err := d.Token(); {
	case err != nil:
		return err
	case t == nil:
		return nil
	case t != begin:
		return fmt.Errorf("%v where %v is expected", t, begin)
	}
	for d.More() {
		if err := f(); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// block is b as views have it. What the layout says goes without saying in the index: blocks are raw.
func (b *mimirBlock) block() bucketindex.Block {
	out := bucketindex.Block{
		BlockMeta: tsdb.BlockMeta{ULID: b.ID, MinTime: b.MinTime, MaxTime: b.MaxTime, Version: metaVersion},
		Source:    b.Source, SeriesMaxSize: max(b.SeriesMaxSize, 0), ChunkMaxSize: max(b.ChunkMaxSize, 0),
	}
	out.Compaction.Level = min(max(b.Level, 0), math.MaxInt32)
	if at := b.UploadedAt; at > 0 && at < math.MaxInt64/int64(time.Second) {
		out.Uploaded = at * int64(time.Second/time.Millisecond)
	}
	return out
}

// bounded reads at most left bytes of r. More are an error, unlike with io.LimitedReader: what is cut is not whole.
type bounded struct {
	r    io.Reader
	left int64
	what string
	err  error // of r
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("is larger than the limit, %s", b.what)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		n--
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}
