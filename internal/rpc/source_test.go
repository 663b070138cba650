package rpc

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"google.golang.org/grpc"
	grpcmd "google.golang.org/grpc/metadata"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func TestClientIsASource(t *testing.T) {
	for _, batch := range []int{1, 3, 256} {
		sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
			mem := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{id: in}, ChunkSamples: 50}
			addr := serve(t, func(s *Server) {
				RegisterStore(s, Store{Sources: map[string]series.Source{"receive": mem}})
			})
			return dial(t, addr, ClientOptions{Role: "receive", BatchSize: batch})
		})
	}
}

// TestForeignIsASource runs the contract over a peer that is Thanos to the client, with and without support for
// dropping replica labels. The series' own labels tenant_id and receive_replica are those of the stream there.
func TestForeignIsASource(t *testing.T) {
	for _, without := range []bool{true, false} {
		sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
			mem := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{id: in}}
			st := Store{
				Sources: map[string]series.Source{"receive": hideOwn{mem}}, Tenants: Tenants{All: true},
				External: func(id tenant.ID) labels.Labels {
					return labels.FromStrings("receive_replica", "r-0", "tenant_id", string(id))
				},
			}
			addr := serve(t, func(s *Server) { registerForeign(s, st, without) })
			c := dial(t, addr, ClientOptions{})
			return restoreOwn{c}
		})
	}
}

// The contract's series "own" has labels with the names of Thanos's attributes. They cannot travel through Thanos, so
// the test renames them on the way.

type hideOwn struct{ series.Source }

func swap(ls labels.Labels, from, to string) labels.Labels {
	b := labels.NewBuilder(ls)
	for _, n := range []string{"tenant_id", "receive_replica"} {
		if v := ls.Get(from + n); v != "" {
			b.Del(from+n).Set(to+n, v)
		}
	}
	return b.Labels()
}

func (h hideOwn) Select(ctx context.Context, r *series.Request) series.Set {
	own := *r
	own.Matchers = swapMatchers(r.Matchers, "x_", "")
	return swapSet(h.Source.Select(ctx, &own), "", "x_")
}

type restoreOwn struct{ series.Source }

func (h restoreOwn) Select(ctx context.Context, r *series.Request) series.Set {
	own := *r
	own.Matchers = swapMatchers(r.Matchers, "", "x_")
	return swapSet(h.Source.Select(ctx, &own), "x_", "")
}

func swapMatchers(ms []*labels.Matcher, from, to string) []*labels.Matcher {
	var out []*labels.Matcher
	for _, m := range ms {
		if n, ok := strings.CutPrefix(m.Name, from); ok && (n == "tenant_id" || n == "receive_replica") {
			m = matcher(m.Type, to+n, m.Value)
		}
		out = append(out, m)
	}
	return out
}

// swapSet reads the set whole and sorts it anew.
func swapSet(set series.Set, from, to string) series.Set {
	defer set.Close()
	var out []series.Series
	for set.Next() {
		s := set.At()
		out = append(out, series.Series{Labels: swap(s.Labels, from, to), Chunks: s.Chunks})
	}
	if set.Err() != nil {
		return series.Failed(set.Err())
	}
	slices.SortFunc(out, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return series.List(out, set.Warnings()...)
}

func (h hideOwn) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	own := *r
	own.Matchers = swapMatchers(r.Matchers, "x_", "")
	names, w, err := h.Source.LabelNames(ctx, &own)
	return renamed(names, "", "x_"), w, err
}

func (h hideOwn) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	own := *r
	own.Matchers = swapMatchers(r.Matchers, "x_", "")
	return h.Source.LabelValues(ctx, renamed([]string{name}, "x_", "")[0], &own)
}

func (h restoreOwn) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	own := *r
	own.Matchers = swapMatchers(r.Matchers, "", "x_")
	names, w, err := h.Source.LabelNames(ctx, &own)
	return renamed(names, "x_", ""), w, err
}

func (h restoreOwn) LabelValues(
	ctx context.Context,
	name string,
	r *series.Request,
) ([]string, series.Warnings, error) {
	own := *r
	own.Matchers = swapMatchers(r.Matchers, "", "x_")
	return h.Source.LabelValues(ctx, renamed([]string{name}, "", "x_")[0], &own)
}

func renamed(names []string, from, to string) []string {
	var out []string
	for _, name := range names {
		if n, ok := strings.CutPrefix(name, from); ok && (n == "tenant_id" || n == "receive_replica") {
			name = to + n
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// registerForeign serves st as Thanos would: what a Hearth process says of itself in metadata is not heard.
func registerForeign(s *Server, st Store, without bool) {
	if st.TenantLabel == "" {
		st.TenantLabel = "tenant_id"
	}
	h := &storeServer{Store: st, metrics: s.metrics}
	deaf := func(ctx context.Context) context.Context { return grpcmd.NewIncomingContext(ctx, nil) }
	s.grpc.RegisterService(service(serviceStore, "thanospb/store.proto", []grpc.MethodDesc{
		unaryMethod(serviceStore, "LabelNames",
			func(_ any, ctx context.Context, in *thanospb.LabelNamesRequest) (*thanospb.LabelNamesResponse, error) {
				return h.labelNames(deaf(ctx), in)
			}),
		unaryMethod(serviceStore, "LabelValues",
			func(_ any, ctx context.Context, in *thanospb.LabelValuesRequest) (*thanospb.LabelValuesResponse, error) {
				return h.labelValues(deaf(ctx), in)
			}),
	}, streamMethod("Series", func(_ any, in *thanospb.SeriesRequest, ss grpc.ServerStream) error {
		if !without && len(in.WithoutReplicaLabels) > 0 {
			return errors.New("the server was asked for what it does not support")
		}
		return h.series(in, withContext{ss, deaf(ss.Context())})
	})), h)
	s.grpc.RegisterService(service(serviceRules, "thanospb/rules.proto", nil,
		streamMethod("Rules", func(_ any, in *thanospb.RulesRequest, ss grpc.ServerStream) error {
			return h.rules(in, withContext{ss, deaf(ss.Context())})
		})), h)
	s.grpc.RegisterService(service(serviceInfo, "infopb/info.proto", []grpc.MethodDesc{
		unaryMethod(serviceInfo, "Info",
			func(_ any, ctx context.Context, in *infopb.InfoRequest) (*infopb.InfoResponse, error) {
				out, err := h.info(deaf(ctx), in)
				if out != nil {
					out.Store.SupportsWithoutReplicaLabels = without
				}
				return out, err
			}),
	}), h)
	s.grpc.RegisterService(service(serviceExemplars, "thanospb/exemplars.proto", nil, streamMethod("Exemplars",
		func(_ any, in *thanospb.ExemplarsRequest, ss grpc.ServerStream) error {
			return h.exemplars(in, withContext{ss, deaf(ss.Context())})
		})), h)
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s withContext) Context() context.Context { return s.ctx }

func TestErrorsKeepTheirKind(t *testing.T) {
	var fail error
	mem := &sourcetest.Memory{Fail: func() error { return fail }, About: series.Info{MaxTime: 1}}
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": quietInfo{mem}}})
	})
	c := dial(t, addr, ClientOptions{Role: "receive"})
	r := &series.Request{Tenant: "a", Matchers: all()}
	for k := errs.Invalid; k <= errs.Internal; k++ {
		fail = errs.WithRetryAfter(errs.E(k, "what went wrong"), 1500*time.Millisecond)
		_, _, err := collect(t, c, r)
		if errs.KindOf(err) != k || errs.RetryAfter(err) != 1500*time.Millisecond ||
			!strings.Contains(err.Error(), "what went wrong") {
			t.Errorf("%s came back as %s, retry after %s: %v", k, errs.KindOf(err), errs.RetryAfter(err), err)
		}
		if _, _, err := c.LabelNames(context.Background(), r); errs.KindOf(err) != k {
			t.Errorf("label names: %s came back as %s: %v", k, errs.KindOf(err), err)
		}
	}
	fail = context.DeadlineExceeded
	if _, _, err := collect(t, c, r); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a deadline came back as %s", errs.KindOf(err))
	}
	fail = nil
	wrong := dial(t, addr, ClientOptions{Role: "store"})
	if _, err := wrong.Info(context.Background()); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a role that is not served: %v", err)
	}
	nobody := dial(t, "127.0.0.1:1", ClientOptions{})
	if _, _, err := collect(t, nobody, r); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("nobody listens: %v", err)
	}
}

// quietInfo is a source whose Info never fails.
type quietInfo struct{ series.Source }

func (quietInfo) Info(context.Context) (series.Info, error) { return series.Info{MaxTime: 1}, nil }

func TestSelectFailsInTheMiddle(t *testing.T) {
	mem := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{"a": some("x", "y", "z")}, FailAfter: 2,
		Fail: func() error { return errs.E(errs.Exhausted, "no room") }}
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": quietInfo{mem}}})
	})
	c := dial(t, addr, ClientOptions{Role: "receive", BatchSize: 1})
	got, _, err := collect(t, c, &series.Request{Tenant: "a", MaxTime: 1e15, Matchers: all()})
	// The last series may be incomplete, so it does not count.
	if len(got) != 1 || errs.KindOf(err) != errs.Exhausted {
		t.Errorf("%d series, error %v", len(got), err)
	}
}

func some(names ...string) []sourcetest.Series {
	var out []sourcetest.Series
	for _, n := range names {
		out = append(out, sourcetest.Series{Labels: labels.FromStrings("__name__", n),
			Samples: []sourcetest.Sample{{T: 1000, V: 1}, {T: 2000, V: 2}}})
	}
	return out
}

// about is a source with an Info, exemplars and metadata.
type about struct {
	series.Source
	info series.Info
}

func (a about) Info(context.Context) (series.Info, error) { return a.info, nil }

func (a about) Exemplars(
	_ context.Context,
	id tenant.ID,
	mint, maxt int64,
	ms ...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	var out []exemplar.QueryResult
	for _, name := range []string{"x", "y"} {
		ls := labels.FromStrings("__name__", name, "own", string(id))
		if slices.ContainsFunc(ms, func(sel []*labels.Matcher) bool {
			return !slices.ContainsFunc(sel, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
		}) {
			out = append(out, exemplar.QueryResult{SeriesLabels: ls, Exemplars: []exemplar.Exemplar{
				{Labels: labels.FromStrings("trace", "1"), Value: 4, Ts: mint, HasTs: true}, {Value: 5, Ts: maxt, HasTs: true},
			}})
		}
	}
	return out, nil, nil
}

func (a about) Metadata(
	_ context.Context,
	id tenant.ID,
	family string,
	limit int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	out := map[string][]metadata.Metadata{
		"x": {{Type: "counter", Help: "of " + string(id), Unit: "s"}}, "y": {{Type: "gauge"}},
	}
	if family != "" {
		return map[string][]metadata.Metadata{family: out[family]}, nil, nil
	}
	return out, nil, nil
}

func TestInfo(t *testing.T) {
	info := series.Info{
		Instance:          "one-1",
		Role:              "receive",
		MinTime:           -5,
		MaxTime:           99,
		Since:             time.UnixMilli(12345),
		Blocks:            series.Holding{Bucket: "b-1", Whole: true},
		Tenants:           []tenant.ID{"a", "b"},
		ReplicationFactor: 3,
	}
	store := series.Info{Instance: "one-1", Role: "store", MinTime: 0, MaxTime: 500, Tenants: []tenant.ID{}}
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Tenants: Tenants{All: true}, Sources: map[string]series.Source{
			"receive": about{&sourcetest.Memory{}, info}, "store": about{&sourcetest.Memory{}, store},
		}})
	})
	want := info
	want.Labels = []labels.Labels{labels.FromStrings("tenant_id", "a"), labels.FromStrings("tenant_id", "b")}
	got, err := dial(t, addr, ClientOptions{Role: "receive"}).Info(context.Background())
	if err != nil || !sameInfo(got, want) {
		t.Errorf("receive: %+v, %v\nwant %+v", got, err, want)
	}
	got, err = dial(t, addr, ClientOptions{Role: "store"}).Info(context.Background())
	if err != nil || got.Tenants == nil || len(got.Tenants) != 0 || got.MaxTime != 500 || got.Covers("a", 0, 100) {
		t.Errorf("store: %+v, %v", got, err)
	}
	got, err = dial(t, addr, ClientOptions{}).Info(context.Background())
	if err != nil || got.MinTime != -5 || got.MaxTime != 500 || got.Role != "receive" ||
		!slices.Equal(got.Tenants, info.Tenants) {
		t.Errorf("all roles: %+v, %v", got, err)
	}
}

func sameInfo(a, b series.Info) bool {
	return a.Instance == b.Instance && a.Role == b.Role && a.MinTime == b.MinTime && a.MaxTime == b.MaxTime &&
		a.Since.Equal(b.Since) &&
		a.Blocks == b.Blocks &&
		slices.Equal(a.Tenants, b.Tenants) &&
		a.ReplicationFactor == b.ReplicationFactor &&
		slices.EqualFunc(a.Labels, b.Labels, labels.Equal)
}

func TestForeignInfo(t *testing.T) {
	f := func(want string, sets ...string) {
		t.Helper()
		in := &infopb.InfoResponse{ComponentType: "sidecar", Store: &infopb.StoreInfo{MinTime: 1, MaxTime: 2}}
		for _, s := range sets {
			in.LabelSets = append(in.LabelSets, labelsToPB(labels.FromStrings(strings.Fields(s)...)))
		}
		info := foreignInfo(in, "tenant_id", "")
		var got []string
		for _, id := range info.Tenants {
			got = append(got, string(id))
		}
		if s := strings.Join(got, " "); s != want || info.Role != "sidecar" || info.MinTime != 1 || info.MaxTime != 2 {
			t.Errorf("%q: %+v, want tenants %q", sets, info, want)
		}
	}
	f("")
	f("default-tenant", "cluster eu")
	f("a", "tenant_id a", "replica 1 tenant_id a")
	f("a default-tenant", "tenant_id a", "cluster eu")
	f("", "tenant_id not/allowed")

	if info := foreignInfo(&infopb.InfoResponse{}, "tenant_id", ""); info.MinTime != math.MaxInt64 || info.Tenants != nil {
		t.Errorf("no store: %+v", info)
	}
}

func TestExemplarsAndMetadata(t *testing.T) {
	src := about{&sourcetest.Memory{}, series.Info{MaxTime: 100, Tenants: []tenant.ID{"a", "b"}}}
	st := Store{
		Tenants: Tenants{All: true},
		Sources: map[string]series.Source{"receive": src},
		External: func(id tenant.ID) labels.Labels {
			return labels.FromStrings("own", "hidden", "receive_replica", "r", "tenant_id", string(id))
		},
	}
	check := func(who string, c *Client, want string) {
		t.Helper()
		got, _, err := c.Exemplars(context.Background(), "b", 10, 20,
			[]*labels.Matcher{matcher(labels.MatchEqual, "__name__", "y")},
			[]*labels.Matcher{matcher(labels.MatchEqual, "__name__", "none")})
		if err != nil || len(got) != 1 || got[0].SeriesLabels.String() != want || len(got[0].Exemplars) != 2 {
			t.Fatalf("%s: %+v, %v", who, got, err)
		}
		if e := got[0].Exemplars[0]; e.Ts != 10 || e.Value != 4 || !e.HasTs || e.Labels.Get("trace") != "1" {
			t.Errorf("%s: exemplar %+v", who, e)
		}
	}
	addr := serve(t, func(s *Server) { RegisterStore(s, st) })
	own := dial(t, addr, ClientOptions{Role: "receive"})
	check("hearth", own, `{__name__="y", own="b"}`)
	foreign := serve(t, func(s *Server) { registerForeign(s, st, true) })
	check("foreign", dial(t, foreign, ClientOptions{}), `{__name__="y", own="hidden"}`)

	got, _, err := own.Metadata(context.Background(), "b", "", 0)
	if err != nil || len(got) != 2 || got["x"][0] != (metadata.Metadata{Type: "counter", Help: "of b", Unit: "s"}) {
		t.Errorf("metadata: %v, %v", got, err)
	}
	if got, _, err = own.Metadata(context.Background(), "b", "y", 0); err != nil || len(got) != 1 {
		t.Errorf("metadata of y: %v, %v", got, err)
	}
	if got, _, err = own.Metadata(context.Background(), "b", "", 1); err != nil || len(got) != 1 {
		t.Errorf("metadata with a limit: %v, %v", got, err)
	}
}
