package main

import (
	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/hearth-metrics/hearth/block/viewer"
	"github.com/hearth-metrics/hearth/compact"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/store"
	"github.com/hearth-metrics/hearth/web"
)

// blocksPageFlags are those of a role that shows the blocks of its bucket.
type blocksPageFlags struct {
	disable bool
	label   string
}

func (f *blocksPageFlags) bind(c *kingpin.CmdClause) {
	c.Flag("web.disable", "Do not serve the page of blocks, and /api/v1/blocks.").BoolVar(&f.disable)
	c.Flag("bucket-web-label", "External label by which the page groups blocks.").StringVar(&f.label)
}

// routes are the API of the page. The source of opts is the caller's; without --web.disable it is asked from the first
// request on.
func (f *blocksPageFlags) routes(opts viewer.Options) []httpx.Route {
	if f.disable {
		return nil
	}
	opts.Label = f.label
	return viewer.New(opts).Routes()
}

// pageAndRoutes are the page of blocks as the first page of a process that answers no queries, and its API.
func (f *blocksPageFlags) pageAndRoutes(opts viewer.Options) []httpx.Route {
	if f.disable {
		return nil
	}
	return append(f.routes(opts), blocksPage())
}

// blocksPage is the page of blocks at /. It is open, as it holds nothing of the bucket.
func blocksPage() httpx.Route {
	page := web.New(web.Options{Version: version.Version, OnlyBlocks: true})
	return httpx.Route{Pattern: "/", Class: httpx.Open, Early: true, Handler: page.Handler()}
}

// gatewayState is what a gateway knows of its bucket.
func gatewayState(g *store.Gateway) func() viewer.State {
	return func() viewer.State {
		v := g.Viewed()
		return viewer.State{View: v.View, Loaded: v.Served, At: v.At}
	}
}

// compactorState is what a compactor knows of its bucket. Those that it works on are loaded.
func compactorState(c *compact.Compactor) func() viewer.State {
	return func() viewer.State {
		v := c.Viewed()
		return viewer.State{View: v.View, Loaded: v.Live, At: v.At, Err: v.Err}
	}
}
