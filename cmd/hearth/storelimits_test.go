package main

import (
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/store"
)

// TestStoreFlags: each value reaches the options of the gateway.
func TestStoreFlags(t *testing.T) {
	f := func(arg string, reached func(store.Options, gatewayFlags, storeAPIFlags) bool) {
		t.Helper()
		var (
			gateway gatewayFlags
			limits  storeLimitFlags
			api     storeAPIFlags
		)
		app := kingpin.New("test", "")
		c := app.Command("store", "")
		gateway.bind(c)
		limits.bind(c)
		api.bind(c)
		for _, args := range [][]string{{"store"}, {"store", arg}} {
			if _, err := app.Parse(args); err != nil {
				t.Fatalf("%s: %v", arg, err)
			}
			limits.apply(&gateway.opts, &api)
			if got, want := reached(gateway.opts, gateway, api), len(args) == 2; got != want {
				t.Errorf("%q: reached %t, want %t: %+v", args, got, want, gateway.opts)
			}
		}
	}
	duration := func(arg string, of func(store.Options) time.Duration) {
		t.Helper()
		f(arg+"=17m", func(o store.Options, _ gatewayFlags, _ storeAPIFlags) bool { return of(o) == 17*time.Minute })
	}
	duration("--sync-block-duration", func(o store.Options) time.Duration { return o.SyncInterval })
	duration("--store.bucket-read-timeout", func(o store.Options) time.Duration { return o.ReadTimeout })
	duration("--ignore-deletion-marks-delay", func(o store.Options) time.Duration { return o.IgnoreDeletionMarksDelay })
	duration("--store.index-header-lazy-reader-idle-timeout",
		func(o store.Options) time.Duration { return o.HeaderIdleTimeout })

	number := func(arg string, of func(store.Options) int64) {
		t.Helper()
		f(arg+"=17", func(o store.Options, _ gatewayFlags, _ storeAPIFlags) bool { return of(o) == 17 })
	}
	number("--block-sync-concurrency", func(o store.Options) int64 { return int64(o.BlockConcurrency) })
	number("--store.grpc.series-max-concurrency", func(o store.Options) int64 { return int64(o.SeriesMaxConcurrency) })
	number("--store.grpc.downloaded-bytes-limit", func(o store.Options) int64 { return o.MaxRequestBytes })
	for _, name := range []string{"--store.limits.request-series", "--store.grpc.touched-series-limit"} {
		f(name+"=17", func(o store.Options, _ gatewayFlags, api storeAPIFlags) bool {
			return o.MaxRequestSeries == 17 && api.maxSeries == 17
		})
	}
	for _, name := range []string{"--store.limits.request-samples", "--store.grpc.series-sample-limit"} {
		f(name+"=17", func(o store.Options, _ gatewayFlags, api storeAPIFlags) bool {
			return o.MaxRequestSamples == 17 && api.maxSamples == 17
		})
	}
	f("--store.replication-factor=17",
		func(_ store.Options, g gatewayFlags, _ storeAPIFlags) bool { return g.copies == 17 })
	f("--index-cache-size=17B", func(_ store.Options, g gatewayFlags, _ storeAPIFlags) bool { return g.cache.size == 17 })
	f("--store-api.sort-budget=17",
		func(_ store.Options, _ gatewayFlags, api storeAPIFlags) bool { return api.sortBudget == 17 })
	f("--store-api.tenants=*", func(_ store.Options, _ gatewayFlags, api storeAPIFlags) bool { return api.tenants == "*" })
}
