package rpc

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// populous is a receiver of many tenants. Its Info walks over all of them, as a real one's does.
type populous struct {
	series.Source
	ids   []tenant.ID
	infos atomic.Int64 // calls of Info
}

func newPopulous(n int) *populous {
	p := &populous{}
	for i := range n {
		p.ids = append(p.ids, tenant.ID(fmt.Sprintf("tenant-%06d", i)))
	}
	return p
}

func (p *populous) Info(context.Context) (series.Info, error) {
	p.infos.Add(1)
	return series.Info{Instance: "a", Role: "receive", Tenants: p.ids, MinTime: 1, MaxTime: 2}, nil
}

func (p *populous) Streams(id tenant.ID) []series.Stream {
	return []series.Stream{{External: labels.FromStrings("receive_replica", "a", "tenant_id", string(id)), Source: p}}
}

// Metadata is in each tenant's own words.
func (p *populous) Metadata(
	_ context.Context,
	id tenant.ID,
	_ string,
	_ int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	return map[string][]metadata.Metadata{"up": {{Type: "gauge", Help: "As " + string(id) + " says."}}}, nil, nil
}

func (p *populous) Exemplars(
	context.Context,
	tenant.ID,
	int64,
	int64,
	...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	return nil, nil, nil
}

func infoServer(src series.Source) *storeServer {
	return &storeServer{Store: Store{Sources: map[string]series.Source{"receive": src}, Tenants: Tenants{All: true},
		TenantLabel: "tenant_id"}}
}

// An Info asks the source once, however many tenants it has, and allocates in proportion to them: a poll must not take
// longer than queriers wait for it.
func TestInfoCostGrowsWithTenants(t *testing.T) {
	perTenant := func(n int) float64 {
		src := newPopulous(n)
		h := infoServer(src)
		var out *infopb.InfoResponse
		allocs := testing.AllocsPerRun(1, func() {
			var err error
			src.infos.Store(0)
			if out, err = h.info(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		})
		if got := src.infos.Load(); got != 1 {
			t.Fatalf("%d tenants: the source was asked for its Info %d times, want once", n, got)
		}
		if len(out.LabelSets) != n || len(out.Store.TsdbInfos) != n {
			t.Fatalf("%d label sets and %d TSDBs of %d tenants", len(out.LabelSets), len(out.Store.TsdbInfos), n)
		}
		return allocs / float64(n)
	}
	few, many := perTenant(500), perTenant(50_000)
	if many > 1.5*few {
		t.Errorf("%.1f allocations per tenant with 50,000 of them, %.1f with 500: the cost must not grow with their number",
			many, few)
	}
}

// What two sources of one process say of the same streams is one label set.
func TestInfoNamesALabelSetOnce(t *testing.T) {
	h := infoServer(newPopulous(3))
	h.Sources["store"] = newPopulous(4)
	out, err := h.info(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(out.LabelSets) != 4 || len(out.Store.TsdbInfos) != 7 {
		t.Errorf("%d label sets and %d TSDBs, want 4 and 7", len(out.LabelSets), len(out.Store.TsdbInfos))
	}
}

// The answer about 50,000 tenants travels to a Hearth and to a Thanos caller. Thanos's own client takes up to 2 GiB.
func TestInfoOfManyTenantsTravels(t *testing.T) {
	const n = 50_000
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": newPopulous(n)}, Tenants: Tenants{All: true}})
	})
	info, err := dial(t, addr, ClientOptions{Role: "receive"}).Info(t.Context())
	if err != nil || len(info.Tenants) != n || len(info.Labels) != n {
		t.Errorf("%d tenants, %d label sets, %v", len(info.Tenants), len(info.Labels), err)
	}
}

// Metadata that each tenant words in its own way is united without comparing each with all others.
func TestMetadataOfManyTenants(t *testing.T) {
	const n = 50_000
	all := newMerger()
	src := newPopulous(n)
	for range 2 {
		for _, id := range src.ids {
			found, _, _ := src.Metadata(t.Context(), id, "", 0)
			all.add(found)
		}
	}
	if got := len(all.families["up"]); got != n {
		t.Errorf("%d descriptions, want %d", got, n)
	}
}

// BenchmarkInfoOfManyTenants answers a poll; ns per tenant is time divided by their number.
func BenchmarkInfoOfManyTenants(b *testing.B) {
	for _, n := range []int{1_000, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := infoServer(newPopulous(n))
			b.ReportAllocs()
			var size int
			for b.Loop() {
				out, err := h.info(b.Context(), nil)
				if err != nil {
					b.Fatal(err)
				}
				size = out.SizeVT()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/tenant")
			b.ReportMetric(float64(size)/float64(n), "B/tenant")
		})
	}
}
