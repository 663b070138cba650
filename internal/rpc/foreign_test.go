package rpc

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// bucketOf is a Thanos store with several streams, as they are at the moment.
type bucketOf struct {
	series.Source
	streams atomic.Pointer[[]series.Stream]
}

func (b *bucketOf) Streams(id tenant.ID) []series.Stream {
	if id != tenant.Default {
		return nil
	}
	return *b.streams.Load()
}

func (b *bucketOf) Info(context.Context) (series.Info, error) {
	return series.Info{MaxTime: 1 << 60, Tenants: []tenant.ID{tenant.Default}}, nil
}

func streamOf(external labels.Labels, in ...labels.Labels) series.Stream {
	m := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{}}
	for _, ls := range in {
		m.Data[tenant.Default] = append(m.Data[tenant.Default],
			sourcetest.Series{Labels: ls, Samples: []sourcetest.Sample{{T: 1000, V: 1}}})
	}
	return series.Stream{External: external, Source: m}
}

// TestOwnAttributeLabels: series of a Thanos store keep labels called tenant_id and receive_replica of their own, lose
// those of their stream, and streams of other tenants stay hidden.
func TestOwnAttributeLabels(t *testing.T) {
	plain := streamOf(labels.FromStrings("cluster", "c1"),
		labels.FromStrings("__name__", "own", "receive_replica", "mine", "tenant_id", "mine"),
		labels.FromStrings("__name__", "plain"))
	received := streamOf(labels.FromStrings("receive_replica", "r0", "tenant_id", string(tenant.Default)),
		labels.FromStrings("__name__", "received"))
	second := streamOf(labels.FromStrings("receive_replica", "r1", "tenant_id", string(tenant.Default)),
		labels.FromStrings("__name__", "received"))
	rival := streamOf(labels.FromStrings("receive_replica", "r0", "tenant_id", "rival"),
		labels.FromStrings("__name__", "secret"))
	const own, other, shared = `{__name__="own", cluster="c1", receive_replica="mine", tenant_id="mine"}`, `{__name__="plain", cluster="c1"}`, `{__name__="received"}`

	for _, without := range []bool{true, false} {
		src := &bucketOf{}
		serveStreams := func(streams ...series.Stream) {
			slices.SortFunc(streams, func(a, b series.Stream) int { return labels.Compare(a.External, b.External) })
			src.streams.Store(&streams)
		}
		serveStreams(plain)
		addr := serve(t,
			func(s *Server) { registerForeign(s, Store{Sources: map[string]series.Source{"store": src}}, without) })
		f := func(name string, c *Client, id tenant.ID, want, values string) {
			t.Helper()
			r := &series.Request{Tenant: id, MinTime: 0, MaxTime: 2000}
			got, _, err := collect(t, c, r)
			text := ""
			for _, s := range got {
				text += s.Labels.String()
			}
			if err != nil || text != want {
				t.Errorf("%s, drops labels %t: %s, %v; want %s", name, without, text, err, want)
			}
			found, _, err := c.LabelValues(context.Background(), "__name__", r)
			if err != nil || join(found) != values {
				t.Errorf("%s: values %q, %v; want %s", name, found, err, values)
			}
		}
		c := dial(t, addr, ClientOptions{})
		f("no stream has a tenant", c, tenant.Default, own+other, "own plain ")
		serveStreams(plain, rival) // it does not know yet
		f("another tenant came", c, tenant.Default, own+other, "own plain ")
		f("the other tenant", c, "rival", `{__name__="secret"}`, "secret ")
		serveStreams(plain, received, second, rival)
		fresh := dial(t, addr, ClientOptions{})
		f("mixed", fresh, tenant.Default, own+other+shared, "own plain received ")
		foe := streamOf(labels.FromStrings("receive_replica", "r0", "tenant_id", "foe"),
			labels.FromStrings("__name__", "hidden"))
		serveStreams(plain, received, second, foe) // as many streams as it knows of
		found, _, err := fresh.LabelValues(context.Background(), "__name__",
			&series.Request{Tenant: tenant.Default, MaxTime: 2000})
		if err != nil || join(found) != "own plain received " {
			t.Errorf("one tenant takes the place of another: values %q, %v", found, err)
		}
		serveStreams(received, second, rival)
		fresh = dial(t, addr, ClientOptions{})
		f("all have a tenant", fresh, tenant.Default, shared, "received ")
	}
}

// TestUnheardTenant: a Thanos caller hears the warnings of a source that does not know whether it holds the tenant.
func TestUnheardTenant(t *testing.T) {
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"query": unsure{&sourcetest.Memory{}}}})
	})
	req := &thanospb.SeriesRequest{MaxTime: 1000, PartialResponseStrategy: thanospb.PartialResponseStrategy_WARN}
	var warnings []string
	frame := new(thanospb.SeriesResponse)
	err := dial(t, addr, ClientOptions{}).each(context.Background(), "/"+serviceStore+"/Series", req, frame, func() error {
		warnings = append(warnings, frame.GetWarning())
		frame.Reset()
		return nil
	})
	if err != nil || !slices.Equal(warnings, []string{"an endpoint does not answer"}) {
		t.Errorf("warnings %q, %v", warnings, err)
	}
}

type unsure struct{ *sourcetest.Memory }

func (u unsure) Info(context.Context) (series.Info, error) {
	return series.Info{MaxTime: 1 << 60, Tenants: []tenant.ID{"heard-of"}}, nil
}

func (u unsure) Select(context.Context, *series.Request) series.Set {
	return series.List(nil, "an endpoint does not answer")
}
