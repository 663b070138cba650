// Package rpc is everything that Hearth does over gRPC, and the only package that knows gRPC. It serves a series.Source
// as Thanos's StoreAPI, receives shards of writes, and offers another process as a series.Source and a Writer.
//
// Flow:
//
//	Server  <- RegisterStore (Store, Info, Exemplars, Metadata, Rules), RegisterWrite (Writer, WriteableStore),
//	           RegisterServed
//	Client  -> Select, LabelNames, LabelValues, Info, Exemplars, Metadata, Rules; Write; BlockStates
//
// Invariants:
//   - A caller that names a tenant by hearth-tenant gets the series of that tenant with their own labels. Any other
//     caller gets the series of the tenants that Store.Tenants grants, with external labels added, as Thanos has them
//     (thanos.go).
//   - An error keeps its errs.Kind over the wire between Hearth processes (errors.go). errs.FromGRPC translates the
//     status code of a peer that is not Hearth.
//   - A write that Client.Write acknowledged is in the member's WAL. When a stream breaks, every write without a
//     response fails as Unavailable: the member may have stored it or not.
//   - The meaning of a number on a write stream changes in the order of the frames, on both sides, whether or not the
//     content of a frame is stored (design 007). The numbers of a stream end with it.
//   - Nobody reads a shard after the call that brought it has returned.
//   - Shards of one tenant from one stream are written in the order in which they came. Tenants do not wait for each
//     other, with one exception: a tenant that uses its whole part of the memory and finishes nothing holds the
//     others of its stream up for one second, once (tenantmemory.go).
//   - A read holds its read slot (Store.Readers, design 008) only while it works, never while it sends.
//   - Nobody waits for a peer without a limit (deadline.go), and holds nothing meanwhile that other peers need. A
//     frame of a write stream holds memory of the process's budget from before it is decoded until it is stored, and
//     not while its response is sent.
//   - Memory is reserved by the bytes that came, never by a size that a message claims.
//   - No buffer that gRPC owns outlives the call that brought it. What a Set yields belongs to the garbage collector.
//
// Locks: Client.mu guards the choice of the write stream, writeStream.mu its frames without a response,
// writeStream.encoding the shards that wait to be sent, tenantQueues.mu the queues of a server's stream,
// streamCounter.mu the number of write streams of each connection, tenantMemory.mu what each tenant uses of a budget.
// Nobody holds one of them during I/O or while taking another one.
//
// docs/format/rpc.md describes the bytes.
package rpc
