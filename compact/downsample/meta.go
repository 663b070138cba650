package downsample

import (
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
)

// Describe writes into the meta.json of a downsampled block what is not that of its source: the resolution in ms, who
// made it, and the statistics. A sample of a downsampled block is a window. s are those of the Stage that the block
// was written by.
func Describe(m *block.Meta, resolution int64, s Stats) {
	m.Thanos.Downsample.Resolution = resolution
	m.Thanos.Source = block.SourceCompactor
	m.Stats = tsdb.BlockStats{
		NumSeries:           s.Series,
		NumChunks:           s.Chunks,
		NumSamples:          s.FloatSamples + s.HistogramSamples,
		NumFloatSamples:     s.FloatSamples,
		NumHistogramSamples: s.HistogramSamples,
	}
}
