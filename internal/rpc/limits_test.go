package rpc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

func TestSeriesLimits(t *testing.T) {
	src := viewSource()
	f := func(maxSeries, maxSamples int64, want codes.Code) {
		t.Helper()
		c := dialThanos(t, serve(t, func(s *Server) {
			RegisterStore(s,
				Store{Sources: map[string]series.Source{"receive": src}, Tenants: Tenants{All: true}, MaxSeries: maxSeries,
					MaxSamples: maxSamples})
		}))
		_, err := c.series(seriesRequest())
		if status.Code(err) != want || err != nil && !strings.Contains(err.Error(), "--store.limits.request-") {
			t.Errorf("at most %d series and %d samples: %v, want %s", maxSeries, maxSamples, err, want)
		}
	}
	all, err := dialThanos(t, serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": src}, Tenants: Tenants{All: true}})
	})).series(seriesRequest())
	if err != nil || len(all) < 2 {
		t.Fatalf("without limits: %d series, %v", len(all), err)
	}
	chunks := 0
	for _, s := range all {
		chunks += len(s.GetSeries().GetChunks())
	}
	f(int64(len(all)), int64(chunks)*120, codes.OK)
	f(int64(len(all))-1, 0, codes.ResourceExhausted)
	f(0, int64(chunks)*120-1, codes.ResourceExhausted)
}

func TestChosenConnection(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	f := func(opts ClientOptions, want string) {
		t.Helper()
		c, err := Dial(addr, opts)
		if err == nil {
			_, err = c.Write(t.Context(), shard("acme", 100))
			defer c.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", opts, err, want)
		}
	}
	f(ClientOptions{Compression: "snappy"}, "")
	f(ClientOptions{Compression: "gzip"}, "compression")
	f(ClientOptions{ServiceConfig: `{"loadBalancingConfig": [{"round_robin":{}}]}`}, "")
	f(ClientOptions{ServiceConfig: `{`}, "not JSON")
	f(ClientOptions{ServiceConfig: `{"loadBalancingConfig": 7}`}, "service config")
	f(ClientOptions{TLS: ClientTLS{MinVersion: "0.9"}}, "TLS version")
	f(ClientOptions{TLS: ClientTLS{Enabled: true, CAFile: filepath.Join(os.TempDir(), "absent.pem")}}, "server CA")
}

// A request that is no write may not be as large as one: nobody asks for memory before it is decoded.
func TestRequestTooLarge(t *testing.T) {
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": new(endless)}})
	})
	req := &thanospb.LabelNamesRequest{WithoutReplicaLabels: []string{strings.Repeat("x", maxRequest)}}
	err := dialThanos(t, addr).conn.Invoke(t.Context(), "/thanos.Store/LabelNames", req, new(thanospb.LabelNamesResponse))
	if err == nil || !strings.Contains(err.Error(), "a request of") {
		t.Errorf("%v", err)
	}
}
