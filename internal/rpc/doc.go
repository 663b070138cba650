// Package rpc is all that Hearth does over gRPC, and the only package that knows gRPC: it serves a series.Source as
// Thanos's StoreAPI, takes shards of writes, and offers another process as a series.Source and a Writer.
//
// Flow:
//
//	Server  <- RegisterStore (Store, Info, Exemplars, Metadata), RegisterWrite (Writer, WriteableStore), RegisterServed
//	Client  -> Select, LabelNames, LabelValues, Info, Exemplars, Metadata; Write; Served
//
// Invariants:
//   - A caller that names a tenant by hearth-tenant sees that tenant's series with their own labels; any other caller sees
//     Thanos's view (view.go): external labels added, of the tenants that Store.Tenants grants.
//   - An error keeps its errs.Kind over the wire between Hearth processes (errors.go); a foreign peer's status code is
//     translated by errs.FromGRPC.
//   - A write that Client.Write acknowledged is in the peer's WAL. A stream that breaks fails every write without an
//     answer as Unavailable: it may have been stored, nothing is promised.
//   - What a number means on a write stream changes in the order of its frames, on both sides, whatever becomes of what
//     they carry (design 007). A stream that ends takes its numbers with it.
//   - A shard is not read any more once the call that brought it has returned.
//   - Shards of one tenant from one stream are written in the order in which they came. Tenants do not wait for each other,
//     except for a second, once, for one that has its share of the memory and finishes nothing (shares.go).
//   - A read holds its turn (Store.Readers, design 008) only while it works, never while it sends.
//   - Nobody waits for a peer without a limit (deadline.go), and nothing that other peers need is held meanwhile: a frame of
//     a write stream has room of the process from before it is decoded until it is stored, and not while it is answered.
//   - Room is taken for bytes that came, never for what they claim.
//   - No buffer that gRPC owns outlives the call that brought it. What a Set yields belongs to the garbage collector.
//
// Locks: Client.mu guards the choice of the write stream, writeStream.mu its frames without an answer,
// writeStream.encoding the shards that wait to be sent, lanes.mu the queues of a server's stream, crowd.mu the write streams
// of each connection, shares.mu what each tenant has of a room. None is held during I/O, none while another is taken.
//
// The bytes are described in docs/format/rpc.md.
package rpc
