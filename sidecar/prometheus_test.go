package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/regexp"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/sidecar/promclient"
)

// fakePrometheus is Prometheus's own API and database in this process, with faults that a test may set.
type fakePrometheus struct {
	db *tsdb.DB

	mu       sync.Mutex // guards what follows
	external labels.Labels
	flags    map[string]string
	down     bool
	fault    func(w http.ResponseWriter, r *http.Request, next http.Handler)
	requests []string
	frame    int // bytes of a frame of remote read

	api http.Handler
	url *url.URL
}

func newFakePrometheus(t *testing.T, external labels.Labels) *fakePrometheus {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration, opts.EnableExemplarStorage, opts.MaxExemplars = 0, true, 1000
	opts.OutOfOrderTimeWindow = time.Hour.Milliseconds()
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.DisableCompactions()
	f := &fakePrometheus{db: db, external: external, frame: 1 << 20,
		flags: map[string]string{flagMinBlock: "2h", flagMaxBlock: "2h"}}
	f.api = f.newAPI()
	server := httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		db.Close()
	})
	if f.url, err = url.Parse(server.URL); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fakePrometheus) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	down, fault, api := f.down, f.fault, f.api
	f.requests = append(f.requests, r.URL.Path)
	f.mu.Unlock()
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			lowest := f.db.Head().MinTime()
			if blocks := f.db.Blocks(); len(blocks) > 0 {
				lowest = blocks[0].MinTime()
			}
			fmt.Fprintf(w, "# HELP x y\nprometheus_tsdb_lowest_timestamp_seconds %v\n", float64(lowest)/1000)
			return
		}
		http.StripPrefix("/api/v1", api).ServeHTTP(w, r)
	})
	switch {
	case down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case fault != nil:
		fault(w, r, next)
	default:
		next.ServeHTTP(w, r)
	}
}

// set changes the fake under its lock.
func (f *fakePrometheus) set(change func()) {
	f.mu.Lock()
	change()
	f.api = nil
	f.mu.Unlock()
	api := f.newAPI()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.api = api
}

// seen returns how many requests there were whose path ends with suffix.
func (f *fakePrometheus) seen(suffix string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, path := range f.requests {
		if strings.HasSuffix(path, suffix) {
			n++
		}
	}
	return n
}

// nothing stands for what this Prometheus does not have.
type nothing struct{}

func (nothing) ScrapePools() []string                       { return nil }
func (nothing) TargetsActive() map[string][]*scrape.Target  { return nil }
func (nothing) TargetsDropped() map[string][]*scrape.Target { return nil }
func (nothing) TargetsDroppedCounts() map[string]int        { return nil }
func (nothing) Alertmanagers() []*url.URL                   { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL            { return nil }
func (nothing) RuleGroups() []*rules.Group                  { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule        { return nil }
func (nothing) ScrapePoolConfig(string) (*config.ScrapeConfig, error) {
	return nil, errors.New("none")
}
func (nothing) CleanTombstones() error                { return errors.New("none") }
func (nothing) BlockMetas() ([]tsdb.BlockMeta, error) { return nil, nil }
func (nothing) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errors.New("none")
}
func (nothing) Snapshot(string, bool) error                    { return errors.New("none") }
func (nothing) Stats(string, int) (*tsdb.Stats, error)         { return nil, errors.New("none") }
func (nothing) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }

// newAPI is Prometheus's API over the database.
func (f *fakePrometheus) newAPI() http.Handler {
	none := nothing{}
	parser := expr.New(0)
	external := func() config.Config {
		f.mu.Lock()
		defer f.mu.Unlock()
		c := config.DefaultConfig
		c.GlobalConfig.ExternalLabels = f.external
		return c
	}
	f.mu.Lock()
	flags, frame := f.flags, f.frame
	f.mu.Unlock()
	api := v1.NewAPI(
		promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: parser}), f.db, nil, f.db,
		func(context.Context) v1.ScrapePoolsRetriever { return none },
		func(context.Context) v1.TargetRetriever { return none },
		func(context.Context) v1.AlertmanagerRetriever { return none },
		external, flags, v1.GlobalURLOptions{}, func(h http.HandlerFunc) http.HandlerFunc { return h },
		none, "", false, false, 0, slog.New(slog.DiscardHandler),
		func(context.Context) v1.RulesRetriever { return none },
		0, 10, frame, false, regexp.MustCompile("^(?:.*)$"),
		func() (v1.RuntimeInfo, error) { return v1.RuntimeInfo{ReloadConfigSuccess: true}, nil },
		&v1.PrometheusVersion{Version: "3.14.0"},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, func() {}, false },
		prometheus.NewRegistry(), nil, nil, false, remoteapi.MessageTypes{}, false, false, false, 5*time.Minute,
		false, false, statusOf, features.NewRegistry(), v1.OpenAPIOptions{Version: "3.14.0"}, parser, false, time.Minute,
	)
	router := route.New()
	api.Register(router)
	return router
}

func statusOf[N any](_ N, _ error) (int, bool) { return 0, false }

// write adds series. They are in the database when it returns.
func (f *fakePrometheus) write(t *testing.T, in ...sourcetest.Series) {
	t.Helper()
	app := f.db.Appender(t.Context())
	for _, s := range in {
		var ref storage.SeriesRef
		var err error
		for _, p := range s.Samples {
			if p.H != nil || p.FH != nil {
				ref, err = app.AppendHistogram(ref, s.Labels, p.T, p.H, p.FH)
			} else {
				ref, err = app.Append(ref, s.Labels, p.T, p.V)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// open returns a sidecar of f, which knows it.
func (f *fakePrometheus) open(t *testing.T, change ...func(*Options)) *Sidecar {
	t.Helper()
	s := f.sidecar(t, change...)
	if err := s.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// sidecar returns a sidecar that has not looked at f.
func (f *fakePrometheus) sidecar(t *testing.T, change ...func(*Options)) *Sidecar {
	t.Helper()
	return f.sidecarTo(t, nil, change...)
}

// sidecarTo returns a sidecar that has not looked at f, and ships into bkt.
func (f *fakePrometheus) sidecarTo(t *testing.T, bkt objstore.Bucket, change ...func(*Options)) *Sidecar {
	t.Helper()
	client, err := promclient.New(f.url, "settings", nil)
	if err != nil {
		t.Fatal(err)
	}
	opts := DefaultOptions()
	for _, c := range change {
		c(&opts)
	}
	s, err := New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), client, bkt, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// someLabels are label sets that begin with each other, with and without names around those of external labels.
func someLabels() (all []labels.Labels) {
	names := []string{"a", "b", "cluster", "d", "replica", "z"}
	for mask := range 1 << len(names) {
		for _, v := range []string{"0", "1"} {
			b := labels.NewBuilder(labels.FromStrings(model.MetricNameLabel, "m"))
			for i, name := range names {
				if mask>>i&1 == 1 {
					b.Set(name, v)
				}
			}
			all = append(all, b.Labels())
		}
	}
	slices.SortFunc(all, labels.Compare)
	return slices.CompactFunc(all, labels.Equal)
}

var owner = tenant.ID("team-a")
