package remote

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule"
	"github.com/hearth-metrics/hearth/rule/targets"
)

// Options are the settings of a Querier. Start from DefaultOptions.
type Options struct {
	// Queriers are those that may be asked; at least one.
	Queriers []targets.Config
	// Interval is how often their names and files are looked up.
	Interval time.Duration
	// Method is GET or POST.
	Method string
	// PlainParams leaves out the parameters that only Thanos and Hearth know.
	PlainParams bool
	// TenantHeader names the tenants of a query. Timeout bounds a query where Queriers say nothing.
	TenantHeader string
	Timeout      time.Duration
	// Hedge is how long an address may be silent until another one is asked, too.
	Hedge time.Duration
	// MaxBytes bounds an answer.
	MaxBytes int64
}

// DefaultOptions are Thanos's, with bounds.
func DefaultOptions() Options {
	return Options{
		Interval: 30 * time.Second, Method: "POST", TenantHeader: tenant.HeaderThanos, Timeout: 2 * time.Minute,
		Hedge: 3 * time.Second, MaxBytes: 256 << 20,
	}
}

// Querier is a rule.Querier over HTTP.
type Querier struct {
	opts    Options
	clients []httpClient
	list    *targets.List
}

var _ rule.Querier = (*Querier)(nil)

// New makes a Querier. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Querier, error) {
	if len(opts.Queriers) == 0 {
		return nil, errs.E(errs.Invalid, "no querier is named")
	}
	q := &Querier{opts: opts}
	for _, c := range opts.Queriers {
		client, err := c.HTTP.Client("query")
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err)
		}
		q.clients = append(q.clients, client)
	}
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "hearth_rule_queriers", Help: "Addresses of queriers that may be asked."},
		func() float64 { return float64(len(q.addresses())) })
	twice := f.NewCounter(prometheus.CounterOpts{Name: "thanos_rule_duplicated_query_addresses_total",
		Help: "Addresses of queriers that were found more than once. Each is used once."})
	q.list = targets.NewList(log, opts.Queriers, opts.Interval, func(found [][]string) {
		all := slices.Concat(found...)
		slices.Sort(all)
		twice.Add(float64(len(all) - len(slices.Compact(all))))
	})
	q.list.Register(reg, "thanos_rule_query_apis_")
	return q, nil
}

// Open looks the addresses up.
func (q *Querier) Open(ctx context.Context, fail func(error)) error { return q.list.Open(ctx, fail) }

// Close ends that.
func (q *Querier) Close() error { return q.list.Close() }

// Ready says that no querier is known.
func (q *Querier) Ready() error {
	if len(q.addresses()) == 0 {
		return errs.E(errs.Unavailable, "no querier is known: rules are not evaluated")
	}
	return nil
}

// addresses are all queriers, each once.
func (q *Querier) addresses() (out []address) {
	seen := map[string]bool{}
	for i, of := range q.list.Addresses() {
		c := q.opts.Queriers[i]
		for _, a := range of {
			url := c.Scheme + "://" + a + strings.TrimSuffix(c.PathPrefix, "/") + "/api/v1/query"
			if !seen[url] {
				seen[url] = true
				out = append(out, address{q.clients[i], url, cmp.Or(time.Duration(c.Timeout), q.opts.Timeout)})
			}
		}
	}
	return out
}

// Query implements rule.Querier. The addresses are asked in random order until one answers. A query that a querier
// refuses is not asked of others, since they would refuse it, too.
func (q *Querier) Query(ctx context.Context, query rule.Query) (rule.Answer, error) {
	all := q.addresses()
	if len(all) == 0 {
		return rule.Answer{}, q.Ready()
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type response struct {
		answer rule.Answer
		err    error
	}
	responses := make(chan response, len(all))
	asked, open := 0, 0
	ask := func() {
		a := all[asked]
		asked, open = asked+1, open+1
		go func() {
			answer, err := q.ask(ctx, a, query)
			responses <- response{answer, err}
		}()
	}
	ask()
	hedge := time.NewTicker(q.opts.Hedge)
	defer hedge.Stop()
	var faults []error
	for open > 0 {
		select {
		case <-hedge.C:
			if asked < len(all) {
				ask()
			}
		case r := <-responses:
			open--
			if r.err == nil || errs.KindOf(r.err) == errs.Invalid {
				return r.answer, r.err
			}
			faults = append(faults, r.err)
			if asked < len(all) {
				ask()
			}
		}
	}
	return rule.Answer{}, errs.Wrap(errs.Unavailable, errors.Join(faults...))
}
