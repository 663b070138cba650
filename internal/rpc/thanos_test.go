package rpc

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestGrant is the table of who may see what.
func TestGrant(t *testing.T) {
	f := func(flag, hearth, thanos, want string) {
		t.Helper()
		policy, err := ParseTenants(flag)
		if err != nil {
			t.Fatal(err)
		}
		split := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, ";")
		}
		g, err := policy.grantTo(caller{tenant: split(hearth), thanos: split(thanos)})
		got := fmt.Sprintf("%v", g.tenants)
		switch {
		case err != nil:
			got = errs.KindOf(err).String()
		case g.all:
			got = "all"
		case g.own:
			got = "own " + got
		}
		if got != want {
			t.Errorf("flag %q, hearth-tenant %q, THANOS-TENANT %q: %s, want %s", flag, hearth, thanos, got, want)
		}
	}
	const def = "default-tenant"
	// A Hearth caller sees exactly the tenant it names, whatever the flag.
	for _, flag := range []string{def, "*", "header", "a|b"} {
		f(flag, "x", "", "own [x]")
		f(flag, "x", "y", "own [x]")
		f(flag, "x;x", "", "own [x]")
		f(flag, "x;y", "", "invalid")
		f(flag, "x|y", "", "invalid")
		f(flag, "../x", "", "invalid")
		// THANOS-TENANT counts where it names another tenant than the default.
		f(flag, "", "x", "[x]")
		f(flag, "", "x|y", "[x y]")
		f(flag, "", "x;y", "invalid")
		f(flag, "", "/", "invalid")
	}
	// A stock Thanos querier always sends the default tenant's name: it says nothing.
	f(def, "", "", "[default-tenant]")
	f(def, "", def, "[default-tenant]")
	f("*", "", "", "all")
	f("*", "", def, "all")
	f("b|a", "", "", "[a b]")
	f("b|a", "", def, "[a b]")
	f("header", "", "", "[default-tenant]")
	f("header", "", def, "[default-tenant]")
	if _, err := ParseTenants("a,b"); err == nil {
		t.Error("a list with commas was accepted")
	}
	if g, err := (Tenants{}).grantTo(caller{}); err != nil || !slices.Equal(g.tenants, []tenant.ID{tenant.Default}) {
		t.Errorf("zero policy: %+v, %v", g, err)
	}
}

func TestAmong(t *testing.T) {
	f := func(g grant, held, want []tenant.ID) {
		t.Helper()
		if got := g.among(held); !slices.Equal(got, want) {
			t.Errorf("%+v among %q: %q, want %q", g, held, got, want)
		}
	}
	ids := func(ids ...tenant.ID) []tenant.ID { return ids }
	f(grant{all: true}, ids("a", "b"), ids("a", "b"))
	f(grant{all: true}, nil, ids(tenant.Default))
	f(grant{tenants: ids("b", "c")}, ids("a", "b"), ids("b"))
	f(grant{tenants: ids("b")}, nil, ids("b"))
	f(grant{tenants: ids("b")}, []tenant.ID{}, nil)
}

func TestResolve(t *testing.T) {
	ext := labels.FromStrings("replica", "r1", "tenant_id", "a")
	f := func(ok bool, want int, ms ...*labels.Matcher) {
		t.Helper()
		rest, got := series.Resolve(ms, ext)
		if got != ok || len(rest) != want {
			t.Errorf("%v: %v, %v", ms, rest, got)
		}
	}
	up := matcher(labels.MatchEqual, "__name__", "up")
	f(true, 1, up)
	f(true, 1, up, matcher(labels.MatchEqual, "tenant_id", "a"))
	f(true, 0, matcher(labels.MatchRegexp, "tenant_id", "a|b"), matcher(labels.MatchNotEqual, "replica", "r2"))
	f(false, 0, up, matcher(labels.MatchEqual, "tenant_id", "b"))
	f(false, 0, up, matcher(labels.MatchEqual, "replica", ""))
	f(false, 0, up, matcher(labels.MatchNotRegexp, "tenant_id", ".+"))
}

// viewServer has two tenants with two streams each, and series whose own labels are named like external ones.
func viewServer(t *testing.T, policy Tenants, budget int64) string {
	st := Store{Tenants: policy, SortBudget: budget, Sources: map[string]series.Source{"receive": viewSource()}}
	return serve(t, func(s *Server) { RegisterStore(s, st) })
}

func viewSource() series.Source {
	mem := func(id tenant.ID, sets ...[]string) *sourcetest.Memory {
		m := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{}}
		for _, ls := range sets {
			m.Data[id] = append(m.Data[id], sourcetest.Series{
				Labels: labels.FromStrings(ls...), Samples: []sourcetest.Sample{{T: 1000, V: 1}, {T: 2000, V: 2}},
			})
		}
		return m
	}
	stream := func(id tenant.ID, replica string, sets ...[]string) series.Stream {
		return series.Stream{External: labels.FromStrings("receive_replica", replica, "tenant_id", string(id)),
			Source: mem(id, sets...)}
	}
	return streamer{quietTenants{mem("none"), []tenant.ID{"a", tenant.Default}}, map[tenant.ID][]series.Stream{
		"a": {
			stream("a", "r1", []string{"__name__", "up", "job", "x"}, []string{"__name__", "up", "z", "1"}),
			stream("a", "r2", []string{"__name__", "up", "job", "x"}),
		},
		tenant.Default: {
			stream(tenant.Default, "r1", []string{"__name__", "up", "job", "x"},
				[]string{"__name__", "up", "tenant_id", "mine"}),
		},
	}}
}

type quietTenants struct {
	series.Source
	ids []tenant.ID
}

func (q quietTenants) Info(context.Context) (series.Info, error) {
	return series.Info{MinTime: 1000, MaxTime: 2000, Tenants: q.ids}, nil
}

func seriesRequest(without ...string) *thanospb.SeriesRequest {
	return &thanospb.SeriesRequest{
		MinTime:              0,
		MaxTime:              5000,
		Matchers:             []*thanospb.LabelMatcher{{Name: "__name__", Value: "up"}},
		WithoutReplicaLabels: without,
	}
}

func TestThanosView(t *testing.T) {
	addr := viewServer(t, Tenants{All: true}, 0)
	f := func(what string, c thanos, req *thanospb.SeriesRequest, want ...string) {
		t.Helper()
		if got := c.list(req); !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	everybody := dialThanos(t, addr)
	f("all tenants, external labels win", everybody, seriesRequest(),
		`{__name__="up", job="x", receive_replica="r1", tenant_id="a"}`,
		`{__name__="up", job="x", receive_replica="r1", tenant_id="default-tenant"}`,
		`{__name__="up", job="x", receive_replica="r2", tenant_id="a"}`,
		`{__name__="up", receive_replica="r1", tenant_id="a", z="1"}`,
		`{__name__="up", receive_replica="r1", tenant_id="default-tenant"}`)
	f("without the replica label", everybody, seriesRequest("receive_replica"),
		`{__name__="up", job="x", tenant_id="a"}`,
		`{__name__="up", job="x", tenant_id="default-tenant"}`,
		`{__name__="up", tenant_id="a", z="1"}`,
		`{__name__="up", tenant_id="default-tenant"}`)
	f("without both", everybody, seriesRequest("receive_replica", "tenant_id"),
		`{__name__="up"}`, `{__name__="up", job="x"}`, `{__name__="up", z="1"}`)

	req := seriesRequest()
	req.Matchers = append(req.Matchers, &thanospb.LabelMatcher{Name: "tenant_id", Value: "a"},
		&thanospb.LabelMatcher{Type: thanospb.LabelMatcher_RE, Name: "receive_replica", Value: ".*2"})
	f("matchers on external labels", everybody, req, `{__name__="up", job="x", receive_replica="r2", tenant_id="a"}`)
	f("a tenant by header", dialThanos(t, addr, "THANOS-TENANT", "a"), seriesRequest("receive_replica"),
		`{__name__="up", job="x", tenant_id="a"}`, `{__name__="up", tenant_id="a", z="1"}`)
	req = seriesRequest()
	req.Matchers = []*thanospb.LabelMatcher{{Name: "tenant_id", Value: "mine"}}
	f("the series' own label of that name is hidden", everybody, req)
	req.Matchers = []*thanospb.LabelMatcher{{Name: "receive_replica", Value: "r2"}}
	f("only matchers on external labels", everybody, req, `{__name__="up", job="x", receive_replica="r2", tenant_id="a"}`)

	one := dialThanos(t, viewServer(t, Tenants{}, 0), "THANOS-TENANT", "default-tenant")
	f("the default policy", one, seriesRequest("receive_replica"),
		`{__name__="up", job="x", tenant_id="default-tenant"}`, `{__name__="up", tenant_id="default-tenant"}`)
	hearth := dialThanos(t, addr, "hearth-tenant", "none", "hearth-role", "receive")
	f("a Hearth caller: own labels only", hearth, seriesRequest())
}

func TestThanosFrames(t *testing.T) {
	c := dialThanos(t, viewServer(t, Tenants{All: true}, 0))
	f := func(batch, limit int64, want string) {
		t.Helper()
		req := seriesRequest()
		req.ResponseBatchSize, req.Limit = batch, limit
		frames, err := c.series(req)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range frames {
			if f.GetSeries() != nil {
				got = append(got, "s")
			} else {
				got = append(got, fmt.Sprint(len(f.GetBatch().GetSeries())))
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("batch %d, limit %d: frames %q, want %q", batch, limit, s, want)
		}
	}
	f(0, 0, "s s s s s")
	f(1, 0, "1 1 1 1 1")
	f(2, 0, "2 2 1")
	f(100, 0, "5")
	f(2, 3, "2 1")
	f(0, 1, "s")

	req := seriesRequest("receive_replica")
	frames, err := c.series(req)
	if err != nil {
		t.Fatal(err)
	}
	// Two replicas hold the same chunk of the first series: it is sent once.
	if chunks := frames[0].GetSeries().Chunks; len(chunks) != 1 || chunks[0].MinTime != 1000 ||
		chunks[0].MaxTime != 2000 ||
		chunks[0].Raw == nil {
		t.Errorf("chunks %v", chunks)
	}
	req.SkipChunks = true
	if frames, err = c.series(req); err != nil || len(frames) != 4 || len(frames[0].GetSeries().Chunks) != 0 {
		t.Errorf("skip chunks: %v, %v", frames, err)
	}
	if encoding.GetCompressor("snappy") == nil {
		t.Fatal("no snappy compressor")
	}
	if frames, err = c.series(req, grpc.UseCompressor("snappy")); err != nil || len(frames) != 4 {
		t.Errorf("snappy: %v, %v", frames, err)
	}
	for what, bad := range map[string]*thanospb.SeriesRequest{
		"matcher":  {Matchers: []*thanospb.LabelMatcher{{Type: thanospb.LabelMatcher_RE, Name: "a", Value: "("}}},
		"type":     {Matchers: []*thanospb.LabelMatcher{{Type: 77, Name: "a"}}},
		"limit":    {Limit: -1},
		"shard":    {ShardInfo: &thanospb.ShardInfo{ShardIndex: 2, TotalShards: 2}},
		"negative": {ShardInfo: &thanospb.ShardInfo{ShardIndex: -1, TotalShards: 2}},
	} {
		if _, err := c.series(bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("bad %s: %v", what, err)
		}
	}
}

func TestSortBudget(t *testing.T) {
	c := dialThanos(t, viewServer(t, Tenants{All: true}, 10))
	if _, err := c.series(seriesRequest("receive_replica")); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a sort beyond the budget: %v", err)
	}
}

func TestPartialAnswers(t *testing.T) {
	mem := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{tenant.Default: some("up")}, FailAfter: 1,
		Fail: func() error { return errs.E(errs.Unavailable, "a disk is gone") }}
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": quietTenants{mem, nil}}})
	})
	c := dialThanos(t, addr)
	req := seriesRequest()
	if got, want := c.list(req), []string{`{__name__="up", tenant_id="default-tenant"}`,
		"warning: a disk is gone"}; !slices.Equal(got, want) {
		t.Errorf("warn: %q", got)
	}
	for _, strict := range []func(){
		func() { req.PartialResponseStrategy = thanospb.PartialResponseStrategy_ABORT },
		func() {
			req.PartialResponseStrategy, req.PartialResponseDisabled = thanospb.PartialResponseStrategy_WARN, true
		},
	} {
		strict()
		if _, err := c.series(req); status.Code(err) != codes.Unavailable {
			t.Errorf("abort: %v", err)
		}
	}
	mem.Fail = func() error { return errs.E(errs.Limited, "too many series") }
	if _, err := c.series(seriesRequest()); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a limit, with partial responses: %v", err)
	}
}

// TestShards: the shards of a query partition the series, by the hash of the grouping labels as Thanos sees them.
func TestShards(t *testing.T) {
	c := dialThanos(t, viewServer(t, Tenants{All: true}, 0))
	f := func(info *thanospb.ShardInfo) {
		t.Helper()
		var got []string
		shardOf := map[string]int64{}
		for i := range info.TotalShards {
			req := seriesRequest("receive_replica")
			req.ShardInfo = &thanospb.ShardInfo{ShardIndex: i, TotalShards: info.TotalShards, By: info.By, Labels: info.Labels}
			for _, s := range c.list(req) {
				got = append(got, s)
				key := ""
				if info.By {
					_, key, _ = strings.Cut(s, "tenant_id=")
					key, _, _ = strings.Cut(key, ",")
					key = strings.Trim(key, `"}`)
					if at, ok := shardOf[key]; ok && at != i {
						t.Errorf("%s: group %q is in shards %d and %d", info, key, at, i)
					}
					shardOf[key] = i
				}
			}
		}
		slices.Sort(got)
		want := c.list(seriesRequest("receive_replica"))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%v: %q, want %q", info, got, want)
		}
	}
	f(&thanospb.ShardInfo{TotalShards: 1})
	f(&thanospb.ShardInfo{TotalShards: 3})
	f(&thanospb.ShardInfo{TotalShards: 3, By: true, Labels: []string{"tenant_id"}})
	f(&thanospb.ShardInfo{TotalShards: 2, By: true})
	f(&thanospb.ShardInfo{TotalShards: 5, Labels: []string{"job", "tenant_id"}})

	ls := labels.FromStrings("__name__", "up", "job", "x", "long", strings.Repeat("v", 2000))
	for i := range uint64(4) {
		s := &sharder{index: i, total: 4}
		if s.has(ls) != (labels.StableHash(ls)%4 == i) {
			t.Error("the hash of all labels is not StableHash")
		}
	}
}

func TestThanosLabels(t *testing.T) {
	addr := viewServer(t, Tenants{All: true}, 0)
	c := dialThanos(t, addr)
	names := func(req *thanospb.LabelNamesRequest) []string {
		t.Helper()
		req.End = 5000
		out := new(thanospb.LabelNamesResponse)
		if err := c.conn.Invoke(c.context(), "/thanos.Store/LabelNames", req, out); err != nil {
			t.Fatal(err)
		}
		return out.Names
	}
	values := func(req *thanospb.LabelValuesRequest) []string {
		t.Helper()
		req.End = 5000
		out := new(thanospb.LabelValuesResponse)
		if err := c.conn.Invoke(c.context(), "/thanos.Store/LabelValues", req, out); err != nil {
			t.Fatal(err)
		}
		return out.Values
	}
	check := func(what string, got []string, want string) {
		t.Helper()
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %q, want %q", what, s, want)
		}
	}
	check("names", names(&thanospb.LabelNamesRequest{}), "__name__ job receive_replica tenant_id z")
	check("names without", names(&thanospb.LabelNamesRequest{WithoutReplicaLabels: []string{"receive_replica"}}),
		"__name__ job tenant_id z")
	check("names with a limit", names(&thanospb.LabelNamesRequest{Limit: 2}), "__name__ job")
	r2 := []*thanospb.LabelMatcher{{Name: "receive_replica", Value: "r2"}}
	check("names of a stream", names(&thanospb.LabelNamesRequest{Matchers: r2}), "__name__ job receive_replica tenant_id")
	check("own values", values(&thanospb.LabelValuesRequest{Label: "job"}), "x")
	check("external values", values(&thanospb.LabelValuesRequest{Label: "tenant_id"}), "a default-tenant")
	check("values of a stream", values(&thanospb.LabelValuesRequest{Label: "tenant_id", Matchers: r2}), "a")
	check("values without",
		values(&thanospb.LabelValuesRequest{Label: "tenant_id", WithoutReplicaLabels: []string{"tenant_id"}}), "")
	none := []*thanospb.LabelMatcher{{Name: "__name__", Value: "none"}}
	check("values of no series", values(&thanospb.LabelValuesRequest{Label: "tenant_id", Matchers: none}), "")
	check("with a limit", values(&thanospb.LabelValuesRequest{Label: "receive_replica", Limit: 1}), "r1")
	err := c.conn.Invoke(c.context(), "/thanos.Store/LabelValues", &thanospb.LabelValuesRequest{},
		new(thanospb.LabelValuesResponse))
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("no label: %v", err)
	}
}

func TestThanosInfo(t *testing.T) {
	f := func(flag string, md []string, wantHearth bool, want ...string) {
		t.Helper()
		policy, err := ParseTenants(flag)
		if err != nil {
			t.Fatal(err)
		}
		c := dialThanos(t, viewServer(t, policy, 0), md...)
		out := new(infopb.InfoResponse)
		if err := c.conn.Invoke(c.context(), "/thanos.info.Info/Info", &infopb.InfoRequest{}, out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range out.LabelSets {
			got = append(got, labelsFromPB(s).String())
		}
		if !reflect.DeepEqual(got, want) || len(out.Store.TsdbInfos) != len(want) || (out.Hearth != nil) != wantHearth {
			t.Errorf("%s: %q, hearth %v; want %q", flag, got, out.Hearth, want)
		}
		if out.ComponentType != "receive" || !out.Store.SupportsWithoutReplicaLabels || !out.Store.SupportsSharding ||
			out.Store.MinTime != 1000 ||
			out.Store.MaxTime != 2000 {
			t.Errorf("%s: %v", flag, out)
		}
	}
	everything := []string{`{receive_replica="r1", tenant_id="a"}`, `{receive_replica="r2", tenant_id="a"}`,
		`{receive_replica="r1", tenant_id="default-tenant"}`}
	f("*", nil, false, everything...)
	f("header", nil, false, everything...)
	f("default-tenant", nil, false, everything[2])
	f("a", []string{"hearth-instance", "me"}, true, everything[:2]...)

	// A receiver and its blocks in the store of the same process: the label sets once, the times of both.
	c := dialThanos(t, serve(t, func(s *Server) {
		RegisterStore(s, Store{Tenants: Tenants{All: true},
			Sources: map[string]series.Source{"receive": viewSource(), "store": viewSource()}})
	}))
	out := new(infopb.InfoResponse)
	if err := c.conn.Invoke(c.context(), "/thanos.info.Info/Info", &infopb.InfoRequest{},
		out); err != nil || len(out.LabelSets) != 3 ||
		len(out.Store.TsdbInfos) != 6 {
		t.Errorf("two sources: %v, %v", out, err)
	}
}
