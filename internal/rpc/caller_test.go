package rpc

import (
	"context"
	"net"
	"testing"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// callers remembers who selected from it.
type callers struct {
	series.Source
	by chan string
}

func (a callers) Select(ctx context.Context, r *series.Request) series.Set {
	a.by <- series.Caller(ctx)
	return a.Source.Select(ctx, r)
}

// TestSelectNamesCaller: a cut that waits for a read says whose it is.
func TestSelectNamesCaller(t *testing.T) {
	src := callers{&sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{tenant.Default: some("a")}},
		make(chan string, 1)}
	addr := serve(t, func(s *Server) { RegisterStore(s, Store{Sources: map[string]series.Source{"receive": src}}) })
	c := dial(t, addr, ClientOptions{Role: "receive"})
	if _, _, err := collect(t, c, &series.Request{Tenant: tenant.Default, MaxTime: 1 << 60, Matchers: all()}); err != nil {
		t.Fatal(err)
	}
	if host, port, err := net.SplitHostPort(<-src.by); err != nil || host != "127.0.0.1" || port == "" {
		t.Fatalf("%q %q %v", host, port, err)
	}
}
