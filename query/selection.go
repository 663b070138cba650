package query

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
)

// selection is one request to the endpoints: which ones it asks, and what they have responded until now.
type selection struct {
	q     *Querier
	req   *series.Request
	p     *params
	plan  plan
	col   *collector
	watch *watch
	fills []*filler // for the buckets of the plan whose gateways serve parts
	// blockless says that what is asked for is never in blocks.
	blockless bool
}

// newSelection decides which endpoints to ask for r, and begins to watch for silent ones. The caller stops the watch.
// blockless says that what is asked for is never in blocks.
func (q *Querier) newSelection(ctx context.Context, r *series.Request, blockless bool) (*selection, error) {
	s := &selection{q: q, req: r, p: q.paramsFrom(ctx), col: new(collector), blockless: blockless}
	if err := s.p.selecting(r.Tenant); err != nil {
		return nil, err
	}
	s.choose()
	s.startWatch()
	for bucket, b := range s.plan.buckets {
		if len(b.gateways) > 0 && !s.plan.part {
			s.fills = append(s.fills, &filler{sel: s, bucket: bucket, gateways: b.gateways,
				tried: map[ulid.ULID][]*endpoint{}})
		}
	}
	return s, nil
}

// choose decides which endpoints to ask. Endpoints that did not answer the last poll are asked only if the answer would
// be incomplete without them, since asking them may take until their timeout.
func (s *selection) choose() {
	known := s.q.known()
	empty := len(known) == 0
	if s.blockless {
		known = slices.DeleteFunc(slices.Clone(known), func(e *endpoint) bool { return e.info.Blocks.Bucket != "" })
	}
	s.plan = choose(known, s.req, s.p.storeMatch)
	s.plan.empty = empty
	if len(s.plan.down) == 0 || len(s.missing(s.col, true)) == 0 {
		return
	}
	for _, e := range s.plan.down {
		s.plan.join(e)
	}
	for _, e := range s.plan.down {
		s.plan.add(e)
	}
	s.plan.down = nil
}

// openLease opens a lease for what the selection holds in this process.
func (s *selection) openLease() *memory.Lease {
	if s.p.request != nil {
		return s.q.selects.OpenFor(s.p.request)
	}
	return s.q.selects.Open(s.req.Tenant)
}

// missing returns what may be missing from what col gathered, one line for each fault. early says that the selection
// ended before all endpoints did, since the answer had enough series: endpoints that did not fail count as if they had
// answered.
func (s *selection) missing(col *collector, early bool) []string {
	e := s.evidence(col.clone(), early)
	var ms Membership
	if s.q.opts.Membership != nil && len(s.p.storeMatch) == 0 {
		ms = s.q.opts.Membership(s.req.Tenant)
	}
	b := bounds{s.q.opts.Retention, s.q.opts.Window, s.q.opts.Future}
	missing := assess(ms, timeRange{s.req.MinTime, s.req.MaxTime}, s.q.now(), b, e)
	if s.plan.empty {
		missing = append(missing, NoEndpoints)
	}
	return missing
}

// judge says what the whole answer may lack, one line for each fault. The error says that the query does not accept
// that.
func (s *selection) judge(warnings series.Warnings, early bool) (missing []string, err error) {
	missing = s.missing(s.col, early)
	return missing, s.recordMissing(append(slices.Clone(warnings), missing...))
}

// errSaysNothing is the fault of a gateway that does not say what its response covers. Nobody else can know what it
// found in a bucket without an id.
var errSaysNothing = errors.New("it did not say which blocks its response has")

const partialPrefix = "partial answer: "

// withMissing adds to warnings, which it may change, one for each fault.
func withMissing(warnings series.Warnings, missing []string) series.Warnings {
	for _, m := range missing {
		warnings = append(warnings, partialPrefix+m)
	}
	return warnings
}

// NoEndpoints is the fault of an answer for which there was no endpoint to ask.
const NoEndpoints = "nobody to ask is known: --endpoint and --gossip.join name some"

// evidence is what col says of the endpoints. No other goroutine may use col.
func (s *selection) evidence(col *collector, early bool) evidence {
	e := evidence{part: s.plan.part, blockless: s.blockless}
	for _, r := range col.responses {
		r.said = s.named(r)
		switch {
		case r.err != nil:
			failed := failure{r.from.label(), r.from.info, r.err}
			if c := r.said.coverage; c != nil {
				e.seen = append(e.seen, c.Holding)
				if c.Contents != "" { // it may have found more than at the last poll
					failed.info.Blocks = c.Holding
				}
			}
			e.failed = append(e.failed, failed)
		case r.ended || early:
			e.addAnswered(r.from.info, r.said, r.pending())
			if r.from.info.Blocks.Contents != "" && r.said.coverage == nil && !r.pending() {
				e.failed = append(e.failed, failure{r.from.label(), r.from.info, errSaysNothing})
			}
		}
	}
	for _, g := range s.plan.groups {
		if early && !col.asks(g) {
			e.addAnswered(g.endpoints[0].info, said{}, true)
		}
		for _, m := range g.endpoints {
			e.seen = append(e.seen, m.info.Blocks)
		}
	}
	for _, m := range s.plan.down {
		e.seen = append(e.seen, m.info.Blocks)
		e.failed = append(e.failed, failure{m.label(), m.info, m.down()})
	}
	return e
}

// recordMissing records that the answer may lack something. It returns an error if the query does not accept that.
func (s *selection) recordMissing(missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	s.q.m.partial.Inc()
	s.p.incomplete.Store(true)
	if s.p.partial {
		return nil
	}
	return errs.E(errs.Unavailable, "the answer would be incomplete: %s", strings.Join(missing, "; "))
}
