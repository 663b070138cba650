package merge

// Chunk is a chunk of a series, as it lies in a segment file of a block.
type Chunk struct {
	// MinTime and MaxTime are the times of its first and last sample in ms, both inclusive.
	MinTime, MaxTime int64
	// Encoding is the encoding byte: one of chunkenc's, or series.EncAggregates for a downsampled chunk.
	Encoding byte
	// Data are the bytes between encoding byte and checksum.
	Data []byte
}

// Series is one series of a stream. It and all that it refers to are valid only until the call that got it returns.
type Series struct {
	// Symbols are the labels: numbers of name, value, name, value, ..., sorted by name, in the symbol table that the
	// stream was announced with.
	Symbols []uint32
	// Chunks are sorted by time and do not overlap.
	Chunks []Chunk
}

// Sink takes a stream of series in order of their labels, each once. It is used by one goroutine.
type Sink interface {
	// Begin announces the sorted symbol table of all series that come. It stays valid until the stream ends.
	Begin(symbols Symbols) error
	// Add takes the next series. A series without chunks is left out.
	Add(s *Series) error
	// End says that all series came. Without it the stream was broken off, and what was written is no block.
	End() error
}

// Symbols is a sorted table of distinct strings.
type Symbols interface {
	// Len is the number of strings.
	Len() int
	// At returns string i. It is valid until the next call.
	At(i uint32) string
}
