package wire

// The most bytes that an item takes in a frame: numbers are up to ten bytes long.
const (
	frameSeries    = 48 // head, counts, length of the labels
	frameSample    = 28
	frameHistogram = 96
	frameExemplar  = 28
)

// Size is about how many bytes a frame with s has at most.
func (s Shard) Size() int64 {
	n := 0
	for _, i := range s.Series {
		series := &s.Batch.Series[i]
		n += frameSeries + series.size + frameSample*len(series.Samples)
		for j := range series.Histograms {
			n += frameHistogram + series.Histograms[j].memory()*5/4 // ten bytes for eight
		}
		for j := range series.Exemplars {
			n += frameExemplar + len(series.Exemplars[j].Labels)
		}
	}
	for _, i := range s.Metadata {
		m := &s.Batch.Metadata[i]
		n += frameSeries + len(m.Family) + len(m.Help) + len(m.Unit) + len(m.Type)
	}
	return int64(n)
}
