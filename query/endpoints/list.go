package endpoints

import (
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/query"
)

// target is an endpoint whose address is known.
type target struct {
	name, addr string
	known      series.Info // what gossip says of it; a role means only that source of the process
}

// resolved is a name of --endpoint with the addresses behind it. Without addresses, err says why there are none.
type resolved struct {
	name      string
	addresses []string
	err       error
}

// targets decides which addresses to ask: each member, then each address behind the names once. unknown are the names
// without an address, each once.
func targets(members []Member, names []resolved) (found []target, unknown []query.Endpoint) {
	for _, m := range members {
		known := series.Info{Instance: m.Instance, Role: m.Role}
		// A gateway that starts is seen before it answers. Others of its bucket stand in for it, as for one that fails.
		// Nobody stands in for a receiver, which uses a bucket, too.
		if m.Role == series.RoleStore {
			known.Blocks = series.Holding{Bucket: m.Bucket, Contents: m.Contents}
		}
		found = append(found, target{m.Role + " " + m.Instance, m.Addr, known})
	}
	seen := map[string]bool{}
	for _, n := range names {
		if n.err != nil && !seen[n.name] {
			unknown = append(unknown, query.Endpoint{Name: n.name, Source: series.FailedSource(n.err)})
			seen[n.name] = true
		}
		for _, addr := range n.addresses {
			if !seen[addr] {
				found = append(found, target{name: addr, addr: addr})
				seen[addr] = true
			}
		}
	}
	return found, unknown
}
