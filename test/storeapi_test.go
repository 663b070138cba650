package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// thanosSeries asks a StoreAPI as a Thanos querier does and returns the series' labels, in order.
func thanosSeries(t *testing.T, address string, md []string, req *thanospb.SeriesRequest) ([]string, error) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := conn.NewStream(metadata.AppendToOutgoingContext(ctx, md...), &grpc.StreamDesc{ServerStreams: true},
		"/thanos.Store/Series")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil {
		return nil, err
	}
	var got []string
	for {
		var resp thanospb.SeriesResponse
		if err := stream.RecvMsg(&resp); errors.Is(err, io.EOF) {
			return got, nil
		} else if err != nil {
			return got, err
		}
		list := []*thanospb.Series{resp.GetSeries()}
		if resp.GetBatch() != nil {
			list = resp.GetBatch().Series
		}
		for _, s := range list {
			if s == nil {
				continue
			}
			text := ""
			for _, l := range s.Labels {
				text += fmt.Sprintf("%s=%s ", l.Name, l.Value)
			}
			if len(s.Chunks) == 0 && !req.SkipChunks {
				return got, fmt.Errorf("series %s has no chunk", text)
			}
			got = append(got, text)
		}
	}
}

// TestStoreAPI is a Thanos querier's view: external labels added, tenants apart, replica labels taken off on request.
func TestStoreAPI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now().UnixMilli()
	p, base := startAll(t, dir, "--gossip.instance-id=one")
	for _, w := range []struct {
		tenant string
		labels []string
	}{
		{"default-tenant", []string{"__name__", "m", "job", "a"}},
		{"default-tenant", []string{"__name__", "m", "job", "b", "tenant_id", "own", "receive_replica", "own"}},
		{"red", []string{"__name__", "m", "job", "red"}},
	} {
		body := encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(now, 1, w.labels...)}})
		if _, err := do(http.MethodPost, base+"/api/v1/receive", writeHeader(tenantHeader(w.tenant)), body); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(md []string, without []string, want ...string) {
		t.Helper()
		grpcAddr := flagOf(p, "grpc-address")
		req := &thanospb.SeriesRequest{MinTime: now - 60_000, MaxTime: now + 60_000, WithoutReplicaLabels: without,
			Matchers: []*thanospb.LabelMatcher{{Type: thanospb.LabelMatcher_EQ, Name: "__name__", Value: "m"}}}
		got, err := thanosSeries(t, grpcAddr, md, req)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("metadata %q without %q: %q %v, want %q", md, without, got, err, want)
		}
	}
	const (
		a = "__name__=m job=a receive_replica=one tenant_id=default-tenant "
		b = "__name__=m job=b receive_replica=one tenant_id=default-tenant " // external labels win over the series' own
		r = "__name__=m job=red receive_replica=one tenant_id=red "
	)
	thanos := []string{"THANOS-TENANT", "default-tenant"} // what a stock querier always sends
	ask(nil, nil, a, b)
	ask(thanos, nil, a, b)
	ask([]string{"THANOS-TENANT", "red"}, nil, r)
	ask(nil, []string{"receive_replica"}, "__name__=m job=a tenant_id=default-tenant ",
		"__name__=m job=b tenant_id=default-tenant ")
	ask([]string{"hearth-tenant", "red"}, nil, "__name__=m job=red ")
	ask([]string{"hearth-tenant", "default-tenant"}, nil, "__name__=m job=a ",
		"__name__=m job=b receive_replica=own tenant_id=own ")
	if _, err := thanosSeries(t, flagOf(p, "grpc-address"), []string{"hearth-tenant", "../red"},
		&thanospb.SeriesRequest{MaxTime: now}); err == nil {
		t.Error("a bad tenant is accepted")
	}

	p.stop(20 * time.Second)
	p, _ = startAll(t, dir, "--gossip.instance-id=one", "--store-api.tenants=*")
	ask(thanos, nil, a, b, r)
	p.stop(20 * time.Second)
	p, _ = startAll(t, dir, "--gossip.instance-id=one", "--store-api.tenants=header")
	ask(thanos, nil, a, b)
	ask([]string{"THANOS-TENANT", "red"}, nil, r)
	checkInfo(t, flagOf(p, "grpc-address"))
	p.stop(20 * time.Second)

	// Other names for the attributes, as a Thanos set-up may have them, in heads and in blocks alike. The names belong to
	// a bucket, so these need a new one.
	if err := os.RemoveAll(filepath.Join(dir, "bucket")); err != nil {
		t.Fatal(err)
	}
	p, base = startAll(t, dir, "--gossip.instance-id=one", "--receive.tenant-label-name=team",
		"--receive.replica-label-name=pod")
	const renamed = "__name__=m job=a pod=one team=default-tenant "
	for range 2 {
		ask(nil, nil, renamed, "__name__=m job=b pod=one receive_replica=own team=default-tenant tenant_id=own ")
		ans, err := api{base: base}.query(`m{job="b"}`, time.UnixMilli(now).Add(time.Second))
		if err != nil ||
			!strings.Contains(string(ans.Data), `{"__name__":"m","job":"b","receive_replica":"own","tenant_id":"own"}`) {
			t.Errorf("own labels under other attribute names: %s %v", ans.Data, err)
		}
		if _, err := do(http.MethodPost, base+"/api/v1/admin/flush", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// checkInfo holds Info to what a Thanos querier selects stores by.
func checkInfo(t *testing.T, address string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var info infopb.InfoResponse
	if err := conn.Invoke(ctx, "/thanos.info.Info/Info", &infopb.InfoRequest{}, &info); err != nil {
		t.Fatal(err)
	}
	if info.Store == nil || info.Store.MinTime > info.Store.MaxTime || !info.Store.SupportsWithoutReplicaLabels ||
		len(info.LabelSets) != 2 {
		t.Errorf("Info is %v", &info)
	}
}

// flagOf is the value of a flag that the process was started with.
func flagOf(p *process, name string) string {
	prefix := "--" + name + "="
	for _, a := range p.cmd.Args {
		if len(a) > len(prefix) && a[:len(prefix)] == prefix {
			return a[len(prefix):]
		}
	}
	p.t.Fatalf("%s has no flag --%s", p.name, name)
	return ""
}
