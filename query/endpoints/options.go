package endpoints

import (
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/query"
)

// Options of Endpoints. The slices belong to Endpoints after New.
type Options struct {
	// Local are the sources of this process. They come first in the list.
	Local []query.Endpoint
	// Members are the other members with data that gossip knows at the moment; nil = there is no gossip.
	Members func() []Member
	// Rulers are the members with rules that gossip knows at the moment; nil = none. LocalRules are the rules of this
	// process.
	Rulers     func() []Member
	LocalRules []query.RulePeer
	// Addresses are host:port, dns+name:port or dnssrv+name of StoreAPIs.
	Addresses []string
	// Interval is how often names are looked up again. Less than a second counts as a second.
	Interval time.Duration
	// Dial makes the source at an address, without waiting for a connection. role "" means all sources of the process; any
	// other role means only that source. It is called for each List, so it must keep its sources and return them again.
	Dial func(addr, role string) (series.Source, error)
}

// Member is a process that gossip knows to have data.
type Member struct {
	// Instance is the id of the process.
	Instance string
	// Role says which source of the process is meant.
	Role string
	// Addr is the host:port of its gRPC port.
	Addr string
	// Bucket is the id of the bucket that the process uses, "" for none, or if it is not known. Contents are what a
	// gateway found in a bucket without an id.
	Bucket   string
	Contents series.Contents
}
