package query

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func TestChoose(t *testing.T) {
	down := errors.New("down")
	always := series.Info{MinTime: math.MinInt64, MaxTime: math.MaxInt64}
	m := func(name, instance, role, bucket string) *endpoint {
		info := always
		info.Instance, info.Role, info.Blocks = instance, role, whole(bucket)
		return &endpoint{Endpoint: Endpoint{Name: name}, info: info, heard: true}
	}
	foreign := func(name string, mint, maxt int64, ext ...labels.Labels) *endpoint {
		return &endpoint{Endpoint: Endpoint{Name: name},
			info: series.Info{Role: "sidecar", MinTime: mint, MaxTime: maxt, Labels: ext}, heard: true}
	}
	failed := func(m *endpoint) *endpoint { m.err = down; return m }
	local := func(m *endpoint) *endpoint { m.Local = true; return m }
	f := func(want string, storeMatch string, endpoints ...*endpoint) {
		t.Helper()
		r := &series.Request{Tenant: "t", MinTime: 100, MaxTime: 200,
			Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "cluster", "eu")}}
		var sm [][]*labels.Matcher
		if storeMatch != "" {
			ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(storeMatch)
			if err != nil {
				t.Fatal(err)
			}
			sm = append(sm, ms)
		}
		p := choose(endpoints, r, sm)
		var text []string
		for _, g := range p.groups {
			var names []string
			if g.blocks.Primary {
				g.endpoints = g.endpoints[:1]
			}
			for _, m := range g.endpoints {
				names = append(names, m.Name)
			}
			if !slices.ContainsFunc(g.endpoints, func(m *endpoint) bool { return m.Local }) {
				slices.Sort(names) // rotated
			}
			text = append(text, strings.Join(names, "|"))
		}
		for _, m := range p.down {
			text = append(text, "!"+m.Name)
		}
		if got := strings.Join(text, " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f("", "")
	f("a b", "", m("a", "a", "receive", ""), m("b", "b", "receive", ""))
	f("a !b", "", m("a", "a", "receive", ""), failed(m("b", "b", "receive", "")))
	// One process by two names: the one that answers, else the local one.
	f("a", "", m("a", "i", "receive", ""), m("b", "i", "receive", ""))
	f("b", "", failed(m("a", "i", "receive", "")), m("b", "i", "receive", ""))
	f("b", "", m("a", "i", "receive", ""), local(m("b", "i", "receive", "")))
	f("a b", "", m("a", "i", "receive", ""), m("b", "i", "store", ""))
	// Gateways of one bucket.
	f("s1|s2 s3", "", m("s1", "s1", "store", "x"), m("s2", "s2", "store", "x"), m("s3", "s3", "store", "y"))
	f("s2|s1", "", m("s1", "s1", "store", "x"), local(m("s2", "s2", "store", "x")))
	f("s2 !s1", "", failed(m("s1", "s1", "store", "x")), m("s2", "s2", "store", "x"))
	// Foreign stores by what they say; our own always.
	f("in", "", foreign("in", 0, 150), foreign("before", 0, 99), foreign("after", 201, 300))
	f("eu any", "", foreign("eu", 0, 500, labels.FromStrings("cluster", "us"), labels.FromStrings("cluster", "eu")),
		foreign("us", 0, 500, labels.FromStrings("cluster", "us")),
		foreign("any", 0, 500, labels.FromStrings("replica", "1")))
	own := m("own", "own", "receive", "")
	own.info.MinTime, own.info.MaxTime = 300, 200
	f("own", "", own)
	// storeMatch
	f("b", `{__address__=~"b.*"}`, m("a", "a", "receive", ""), m("b", "b", "receive", ""))
	f("x", `{cluster="eu", region="1"}`, foreign("x", 0, 500, labels.FromStrings("cluster", "eu", "region", "1")),
		foreign("y", 0, 500, labels.FromStrings("cluster", "eu")))
}

func TestNarrow(t *testing.T) {
	f := func(ids, selector, wantIDs string, wantMatchers int) {
		t.Helper()
		set, err := tenant.ParseSet(ids)
		if err != nil {
			t.Fatal(err)
		}
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
		if err != nil {
			t.Fatal(err)
		}
		s, own := scopeOf(set, "tenant_id").narrow(ms)
		got := strings.Trim(strings.ReplaceAll(fmt.Sprint(s.ids), " ", "|"), "[]")
		if got != wantIDs || len(own) != wantMatchers {
			t.Errorf("%s %s: tenants %s, matchers %v", ids, selector, got, own)
		}
	}
	f("a", `{x="1"}`, "a", 1)
	f("a", `{x="1", tenant_id="b"}`, "a", 2) // the series' own label
	f("a|b", `{x="1"}`, "a|b", 1)
	f("a|b", `{x="1", tenant_id="b"}`, "b", 1)
	f("a|b|c", `{x="1", tenant_id!="b", tenant_id=~"b|c"}`, "c", 1)
	f("a|b", `{x="1", tenant_id="z"}`, "", 1)
	f("a|b", `{tenant_id="b"}`, "b", 1) // one that matches all stands for none
}
