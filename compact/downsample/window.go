package downsample

import "math"

// The resolutions in ms, and how many windows of one a chunk has at most: 10 hours of 5 minutes, 5 days of an hour.
const (
	FiveMinutes = 5 * 60 * 1000
	Hour        = 60 * 60 * 1000

	windowsPerChunk = 120
)

// farthest bounds the times of samples, both ways, so that ends of windows do not overflow.
const farthest = math.MaxInt64 / 2

// none is a time before all samples.
const none = math.MinInt64

// start is the first ms of the window of length ms that t falls into. Windows begin at multiples of their length, also
// before 1970.
func start(t, length int64) int64 {
	within := t % length
	if within < 0 {
		within += length
	}
	return t - within
}

// span says where windows and chunks end.
type span struct {
	resolution int64
	windowEnd  int64 // the last ms of the open window; none = no window is open
	chunkEnd   int64 // the last ms that the open chunk may have
}

// open opens the window of t. fresh = a chunk begins with it.
func (s *span) open(t int64, fresh bool) {
	s.windowEnd = start(t, s.resolution) + s.resolution - 1
	if fresh {
		length := windowsPerChunk * s.resolution
		s.chunkEnd = start(t, length) + length - 1
	}
}

// stamp is the timestamp of the open window, the last one of a chunk. last is the time of its last sample, next that of
// the next one of the series, or none. It is the window's end, as that of all windows, unless the series ends there, or
// goes on in another chunk within the window.
func (s *span) stamp(last, next int64) int64 {
	if next == none || next <= s.windowEnd {
		return last
	}
	return s.windowEnd
}
