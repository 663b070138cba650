package series

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Stream is one stream of a Source: the series that share one set of external labels, such as the blocks of one
// replica.
type Stream struct {
	// External are all external labels of the stream, tenant and replica included, as Thanos shows them.
	External labels.Labels
	// Source yields this stream only, with the series' own labels: nothing is added. Whoever adds External must make it
	// win over a series' label of the same name, and must evaluate matchers on its names itself.
	Source Source
}

// Streamer is a Source that can tell its streams apart. Thanos callers are served stream by stream; Hearth's own ask
// the Source as a whole.
type Streamer interface {
	// Streams returns tenant id's streams at the moment, ordered by External.
	Streams(id tenant.ID) []Stream
}

// Everything matches every series, for those who are not to be asked without a matcher.
var Everything = labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")

// Resolve evaluates the matchers on external labels, which win over a series' own: the others remain for the source. It
// is false when one does not match, so that nothing of the stream can. It shares no memory with matchers.
func Resolve(matchers []*labels.Matcher, external labels.Labels) (rest []*labels.Matcher, ok bool) {
	for _, m := range matchers {
		switch {
		case !external.Has(m.Name):
			rest = append(rest, m)
		case !m.Matches(external.Get(m.Name)):
			return nil, false
		}
	}
	return rest, true
}
