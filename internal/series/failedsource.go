package series

import (
	"context"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// FailedSource is a source that cannot be asked: every call fails with err, which has an errs.Kind. It stands for a
// source that is known to exist. If it were left out, an answer without its data would look complete.
func FailedSource(err error) Source { return failedSource{err} }

type failedSource struct{ err error }

func (f failedSource) Select(context.Context, *Request) Set { return Failed(f.err) }
func (f failedSource) Info(context.Context) (Info, error)   { return Info{}, f.err }

func (f failedSource) LabelNames(context.Context, *Request) ([]string, Warnings, error) {
	return nil, nil, f.err
}

func (f failedSource) LabelValues(context.Context, string, *Request) ([]string, Warnings, error) {
	return nil, nil, f.err
}

func (f failedSource) Exemplars(
	context.Context, tenant.ID, int64, int64, ...[]*labels.Matcher,
) ([]exemplar.QueryResult, Warnings, error) {
	return nil, nil, f.err
}

func (f failedSource) Metadata(
	context.Context, tenant.ID, string, int,
) (map[string][]metadata.Metadata, Warnings, error) {
	return nil, nil, f.err
}
