package store

import (
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/store/cache"
)

const (
	// maxRange bounds the entries of series that are read at once, in bytes.
	maxRange = 8 << 20
	// seriesGuess and chunkGuess are what is read for a series entry or a chunk, in bytes, until more is known of their
	// sizes.
	seriesGuess = 2 << 10
	chunkGuess  = 4 << 10
)

// memoryOf is what parts of a file take in memory while they are used, in bytes.
func memoryOf(parts []index.Range) int64 {
	var e cache.Extent
	for _, p := range parts {
		e.Add(p)
	}
	return e.Bytes
}
