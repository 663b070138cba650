package rpc

import (
	"context"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Bounds on what other processes say of blocks. They are checked before memory is taken.
const (
	// maxBucketBytes bounds the id of a bucket, and the hash of a view.
	maxBucketBytes = 256
	// maxCovered bounds the ids in each list of a coverage. One tenant and range needs far fewer blocks.
	maxCovered = 1 << 18
	idBytes    = len(ulid.ULID{})
)

func holdingToPB(h series.Holding) *hearthpb.Holding {
	return &hearthpb.Holding{Bucket: h.Bucket, View: h.View.Number, ViewHash: h.View.Hash, Whole: h.Whole,
		Contents: []byte(h.Contents)}
}

func holdingFromPB(in *hearthpb.Holding) (series.Holding, error) {
	view, err := viewFromPB(in.GetView(), in.GetViewHash())
	if len(in.GetBucket()) > maxBucketBytes {
		err = errs.E(errs.Invalid, "the id of a bucket has %d bytes: at most %d are allowed", len(in.Bucket), maxBucketBytes)
	}
	if !series.ValidContents(in.GetContents()) {
		err = errs.E(errs.Invalid, "contents of a bucket have %d bytes: at most %d are allowed, 16 for each set of blocks",
			len(in.Contents), series.MaxContentsBytes)
	}
	h := series.Holding{Bucket: in.GetBucket(), View: view, Whole: in.GetWhole()}
	if h.Bucket == "" {
		h.Contents = series.Contents(in.GetContents())
	}
	return h, err
}

func viewFromPB(number uint64, hash string) (series.View, error) {
	if len(hash) > maxBucketBytes {
		return series.View{}, errs.E(errs.Invalid, "the hash of a view has %d bytes: at most %d are allowed", len(hash),
			maxBucketBytes)
	}
	return series.View{Number: number, Hash: hash}, nil
}

// blocksToPB writes b for a Hearth peer; nil when it asks for nothing in particular.
func blocksToPB(b series.BlockRequest) *hearthpb.BlockRequest {
	if b.View == (series.View{}) && !b.Primary && b.Only == nil {
		return nil
	}
	out := &hearthpb.BlockRequest{View: b.View.Number, ViewHash: b.View.Hash, Primary: b.Primary}
	if b.Only != nil {
		out.Only = idsToPB(b.Only)
	}
	return out
}

func blocksFromPB(in *hearthpb.BlockRequest) (b series.BlockRequest, err error) {
	if in == nil {
		return b, nil
	}
	b.Primary = in.Primary
	if b.View, err = viewFromPB(in.View, in.ViewHash); err != nil || in.Only == nil {
		return b, err
	}
	b.Only, err = idsFromPB(in.Only, series.MaxOnlyBlocks)
	return b, err
}

// idsToPB writes ids one after another. The result is never nil, since nil is not sent.
func idsToPB(ids []ulid.ULID) []byte {
	out := make([]byte, 0, len(ids)*idBytes)
	for _, id := range ids {
		out = append(out, id[:]...)
	}
	return out
}

// idsFromPB reads ids that follow each other, at most most. The result is never nil.
func idsFromPB(in []byte, most int) ([]ulid.ULID, error) {
	switch n := len(in) / idBytes; {
	case n*idBytes != len(in):
		return nil, errs.E(errs.Invalid, "ids of blocks in %d bytes: each has %d", len(in), idBytes)
	case n > most:
		return nil, errs.E(errs.Invalid, "%d ids of blocks: at most %d are allowed", n, most)
	}
	out := make([]ulid.ULID, len(in)/idBytes)
	for i := range out {
		out[i] = ulid.ULID(in[i*idBytes:])
	}
	return out, nil
}

func coverageToPB(c series.Coverage) *hearthpb.Coverage {
	out := &hearthpb.Coverage{Holding: holdingToPB(c.Holding), Served: idsToPB(c.Served),
		Needed: uint64(c.Needed.Blocks), Sum: c.Needed.Sums[0], SaltedSum: c.Needed.Sums[1]}
	for _, b := range c.Others {
		out.Others = append(out.Others, b.ID[:]...)
		out.Replaced = append(out.Replaced, uint32(len(b.Replaces)))
		out.Replaces = append(out.Replaces, idsToPB(b.Replaces)...)
	}
	if len(out.Replaces) == 0 {
		out.Replaced = nil
	}
	return out
}

func coverageFromPB(in *hearthpb.Coverage) (c series.Coverage, err error) {
	if c.Holding, err = holdingFromPB(in.Holding); err != nil {
		return c, err
	}
	if c.Served, err = idsFromPB(in.Served, maxCovered); err != nil {
		return c, err
	}
	others, err := idsFromPB(in.Others, maxCovered)
	if err != nil {
		return c, err
	}
	replaces, err := idsFromPB(in.Replaces, maxCovered)
	if err != nil {
		return c, err
	}
	if in.Needed > 2*maxCovered {
		return c, errs.E(errs.Invalid, "a request needs %d blocks: at most %d are allowed", in.Needed, 2*maxCovered)
	}
	c.Needed = series.Digest{Blocks: int(in.Needed), Sums: [2]uint64{in.Sum, in.SaltedSum}}
	if len(in.Replaced) != len(others) && len(in.Replaced)+len(replaces) > 0 {
		return c, errs.E(errs.Invalid, "what %d blocks replace is said of %d", len(others), len(in.Replaced))
	}
	for i, id := range others {
		b := series.Block{ID: id}
		if len(in.Replaced) > 0 && in.Replaced[i] > 0 {
			n := int(in.Replaced[i])
			if n > len(replaces) {
				return c, errs.E(errs.Invalid, "block %s replaces %d blocks, and %d are named", id, n, len(replaces))
			}
			b.Replaces, replaces = replaces[:n:n], replaces[n:]
		}
		c.Others = append(c.Others, b)
	}
	if len(replaces) > 0 {
		return c, errs.E(errs.Invalid, "%d replaced blocks are not of any block", len(replaces))
	}
	return c, nil
}

// tellCoverage passes the coverage in a response of a peer to the caller that made ctx; in is nil where there is none.
func tellCoverage(ctx context.Context, in *hearthpb.Coverage) error {
	if in == nil {
		return nil
	}
	c, err := coverageFromPB(in)
	if err != nil {
		return errs.E(errs.Internal, "malformed coverage: %w", err)
	}
	series.TellCoverage(ctx, c)
	return nil
}

// heardCoverage is what the sources of one call say of their blocks. Only a store gateway says something, so there is
// one coverage at most.
type heardCoverage struct {
	mu  sync.Mutex // guards new: a source may say it from any goroutine
	new *hearthpb.Coverage
}

// listen returns a context for the sources of the call.
func (h *heardCoverage) listen(ctx context.Context) context.Context {
	return series.OnCoverage(ctx, func(c series.Coverage) {
		said := coverageToPB(c)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.new = said
	})
}

// take returns what was said since the last take; nil = nothing.
func (h *heardCoverage) take() *hearthpb.Coverage {
	h.mu.Lock()
	defer h.mu.Unlock()
	said := h.new
	h.new = nil
	return said
}
