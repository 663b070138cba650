// Package gateway runs what serves a bucket, Hearth's store gateway or Thanos's, and asks it over StoreAPI, without a
// querier between, so that the CPU that is measured is the gateway's.
//
// Flow: OpenBuckets gives the folder of buckets, with an S3 server over it -> Directory or S3.Config says where one
// is -> Launch starts a gateway on it -> WaitReady -> Dial, and Client.Series, LabelNames and LabelValues ask ->
// Gateway.Counts before and after say what the bucket was asked for.
//
// Requests to the bucket are counted twice: by the metrics of objstore, which both gateways have, as operations, and in
// front of an S3 server by a proxy, as HTTP requests (a listing of 100,000 names is one operation and 100 requests).
//
// A Gateway belongs to one goroutine. Clients may be used by many; the counters of an S3 are guarded by its mutex.
package gateway
