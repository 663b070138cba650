package series

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Stream is one stream of a Source: the series that share one set of external labels, such as the blocks of one replica.
type Stream struct {
	// External are all external labels of the stream, tenant and replica included, as Thanos shows them.
	External labels.Labels
	// Source yields this stream only, with the series' own labels: nothing is added. Whoever adds External must make it
	// win over a series' label of the same name, and must evaluate matchers on its names itself.
	Source Source
}

// Streamer is a Source that can tell its streams apart. Thanos callers are served stream by stream; Hearth's own ask the
// Source as a whole.
type Streamer interface {
	// Streams returns tenant id's streams at the moment, ordered by External.
	Streams(id tenant.ID) []Stream
}
