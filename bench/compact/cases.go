package main

import (
	"context"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
)

// testCase is a bucket and what is done to it.
type testCase struct {
	name string
	// about is what the page says of it.
	about string
	// bucket names the bucket; cases share one.
	bucket string
	write  func(ctx context.Context, dir string) error
	// flags of each program beside those of all cases.
	flags map[string][]string
	// s3 says that the bucket is reached over S3.
	s3 bool
	// newest is set where the last of that many equal windows is too new to be downsampled.
	newest int
	// nothing says that nothing is to be done, so that no content is compared. Then the pass that is measured is the
	// second one: the first leaves what a program keeps of a bucket, in it or in its data directory.
	nothing bool
}

const (
	day       = 24 * time.Hour
	fortnight = 14 * day
)

var end = time.Date(2026, 10, 22, 0, 0, 0, 0, time.UTC) // 14 days since 1970 divide it

// united are the flags that make one copy of the replicas of a ring.
var united = map[string][]string{"thanos": {"--deduplication.replica-label=receive_replica"}}

// also are the flags of all programs, with more for both.
func also(of map[string][]string, more ...string) map[string][]string {
	out := map[string][]string{}
	for _, name := range programs {
		out[name] = append(append([]string(nil), of[name]...), more...)
	}
	return out
}

const noDownsampling = "--downsampling.disable"

// cases are all that can be measured. scale is 1, or 10 for a quick run.
func cases(scale int) []testCase {
	stream := func(s blocks.Stream) func(context.Context, string) error {
		s.Seed, s.Interval, s.Window = 1, 15*time.Second, 2*time.Hour
		if s.End.IsZero() {
			s.End = end
		}
		return func(ctx context.Context, dir string) error { return blocks.WriteStream(ctx, dir, s) }
	}
	twenty := blocks.Shape{Metrics: 20, Namespaces: 20 / min(scale, 10), Pods: 50} // 20,000 series
	replicas := func(d blocks.Difference) func(context.Context, string) error {
		return stream(blocks.Stream{Shape: twenty, Windows: 12, Replicas: 3, Differ: d})
	}
	disjoint := stream(blocks.Stream{Shape: blocks.Shape{Metrics: 20, Namespaces: 4, Pods: 50 / min(scale, 10)},
		End: end.Add(2 * time.Hour), Windows: 169, Replicas: 1}) // the newest block always stays as it is
	idle := func(ctx context.Context, dir string) error {
		return blocks.Write(ctx, dir, blocks.Plan{Seed: 1, Blocks: 100_000 / scale, Tenants: 10_000 / scale,
			Shape: blocks.Shape{Metrics: 2, Namespaces: 1, Pods: 1}, Window: fortnight, Interval: day, End: end})
	}
	return []testCase{
		{name: "disjoint", bucket: "disjoint", write: disjoint, flags: also(nil, noDownsampling),
			about: "168 blocks of 2 h, 4,000 series, become one of 14 days; a newer one stays"},
		{name: "disjoint and downsampled", bucket: "disjoint", write: disjoint, flags: also(nil),
			about: "the same, with 5m and 1h", newest: 169},
		{name: "replicas, the same", bucket: "same", write: replicas(blocks.Same), flags: also(united, noDownsampling),
			about: "12 windows of 2 h, 20,000 series, three replicas with the same chunks"},
		{name: "replicas, cut elsewhere", bucket: "restarts", write: replicas(blocks.Restarts),
			flags: also(united, noDownsampling),
			about: "the same samples, but two replicas began a chunk anew in each window, as after a restart"},
		{name: "replicas with gaps", bucket: "gaps", write: replicas(blocks.Gaps), flags: also(united, noDownsampling),
			about: "each replica lacks 1 % of the samples, in runs of five"},
		{name: "late samples", bucket: "late", flags: also(map[string][]string{
			"thanos": {"--compact.enable-vertical-compaction"}}, noDownsampling),
			write: stream(blocks.Stream{Shape: twenty, Windows: 12, Replicas: 1, Differ: blocks.Late}),
			about: "one replica; beside each block another one with 1 % of the samples, which came out of order"},
		{name: "2M series", bucket: "large", flags: also(nil, noDownsampling),
			write: func(ctx context.Context, dir string) error {
				return blocks.WriteStream(ctx, dir, blocks.Stream{Seed: 1, End: end.Add(2 * day), Interval: 4 * time.Hour,
					Window: 2 * day, Shape: blocks.Shape{Metrics: 20, Namespaces: 2000 / scale, Pods: 50}, Windows: 8,
					Replicas: 1})
			},
			about: "7 blocks of 2 days, 2,000,000 series with a sample each 4 hours, become one of 14 days; a newer one stays"},
		{name: "nothing to do", bucket: "idle", write: idle, flags: also(nil, noDownsampling), nothing: true,
			about: "100,000 blocks of 14 days, of 10,000 tenants; the second pass, with the same data directory"},
		{name: "nothing to do, S3", bucket: "idle", write: idle, flags: also(nil, noDownsampling), nothing: true, s3: true,
			about: "the same over S3"},
	}
}
