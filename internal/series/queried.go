package series

import (
	"context"

	"github.com/oklog/ulid/v2"
)

// Queried is what a store gateway read for one call.
type Queried struct {
	// Blocks are those that were asked.
	Blocks []ulid.ULID
	// Postings are lists of references, Series are entries of indexes.
	Postings, Series, Chunks ReadAmount
}

// ReadAmount is how much a call read of one kind of data.
type ReadAmount struct {
	// Touched is the number of lists, entries or chunks that were used, and TouchedBytes their size.
	Touched, TouchedBytes int64
	// Reads is the number of range reads of the bucket that were made for it, and ReadBytes their size.
	Reads, ReadBytes int64
}

// Plus is the sum of both.
func (a ReadAmount) Plus(b ReadAmount) ReadAmount {
	return ReadAmount{a.Touched + b.Touched, a.TouchedBytes + b.TouchedBytes, a.Reads + b.Reads, a.ReadBytes + b.ReadBytes}
}

type queriedKey struct{}

// OnQueried returns a context for calls to sources. heard is called, from any goroutine, once for each source that
// serves blocks, before its first series. It gets a function that returns what was read so far, also after the source's
// set is closed.
func OnQueried(ctx context.Context, heard func(soFar func() Queried)) context.Context {
	return context.WithValue(ctx, queriedKey{}, heard)
}

// TellQueried tells the caller that made ctx with OnQueried what is read for its call.
func TellQueried(ctx context.Context, soFar func() Queried) {
	if heard, ok := ctx.Value(queriedKey{}).(func(func() Queried)); ok {
		heard(soFar)
	}
}
