package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/promapi"
)

// Limits of remote read: concurrent requests, bytes per frame of a streamed answer.
const (
	remoteReadConcurrency = 10
	remoteReadFrame       = 1 << 20
)

// prometheusAPI is Prometheus's own query API over q, to be served below the API's prefix. A querier has no targets,
// rules and TSDB statistics: their paths answer with empty lists or an error.
func (q *Querier) prometheusAPI() http.Handler {
	none := nothing{}
	version := v1.PrometheusVersion{Version: q.opts.Version, Revision: q.opts.Revision, GoVersion: runtime.Version()}
	flags := q.opts.Flags
	if flags == nil {
		flags = map[string]string{}
	}
	api := v1.NewAPI(
		q.engine, q, nil, nil, // handleExemplars answers for exemplars, with warnings
		func(context.Context) v1.ScrapePoolsRetriever { return none },
		func(context.Context) v1.TargetRetriever { return none },
		func(context.Context) v1.AlertmanagerRetriever { return none },
		func() config.Config { return config.DefaultConfig },
		flags, v1.GlobalURLOptions{},
		func(h http.HandlerFunc) http.HandlerFunc { return h },
		none, "", false, // TSDB statistics, directory, admin
		false, 0, // search
		q.log,
		func(context.Context) v1.RulesRetriever { return none },
		q.opts.MaxSamples, remoteReadConcurrency, remoteReadFrame,
		false, // agent
		promapi.AnyOrigin,
		q.runtimeInfo, &version,
		func() []notifications.Notification { return []notifications.Notification{} },
		func() (<-chan notifications.Notification, func(), bool) { return nil, func() {}, false },
		prometheus.NewRegistry(), nil,
		nil,                             // statistics
		false, remoteapi.MessageTypes{}, // remote write
		false, false, false, // OTLP
		q.opts.LookbackDelta,
		false, false,
		statusOf,
		features.NewRegistry(), v1.OpenAPIOptions{Version: q.opts.Version},
		q.parser,
		false, q.opts.Timeout,
	)
	router := route.New()
	api.Register(router)
	return router
}

// statusOf is promapi.Status for the library. Its type parameter stands for a type of the library that is not exported.
func statusOf[N any](_ N, err error) (int, bool) { return promapi.Status(err) }

// errorType is the type of err in an answer. The engine has errors of its own for queries that took too long.
func errorType(err error) string {
	var ended promql.ErrQueryTimeout
	var left promql.ErrQueryCanceled
	switch {
	case errors.As(err, &ended):
		return promapi.Timeout
	case errors.As(err, &left):
		return promapi.Canceled
	}
	return promapi.ErrorType(err)
}

func (q *Querier) runtimeInfo() (v1.RuntimeInfo, error) {
	info := v1.RuntimeInfo{
		StartTime: q.start, ServerTime: time.Now().UTC(), ReloadConfigSuccess: true, LastConfigTime: q.start,
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		GOGC: os.Getenv("GOGC"), GODEBUG: os.Getenv("GODEBUG"),
	}
	if q.opts.Reloaded != nil {
		info.ReloadConfigSuccess, info.LastConfigTime = q.opts.Reloaded()
	}
	info.Hostname, _ = os.Hostname()
	info.CWD, _ = os.Getwd()
	return info, nil
}

// nothing stands for the scrape targets, alertmanagers, rules and local TSDB, which a querier does not have. Lists and
// maps are empty and not nil, since a client that expects [] or {} may fail at null.
type nothing struct{}

func (nothing) ScrapePools() []string                          { return []string{} }
func (nothing) TargetsActive() map[string][]*scrape.Target     { return nil }
func (nothing) TargetsDropped() map[string][]*scrape.Target    { return nil }
func (nothing) TargetsDroppedCounts() map[string]int           { return map[string]int{} }
func (nothing) Alertmanagers() []*url.URL                      { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL               { return nil }
func (nothing) RuleGroups() []*rules.Group                     { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule           { return nil }
func (nothing) Snapshot(string, bool) error                    { return errNoTSDB }
func (nothing) CleanTombstones() error                         { return errNoTSDB }
func (nothing) Stats(string, int) (*tsdb.Stats, error)         { return nil, errNoTSDB }
func (nothing) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }
func (nothing) BlockMetas() ([]tsdb.BlockMeta, error)          { return []tsdb.BlockMeta{}, nil }

func (nothing) ScrapePoolConfig(name string) (*config.ScrapeConfig, error) {
	return nil, fmt.Errorf("scrape pool %q not found", name) // it has no kind, so that the API chooses the status
}

func (nothing) Delete(context.Context, int64, int64, ...*labels.Matcher) error { return errNoTSDB }

var errNoTSDB = errs.E(errs.Unsupported, "a querier has no TSDB of its own")
