package series

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Identity is whose data an answer is from: a receiver, with the disk that it has now.
type Identity struct {
	// Instance is the Hearth instance id, "" when it is not known.
	Instance string
	// Since is when the data on its disk began (ring.Incarnation): a receiver that lost its disk has another one.
	Since time.Time
}

// Identified is a Source that holds data of its own. Its identity does not change while the process lives.
type Identified interface {
	Identity() Identity
}

type witnessKey struct{}

// WithWitness returns a context for one call to a source: heard is called, from any goroutine, with the identity that the
// answer itself carries. It is not called when the source does not say whose data it has. What the source said in an
// earlier Info does not prove it, since another process may be at its address by now, or the same one with an empty disk.
func WithWitness(ctx context.Context, heard func(Identity)) context.Context {
	return context.WithValue(ctx, witnessKey{}, heard)
}

// Witness tells whoever asked with ctx whose data the answer is from.
func Witness(ctx context.Context, id Identity) {
	if heard, ok := ctx.Value(witnessKey{}).(func(Identity)); ok && id.Instance != "" {
		heard(id)
	}
}

// Unanswered is a source that nobody can ask: every call fails with err, which has an errs.Kind. It stands for one that is
// known to exist, so that nobody takes it for one that holds nothing.
func Unanswered(err error) Source { return unanswered{err} }

type unanswered struct{ err error }

func (u unanswered) Select(context.Context, *Request) Set { return Failed(u.err) }
func (u unanswered) Info(context.Context) (Info, error)   { return Info{}, u.err }
func (u unanswered) LabelNames(context.Context, *Request) ([]string, Warnings, error) {
	return nil, nil, u.err
}

func (u unanswered) LabelValues(context.Context, string, *Request) ([]string, Warnings, error) {
	return nil, nil, u.err
}

func (u unanswered) Exemplars(context.Context, tenant.ID, int64, int64, ...[]*labels.Matcher) ([]exemplar.QueryResult, Warnings, error) {
	return nil, nil, u.err
}

func (u unanswered) Metadata(context.Context, tenant.ID, string, int) (map[string][]metadata.Metadata, Warnings, error) {
	return nil, nil, u.err
}
