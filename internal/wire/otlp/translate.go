package otlp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/config"
	converter "github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"github.com/prometheus/prometheus/util/annotations"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Translator makes batches of OTLP metrics in one fixed way. It may be used concurrently.
type Translator struct {
	settings   converter.Settings
	promote    func(tenant.ID) []string // nil = as in settings
	converters sync.Pool                // of *converter.PrometheusConverter
}

// New makes a Translator. The error says what is wrong with opts.
func New(opts Options) (*Translator, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	strategy := otlptranslator.TranslationStrategyOption(opts.Strategy)
	defaults := config.DefaultOTLPConfig
	t := &Translator{settings: converter.Settings{
		DisableTargetInfo: !opts.TargetInfo,
		AddMetricSuffixes: strategy.ShouldAddSuffixes(),
		AllowUTF8:         !strategy.ShouldEscape(),
		PromoteResourceAttributes: converter.NewPromoteResourceAttributes(config.OTLPConfig{
			PromoteAllResourceAttributes: opts.PromoteAllResourceAttributes,
			PromoteResourceAttributes:    opts.PromoteResourceAttributes,
			IgnoreResourceAttributes:     opts.IgnoreResourceAttributes,
		}),
		KeepIdentifyingResourceAttributes:    opts.KeepIdentifyingResourceAttributes,
		ConvertHistogramsToNHCB:              opts.ConvertHistogramsToNHCB,
		PromoteScopeMetadata:                 opts.PromoteScopeMetadata,
		LabelNameUnderscoreSanitization:      defaults.LabelNameUnderscoreSanitization,
		LabelNamePreserveMultipleUnderscores: defaults.LabelNamePreserveMultipleUnderscores,
	}}
	if !opts.PromoteAllResourceAttributes {
		t.promote = opts.Promote
	}
	t.converters.New = func() any { return converter.NewPrometheusConverter(nil) }
	return t, nil
}

// Translation is the outcome of translating a request.
type Translation struct {
	// Batch has one reference, the caller's.
	Batch *wire.Batch
	// Points is how many data points the request had.
	Points int
	// Warnings are for the sender: nothing was lost, but something is not as it may think.
	Warnings []string

	refused int // data points that could not become series
	sink    *sink
}

// Rejected is how many data points were not stored, or not wholly: those that Translate refused and those whose series
// failed, by Failure.Series. It needs the batch.
func (t *Translation) Rejected(failures []wire.Failure) int {
	return t.refused + t.sink.rejected(failures)
}

// Translate makes a batch of md, which cannot be used afterwards. The batch takes at most about limit bytes. What
// cannot be stored is in the batch's Rejected. An error says that nothing can be stored: kind TooLarge over the limit,
// Unavailable when ctx ended.
func (t *Translator) Translate(ctx context.Context, id tenant.ID, md pmetric.Metrics, limit int) (*Translation, error) {
	return t.TranslateWithin(ctx, id, md, limit, nil)
}

// TranslateWithin is Translate with a budget for the memory of the batch.
func (t *Translator) TranslateWithin(ctx context.Context, id tenant.ID, md pmetric.Metrics, limit int,
	budget wire.Budget) (*Translation, error) {
	b := wire.NewLimitedBatch(id, limit)
	b.SetBudget(budget)
	s := &filter{batch: b}
	s.request(md)
	settings := t.settings
	if t.promote != nil {
		promoted := config.OTLPConfig{PromoteResourceAttributes: t.promote(id)}
		settings.PromoteResourceAttributes = converter.NewPromoteResourceAttributes(promoted)
	}
	if s.spread > spreadNormal {
		settings.LookbackDelta = s.spread / time.Duration(targetInfoSamples) * 2 // which must not overflow
	}
	conv := t.converters.Get().(*converter.PrometheusConverter)
	defer func() {
		conv.Reset(nil)
		t.converters.Put(conv)
	}()
	filtered := len(b.Rejected)
	out := &sink{batch: b, of: make([]int32, 0, s.points-s.refused)}
	conv.Reset(out)
	annots, err := conv.FromMetrics(ctx, md, settings)
	if err != nil && out.full == nil && ctx.Err() == nil {
		rejected := slices.Clone(b.Rejected[:filtered])
		b.Release()
		b = wire.NewLimitedBatch(id, limit)
		b.SetBudget(budget)
		b.Rejected = append(b.Rejected, rejected...)
		s.batch = b
		w := unconvertible{filter: s, ctx: ctx, conv: conv, settings: settings}
		w.request(md)
		out = &sink{batch: b}
		conv.Reset(out)
		annots, err = conv.FromMetrics(ctx, md, settings)
	}
	if out.full == nil {
		out.full = out.mergeDuplicates()
	}
	switch {
	case out.full != nil:
		err = out.full
	case ctx.Err() != nil:
		err = errs.Wrap(errs.Unavailable, ctx.Err())
	default:
		return &Translation{Batch: b, Points: s.points, Warnings: warnings(annots, err), refused: s.refused, sink: out}, nil
	}
	b.Release()
	return nil, err
}

// The converter writes a target_info sample every half lookback delta from the earliest to the latest data point of a
// resource, however far one bad clock has put these apart. Beyond a day they are spread out, so that there are not
// more.
const (
	spreadNormal      = 24 * time.Hour
	targetInfoSamples = int64(spreadNormal / (5 * time.Minute / 2))
)

// maxWarnings is how many warnings an answer has at most.
const maxWarnings = 10

// warnings are for the sender: what the converter noticed, and err, which cost no data point. A metric without data
// points needs no warning: SDKs send them all the time.
func warnings(annots annotations.Annotations, err error) []string {
	var texts []string
	for _, a := range annots {
		empty := converter.WarningCategoryOf(a) == converter.WarningCategoryEmptyDataPoints
		if !errors.Is(a, annotations.PromQLInfo) && !empty {
			texts = append(texts, a.Error())
		}
	}
	slices.Sort(texts)
	if err != nil {
		texts = append(texts, "no "+targetInfo+" was made: "+err.Error())
	}
	if len(texts) > maxWarnings {
		texts = append(texts[:maxWarnings], fmt.Sprintf("and %d more", len(texts)-maxWarnings))
	}
	return texts
}
