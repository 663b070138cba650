package main

import (
	"cmp"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/store"
)

// storeLimitFlags bound what one request may take from the blocks of a bucket.
type storeLimitFlags struct {
	series, samples int64
	bytes           byteSize
	concurrency     int
}

func (f *storeLimitFlags) bind(c *kingpin.CmdClause) {
	c.Flag("store.grpc.touched-series-limit", "Deprecated: --store.limits.request-series.").
		Default("0").SetValue(whole[int64]{&f.series})
	c.Flag("store.grpc.series-sample-limit", "Deprecated: --store.limits.request-samples.").
		Default("0").SetValue(whole[int64]{&f.samples})
	c.Flag("store.grpc.downloaded-bytes-limit", "Bytes of postings, series and chunks that one request may read; more "+
		"fail it. Parts that are in memory count, too. 0 = 1GiB.").Default("0").SetValue(&f.bytes)
	c.Flag("store.grpc.series-max-concurrency", "Blocks that all requests together read from at once; others wait.").
		Default("20").SetValue(whole[int]{&f.concurrency})
}

// apply sets the limits of a gateway, and those of the StoreAPI in front of it, which has the same names for them.
func (f *storeLimitFlags) apply(opts *store.Options, api *storeAPIFlags) {
	api.maxSeries, api.maxSamples = cmp.Or(api.maxSeries, f.series), cmp.Or(api.maxSamples, f.samples)
	opts.MaxRequestSeries, opts.MaxRequestSamples = api.maxSeries, api.maxSamples
	opts.MaxRequestBytes = cmp.Or(int64(f.bytes), opts.MaxRequestBytes)
	opts.SeriesMaxConcurrency = f.concurrency
}
