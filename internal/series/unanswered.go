package series

import (
	"context"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Unanswered is a source that nobody can ask: every call fails with err, which has an errs.Kind. It stands for one that
// is known to exist, so that nobody takes it for one that holds nothing.
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

func (u unanswered) Exemplars(context.Context, tenant.ID, int64, int64, ...[]*labels.Matcher) ([]exemplar.QueryResult,
	Warnings, error) {
	return nil, nil, u.err
}

func (u unanswered) Metadata(context.Context, tenant.ID, string, int) (map[string][]metadata.Metadata, Warnings,
	error) {
	return nil, nil, u.err
}
