package series

import (
	"errors"
	"iter"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ResetFlags is the position of the counter reset header in the data of a histogram chunk.
const ResetFlags = 2

var errDiffer = errors.New("the histograms cannot be brought into one chunk")

// EncodeHistograms makes one chunk of histograms and their times in ms, with header. It changes the histograms. Without
// any, the result is absent. Histograms that differ too much to be in one chunk are an error.
func EncodeHistograms(points iter.Seq2[int64, *histogram.FloatHistogram],
	header chunkenc.CounterResetHeader) (Encoded, error) {
	var chunk chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
	app, err := chunk.Appender()
	if err != nil {
		return Encoded{}, err
	}
	begun := false
	for t, h := range points {
		// The library refuses counters that it takes to be reset: a new chunk instead of what was asked for. Of
		// gauges it takes all, and the difference is in the header only.
		h.CounterResetHint = histogram.GaugeType
		next, recoded, a, err := app.AppendFloatHistogram(nil, 0, t, h, false)
		switch {
		case err != nil:
			return Encoded{}, err
		case next != nil && !recoded && begun:
			return Encoded{}, errDiffer
		case next != nil:
			chunk = next
		}
		app, begun = a, true
	}
	if !begun {
		return Encoded{}, nil
	}
	data := chunk.Bytes()
	data[ResetFlags] = data[ResetFlags]&^chunkenc.CounterResetHeaderMask | byte(header)
	return Encoded{Encoding: chunkenc.EncFloatHistogram, Data: data}, nil
}
