package downsample

import (
	"errors"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
)

// histogramPoint is a histogram and its time in ms.
type histogramPoint struct {
	t int64
	h *histogram.FloatHistogram
}

// histogramFlags is where the flags of a histogram chunk are.
const histogramFlags = 2

var errDiffer = errors.New("the histograms cannot be brought into one chunk")

// encode makes a chunk of points with header. It changes the points.
func encode(points []histogramPoint, header chunkenc.CounterResetHeader) (series.Encoded, error) {
	if len(points) == 0 {
		return series.Encoded{}, nil
	}
	var chunk chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
	app, err := chunk.Appender()
	if err != nil {
		return series.Encoded{}, err
	}
	for i, p := range points {
		// The library refuses counters that it takes to be reset: a new chunk instead of what was asked for. Of
		// gauges it takes all, and the difference is in the header only.
		p.h.CounterResetHint = histogram.GaugeType
		next, recoded, a, err := app.AppendFloatHistogram(nil, 0, p.t, p.h, false)
		switch {
		case err != nil:
			return series.Encoded{}, err
		case next != nil && !recoded && i > 0:
			return series.Encoded{}, errDiffer
		case next != nil:
			chunk = next
		}
		app = a
	}
	data := chunk.Bytes()
	data[histogramFlags] = data[histogramFlags]&^chunkenc.CounterResetHeaderMask | byte(header)
	return series.Encoded{Encoding: chunkenc.EncFloatHistogram, Data: data}, nil
}
