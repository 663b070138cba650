// Package pb holds the protobuf messages that Hearth speaks over gRPC; one folder below it per protobuf package:
//
//	thanospb  Thanos's StoreAPI and its siblings: names and numbers are Thanos's and must never change
//	infopb    Thanos's Info service
//	hearthpb  the private services between Hearth processes (docs/format/rpc.md)
//
// The .proto files are the source; the Go code beside them is generated (go generate ./internal/pb) and committed.
// Service code is not generated: internal/rpc, the only package that knows gRPC, describes the services itself.
package pb

//go:generate ./generate.sh
