package main

import (
	"net/http"
	"strconv"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// replicas takes remote write for d on a member of a hashring file. A request that says in a header which copy it is
// has been placed already, and is stored here. Elsewhere the header means nothing, as in Thanos.
func (f *routeFlags) replicas(c *cluster, d *distributor.Distributor) http.Handler {
	route := d.Handler()
	if c.static == nil {
		return route
	}
	store := d.PlacedHandler(c.single)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := copyNumber(r.Header.Get(f.replicaHeader), c.rf)
		switch {
		case err != nil:
			httpx.WriteError(w, r, err)
		case n > 0:
			store.ServeHTTP(w, r)
		default:
			route.ServeHTTP(w, r)
		}
	})
}

// copyNumber is what the replica header says: 1 to rf, or 0 for a request that nobody has placed yet.
func copyNumber(header string, rf int) (int, error) {
	if header == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(header)
	if err != nil || n < 0 || n > rf {
		return 0, errs.E(errs.Invalid, "replica %q: want a number from 0 to the replication factor, %d", header, rf)
	}
	return n, nil
}
