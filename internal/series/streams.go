package series

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Stream is one stream of a Source: the series that share one set of external labels, such as the blocks of one
// replica.
type Stream struct {
	// External are all external labels of the stream, including those for tenant and replica, as Thanos shows them.
	External labels.Labels
	// Source yields this stream only, with the labels that the series themselves have. A caller that adds External must
	// let it win over a series' label of the same name. It must also evaluate the matchers on these names (Resolve): the
	// Source does not know them.
	Source Source
	// Shown says that Source yields series with External already, and evaluates matchers and Request.WithoutLabels as a
	// caller from Thanos has them. Such a source can keep series in order where Relabel would have to hold them.
	Shown bool
}

// Streamer is a Source that can list its streams. Callers from Thanos are served stream by stream, because they expect
// external labels in the series. Hearth's own callers ask the Source as a whole.
type Streamer interface {
	// Streams returns the streams that tenant id has now, ordered by External.
	Streams(id tenant.ID) []Stream
}

// Everything matches every series. It is for sources that refuse a request without a matcher.
var Everything = labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")

// Resolve evaluates the matchers on the names of external labels, which win over a series' own labels. rest are the
// other matchers, for the source to evaluate; it shares no memory with matchers. ok is false when one matcher does not
// match: then no series of the stream matches.
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
