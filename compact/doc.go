// Package compact keeps a bucket small and fast: it merges blocks into larger ones, unites the replicas of a ring,
// downsamples, marks what retention no longer keeps, and deletes what was marked long enough ago.
//
// Flow: several loops that wait for nothing but their own work, all of them over the last look at the bucket:
//
//	look:    list the bucket, write its index (block.Fetcher.WriteIndex) -> look
//	jobs:    look -> plan (compact/plan) -> jobs that this process owns -> execute -> mark the inputs for deletion
//	keep:    look -> blocks beyond retention, blocks that were replaced -> mark for deletion
//	clean:   look -> blocks marked long enough ago, uploads that were broken off -> delete
//
// Invariants:
//   - Nothing is marked or deleted unless mayDelete says so: the bucket's clock agrees with that of this machine, no
//     compactor of another kind works in the bucket, and it has Thanos's layout.
//   - A job marks its inputs only after every object of every output was found in the bucket with its size.
//   - A job that fails or panics ends alone: it is written down, shown and counted. All other work goes on.
//   - The name of an output is a function of everything that can change its bytes (compact/plan), so two compactors
//     that do one job write the same objects. Who does which job (Options.Owns) saves work, and nothing depends on it.
//   - An output that was deleted does not come back: see done.go.
//
// Locks: fetching is held while the bucket is looked at, and nothing else is taken under it but mu. mu guards what the
// page shows and what is known of failed jobs; nothing is taken under it.
package compact
