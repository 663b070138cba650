// Package cache keeps what was read of a bucket's blocks: pages of their files, and what was made of them. It has two
// tiers: the memory of this process, and if one is configured a memcached or Redis that several gateways share.
//
// Flow:
//
//	Read: pages in memory -> pages on the shared server -> the missing ones by few range reads -> kept in both tiers
//	Get, Put: an item in memory -> on the shared server; kept in both tiers
//
// Invariants:
//   - Objects of a block never change, so nothing in the cache is ever stale. That something does not exist is never
//     kept.
//   - A fault of the cache is a miss: no call returns an error of a cache server, and none waits for it longer than
//     longestWait. What comes from a server is used only if its length and checksum are those of its key.
//   - Keys on a server begin with the format version and the bucket's uuid, so that clusters and buckets may share a
//     server. Without a uuid only memory is used.
//   - Memory holds at most Options.MaxBytes, with what the bookkeeping takes. A scan of many pages that are read once
//     cannot push out what is read again and again.
//   - Values are shared and immutable: nobody changes what Read or Get returned, or what Put was given.
//
// Locks: shard.mu (one part of memory), Cache.flightsMu, server.mu. None is held while another is taken, or while a
// bucket or a server is read.
package cache
