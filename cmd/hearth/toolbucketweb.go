package main

import (
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/viewer"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

func bucketWebCommand() command {
	return command{
		name:  "tools bucket web",
		help:  "Show the blocks of a bucket on a page, until it is stopped.",
		first: []string{"objstore.config-file", "http-address", "refresh"},
		subject: subject{"The page", []string{"refresh", "timeout", "label", "web.*", "disable-admin-operations",
			"min-time", "max-time", "selector.*"}},
		idle: idleTable{never: []idleFlag{{"web.prefix-header", idleText, "links and redirects are relative"}}},
		bind: bindBucketWeb,
	}
}

// prefixFlags say under which path the page is.
type prefixFlags struct{ route, external string }

func (f *prefixFlags) bind(c *kingpin.CmdClause) {
	c.Flag("web.route-prefix", "Path below which the page and its API are served; default --web.external-prefix.").
		StringVar(&f.route)
	c.Flag("web.external-prefix", "Path at which a proxy serves the page. Links are relative, so it is needed only as "+
		"the default of --web.route-prefix.").StringVar(&f.external)
}

// under serves routes below the prefix, and sends who comes to / there. A proxy may take off a prefix of its own, so
// the way there is relative.
func (f prefixFlags) under(routes []httpx.Route) []httpx.Route {
	prefix := f.route
	if prefix == "" {
		prefix = f.external
	}
	if prefix = strings.Trim(prefix, "/"); prefix == "" {
		return routes
	}
	all := []httpx.Route{{Pattern: "GET /{$}", Class: httpx.Open, Early: true, Handler: goTo(prefix + "/")},
		{Pattern: "GET /" + prefix, Class: httpx.Open, Early: true, Handler: goTo(path.Base(prefix) + "/")}}
	for _, r := range routes {
		method, below, _ := strings.Cut(r.Pattern, "/")
		r.Pattern = method + "/" + prefix + "/" + below
		r.Handler = http.StripPrefix("/"+prefix, r.Handler)
		all = append(all, r)
	}
	return all
}

// goTo sends who comes to a path, which is relative to that of the request.
func goTo(there string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", there)
		w.WriteHeader(http.StatusFound)
	})
}

func bindBucketWeb(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket  toolBucketFlags
		http    httpFlags
		prefix  prefixFlags
		chosen  blockChoice
		opts    viewer.Options
		noCORS  bool
		refresh = 30 * time.Minute
		timeout time.Duration
	)
	bucket.bind(c)
	http.bind(c)
	prefix.bind(c)
	chosen.bindTimes(c, "Only")
	chosen.bindRules(c, "Only")
	c.Flag("web.disable-cors", "Do not let pages of other servers read the list of blocks.").BoolVar(&noCORS)
	c.Flag("label", "External label by which the page groups blocks.").StringVar(&opts.Label)
	c.Flag("disable-admin-operations", "Take no marks from the page.").BoolVar(&opts.Refuse)
	durationFlag(c, "refresh", "How often the bucket is looked at.", &refresh)
	toolTimeout(c, &timeout)
	return func(b *builder) {
		warnRefresh(b, refresh, timeout)
		users := http.users(b)
		server := http.build(b, users)
		bkt := bucket.build(b)
		rules := chosen.relabels(b)
		poller := viewer.NewPoller(b.log, bkt, viewer.PollerOptions{
			Refresh: refresh, Timeout: timeout, Fetch: block.FetcherOptions{MaxIndexAge: listIndexAge},
			Filters: func(now time.Time) []block.Filter { return webFilters(now, &chosen, rules) },
		})
		b.addPart("blocks", poller.Open, poller.Close, nil)
		opts.Source, opts.Bucket, opts.Marks, opts.CORS = poller.State, bkt, bkt, !noCORS
		server.Add(b.ownRoutes()...)
		server.Add(httpx.StatusRoutes(b.status("", nil))...)
		server.Add(prefix.under(append(viewer.New(opts).Routes(), blocksPage()))...)
	}
}

// webFilters are what the page shows: those of the flags, without blocks that others replace.
func webFilters(now time.Time, chosen *blockChoice, rules []*relabel.Config) []block.Filter {
	return []block.Filter{block.Within(chosen.timesAt(now)), block.Chosen(rules), block.NotReplaced}
}

// warnRefresh warns of times that put much load on a bucket, or are too short, as Thanos does.
func warnRefresh(b *builder, refresh, timeout time.Duration) {
	if refresh < 5*time.Minute {
		b.log.Warn("a bucket without an index is listed as a whole at each refresh: more often than each 5m that is much " +
			"traffic")
	}
	if timeout < time.Minute {
		b.log.Warn("a timeout of less than 1m is too short for large buckets")
	}
	if refresh < 2*timeout {
		b.log.Warn("the refresh should be at least twice the timeout")
	}
}
