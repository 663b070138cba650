package viewer

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
)

// State is what is known of a bucket at one time.
type State struct {
	View block.View
	// Filters choose the blocks of the view that are shown.
	Filters []block.Filter
	// Loaded are the blocks that this process serves, or works on.
	Loaded []*block.Meta
	// At is when the bucket was last looked at, Err what went wrong then; nil = nothing.
	At  time.Time
	Err error
}

// fault is what people should know of s, "" = nothing.
func (s State) fault() string {
	switch {
	case s.Err != nil:
		return s.Err.Error()
	case s.At.IsZero():
		return "the bucket is being listed"
	}
	return ""
}

// Options of a Viewer.
type Options struct {
	// Source returns the state at present. It must return at once.
	Source func() State
	// Bucket is where meta.json files are read from.
	Bucket objstore.BucketReader
	// Marks is where marks are written to; nil = this process writes none, and has no route for it.
	Marks objstore.Bucket
	// Label is the external label by which the page groups blocks; "" = all of them.
	Label string
	// Refuse says that no marks are taken.
	Refuse bool
	// CORS lets pages of other servers read the blocks.
	CORS bool
}

// Viewer answers for a bucket. It is safe for concurrent use.
type Viewer struct{ opts Options }

// New makes a viewer.
func New(opts Options) *Viewer { return &Viewer{opts} }

// blocks are the blocks of the view called name, oldest first: those that are loaded, or all.
func blocks(s State, name string) []*block.Meta {
	if name == "loaded" {
		return slices.SortedFunc(slices.Values(s.Loaded), block.ByTime)
	}
	return s.View.Select(s.Filters...)
}

// The bits of row.Marks.
const (
	markedDeletion     = 1
	markedNoCompact    = 2
	markedNoDownsample = 4
	isLoaded           = 8
)

// maxRows is how many rows a page has at most.
const maxRows = 20_000

// page is a part of a listing. A row is a list, to be short: id, mint, maxt, level, resolution, number of the stream
// and of the source, series, samples, chunks, bytes, bits of marks.
type page struct {
	Version int64               `json:"version"` // of the state; all pages of a listing have the same one
	Label   string              `json:"label"`
	At      time.Time           `json:"refreshedAt"`
	Err     string              `json:"err,omitempty"`
	Total   int                 `json:"total"`
	Admin   bool                `json:"admin"` // marks are taken
	Streams []map[string]string `json:"streams"`
	Sources []string            `json:"sources"`
	Rows    [][]any             `json:"rows"`
}

// rows is the page of s that begins at row from.
func (v *Viewer) rows(s State, name string, from int) page {
	all := blocks(s, name)
	p := page{Version: s.At.UnixMilli(), Label: v.opts.Label, At: s.At, Total: len(all),
		Admin: v.opts.Marks != nil && !v.opts.Refuse, Streams: []map[string]string{}, Sources: []string{}, Rows: [][]any{}}
	p.Err = s.fault()
	loaded := map[ulid.ULID]bool{}
	for _, m := range s.Loaded {
		loaded[m.ULID] = true
	}
	streams, sources := map[string]int{}, map[string]int{}
	from = min(max(from, 0), len(all))
	for _, m := range all[from:min(len(all), from+maxRows)] {
		key := m.ExternalLabels().String()
		stream, ok := streams[key]
		if !ok {
			stream = len(p.Streams)
			streams[key] = stream
			p.Streams = append(p.Streams, m.Thanos.Labels)
		}
		source, ok := sources[m.Thanos.Source]
		if !ok {
			source = len(p.Sources)
			sources[m.Thanos.Source] = source
			p.Sources = append(p.Sources, m.Thanos.Source)
		}
		p.Rows = append(p.Rows, []any{m.ULID, m.MinTime, m.MaxTime, m.Compaction.Level, m.Thanos.Downsample.Resolution,
			stream, source, m.Stats.NumSeries, m.Stats.NumSamples, m.Stats.NumChunks, m.Bytes(), marks(s, m, loaded[m.ULID])})
	}
	return p
}

func marks(s State, m *block.Meta, loaded bool) (bits int) {
	if _, ok := s.View.Deletions[m.ULID]; ok {
		bits |= markedDeletion
	}
	if _, ok := s.View.NoCompact[m.ULID]; ok {
		bits |= markedNoCompact
	}
	if _, ok := s.View.NoDownsample[m.ULID]; ok {
		bits |= markedNoDownsample
	}
	if loaded {
		bits |= isLoaded
	}
	return bits
}
