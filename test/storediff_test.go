package test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// thanosBinary is a Thanos that the test was given, which CI has none of.
func thanosBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("HEARTH_THANOS")
	if path == "" {
		t.Skip("HEARTH_THANOS names no binary of Thanos")
	}
	return path
}

// startGateway starts a store gateway on the bucket in dir, and waits until it is ready.
func startGateway(t *testing.T, k gateway.Kind, binary, dir string, flags ...string) *gateway.Gateway {
	t.Helper()
	g, err := gateway.Launch(gateway.Setup{Kind: k, Binary: binary, Dir: t.TempDir(), Bucket: gateway.Directory(dir),
		Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Process.Kill)
	if err := g.WaitReady(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	return g
}

func dialGateway(t *testing.T, g *gateway.Gateway) *gateway.Client {
	t.Helper()
	c, err := gateway.Dial(g.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// gateways starts Hearth's store gateway and Thanos's on the bucket in dir, with the same flags.
func gateways(t *testing.T, dir string, flags ...string) (hearth, thanos *gateway.Gateway) {
	t.Helper()
	return startGateway(t, gateway.Hearth, hearthBinary, dir, flags...),
		startGateway(t, gateway.Thanos, thanosBinary(t), dir, flags...)
}

// pair asks both gateways.
type pair struct {
	t              *testing.T
	hearth, thanos *gateway.Client
}

func newPair(t *testing.T, dir string, flags ...string) pair {
	t.Helper()
	hearth, thanos := gateways(t, dir, flags...)
	return pair{t, dialGateway(t, hearth), dialGateway(t, thanos)}
}

// sameFault reports whether both calls failed with the same code, or neither did.
func (p pair) sameFault(what string, hearth, thanos error) (failed bool) {
	p.t.Helper()
	if a, b := grpcstatus.Code(hearth), grpcstatus.Code(thanos); a != b {
		p.t.Errorf("%s:\nhearth %v\nthanos %v", what, hearth, thanos)
	}
	return hearth != nil || thanos != nil
}

// series compares the answers to one request and returns how many series there are.
func (p pair) series(req *thanospb.SeriesRequest) int {
	p.t.Helper()
	h, herr := p.hearth.Series(p.t.Context(), req)
	th, terr := p.thanos.Series(p.t.Context(), req)
	if p.sameFault(req.String(), herr, terr) {
		return 0
	}
	if d := gateway.Difference(h, th); d != "" {
		p.t.Errorf("%s:\n%.1500s", req, d)
	}
	return len(th.Joined())
}

// hintsFor are the hints of a request: a matcher on the ids of blocks, and that statistics are wanted.
func hintsFor(t *testing.T, ids string, stats bool) *anypb.Any {
	t.Helper()
	var b []byte
	if ids != "" {
		m, err := proto.Marshal(&thanospb.LabelMatcher{Type: thanospb.LabelMatcher_RE, Name: block.IDLabel, Value: ids})
		if err != nil {
			t.Fatal(err)
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), m)
	}
	if stats {
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), 1)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/hintspb.SeriesRequestHints", Value: b}
}

// hintFields calls f with the fields of a message that have a length or are numbers.
func hintFields(t *testing.T, b []byte, f func(num protowire.Number, content []byte, v uint64)) {
	t.Helper()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		var content []byte
		var v uint64
		m := 0
		if b = b[n:]; typ == protowire.BytesType {
			content, m = protowire.ConsumeBytes(b)
		} else {
			v, m = protowire.ConsumeVarint(b)
		}
		if m < 0 {
			t.Fatal(protowire.ParseError(m))
		}
		f(num, content, v)
		b = b[m:]
	}
}

// queriedBlocks are the ids in the hints of an answer, in order.
func queriedBlocks(t *testing.T, hints []byte) (ids []string) {
	t.Helper()
	hintFields(t, hints, func(num protowire.Number, block []byte, _ uint64) {
		if num == 1 {
			hintFields(t, block, func(_ protowire.Number, id []byte, _ uint64) { ids = append(ids, string(id)) })
		}
	})
	slices.Sort(ids)
	return slices.Compact(ids)
}

// TestHintsBesideThanos: callers may choose blocks by their id, and learn which were asked. Hearth also says what that
// took, which `thanos store` does not.
func TestHintsBesideThanos(t *testing.T) {
	thanosBinary(t)
	dir, req := limitedCall(t)
	p := newPair(t, dir)
	var all []string
	for _, m := range metasIn(t, dir) {
		all = append(all, m.ULID.String())
	}
	for _, ids := range []string{"", all[0], all[0] + "|" + all[2], "nothing"} {
		req.Hints = hintsFor(t, ids, false)
		if n := p.series(req); (n == 0) != (ids == "nothing") {
			t.Errorf("%q: %d series", ids, n)
		}
		asked := func(c *gateway.Client) []string {
			a, err := c.LabelNames(t.Context(), &thanospb.LabelNamesRequest{Start: req.MinTime, End: req.MaxTime,
				Matchers: req.Matchers, Hints: hintsOf(req.Hints, "LabelNamesRequestHints")})
			if err != nil {
				t.Fatal(err)
			}
			return queriedBlocks(t, a.Hints.GetValue())
		}
		if a, b := asked(p.hearth), asked(p.thanos); !slices.Equal(a, b) || (len(a) == 0) != (ids == "nothing") {
			t.Errorf("%q: queried blocks:\nhearth %q\nthanos %q", ids, a, b)
		}
	}
	req.Hints = hintsFor(t, "", true)
	a, err := p.hearth.Series(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := queriedBlocks(t, a.Hints); !slices.Equal(got, slices.Sorted(slices.Values(all))) {
		t.Errorf("queried blocks %q, want %q", got, all)
	}
	stats := map[protowire.Number]uint64{}
	hintFields(t, a.Hints, func(num protowire.Number, b []byte, _ uint64) {
		if num == 2 {
			hintFields(t, b, func(num protowire.Number, _ []byte, v uint64) { stats[num] = v })
		}
	})
	for field, want := range map[protowire.Number]uint64{1: 3, 2: 20, 3: 60, 10: 60, 15: 60} {
		if stats[field] != want {
			t.Errorf("statistic %d is %d, want %d", field, stats[field], want)
		}
	}
}

// hintsOf are hints as another message.
func hintsOf(h *anypb.Any, name string) *anypb.Any {
	return &anypb.Any{TypeUrl: "type.googleapis.com/hintspb." + name, Value: h.GetValue()}
}

// limited checks that the answer to a request with a limit has as many of the series without it as the limit lets
// through. Thanos takes the limit off the postings of each block, before the time and late matchers are applied, so
// that it may have too few; and each program cuts in an order of its own, before external labels are added.
func (p pair) limited(req *thanospb.SeriesRequest) {
	p.t.Helper()
	whole := proto.CloneOf(req)
	whole.Limit = 0
	h, herr := p.hearth.Series(p.t.Context(), req)
	th, terr := p.thanos.Series(p.t.Context(), whole)
	if p.sameFault(req.String(), herr, terr) {
		return
	}
	got, all := h.Joined(), th.Joined()
	if len(got) != min(int(req.Limit), len(all)) {
		p.t.Errorf("%s: %d series of %d", req, len(got), len(all))
	}
	for key, chunks := range got {
		if want, ok := all[key]; !ok || !slices.Equal(chunks, want) {
			p.t.Errorf("%s: %.300s: %d chunks, not %d", req, key, len(chunks), len(want))
		}
	}
}

// labelCalls compares label names and the values of one label. In a part of the time Thanos leaves out what only series
// without a chunk in that part have. Hearth answers for the whole of each block, as Prometheus's querier of a block
// does: store's FuzzAgreesWithBlockQuerier compares those two. So Hearth may say more there, and never less.
func (p pair) labelCalls(req *thanospb.SeriesRequest, name string, part bool) {
	p.t.Helper()
	limit := req.Limit
	if part {
		limit = 0 // it would cut two different lists
	}
	same := func(what fmt.Stringer, hearth, thanos []string) {
		p.t.Helper()
		if part {
			hearth = slices.DeleteFunc(hearth, func(s string) bool { return !slices.Contains(thanos, s) })
		}
		if !slices.Equal(hearth, thanos) {
			p.t.Errorf("%s:\nhearth %q\nthanos %q", what, hearth, thanos)
		}
	}
	names := &thanospb.LabelNamesRequest{Start: req.MinTime, End: req.MaxTime, Matchers: req.Matchers, Limit: limit,
		WithoutReplicaLabels: req.WithoutReplicaLabels}
	hn, herr := p.hearth.LabelNames(p.t.Context(), names)
	tn, terr := p.thanos.LabelNames(p.t.Context(), names)
	if !p.sameFault(names.String(), herr, terr) {
		same(names, hn.Names, tn.Names)
	}
	values := &thanospb.LabelValuesRequest{Label: name, Start: req.MinTime, End: req.MaxTime, Matchers: req.Matchers,
		Limit: limit, WithoutReplicaLabels: req.WithoutReplicaLabels}
	hv, herr := p.hearth.LabelValues(p.t.Context(), values)
	tv, terr := p.thanos.LabelValues(p.t.Context(), values)
	if !p.sameFault(values.String(), herr, terr) {
		same(values, hv.Values, tv.Values)
	}
}

// TestStoreBesideThanos: random requests of random blocks have the same answers, series by series and chunk by chunk.
// HEARTH_SEED repeats a run.
func TestStoreBesideThanos(t *testing.T) {
	thanosBinary(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("HEARTH_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HEARTH_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	world := writeRandomBlocks(t, r, dir)
	p := newPair(t, dir)
	found := 0
	for range 400 {
		req := world.request(r)
		switch {
		case onlyExternal(req.Matchers):
		case req.Limit > 0:
			p.limited(req)
		default:
			found += p.series(req)
		}
		p.labelCalls(req, world.name(r), req.MinTime > world.mint || req.MaxTime < world.maxt)
		if t.Failed() {
			t.FailNow() // one difference is enough to read
		}
	}
	if found < 1000 {
		t.Errorf("only %d series were compared", found)
	}
}

// TestPartsBesideThanos: gateways of a part of the bucket, by time and by relabelling rules, say the same of what they
// have, and have the same.
func TestPartsBesideThanos(t *testing.T) {
	thanosBinary(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	dir := t.TempDir()
	world := writeRandomBlocks(t, r, dir)
	at := func(hours float64) string {
		return time.UnixMilli(world.mint + int64(hours*3_600_000)).UTC().Format(time.RFC3339)
	}
	const (
		keep    = "--selector.relabel-config=[{action: keep, source_labels: [cluster], regex: two}]"
		hashmod = "--selector.relabel-config=[{action: hashmod, source_labels: [__block_id], target_label: s, modulus: 3}, " +
			"{action: keep, source_labels: [s], regex: %d}]"
	)
	parts := map[string][]string{
		"until":       {"--max-time=" + at(2.25)},
		"from":        {"--min-time=" + at(2.25)},
		"within":      {"--min-time=" + at(2.2), "--max-time=" + at(2.3)},
		"nothing":     {"--min-time=" + at(100)},
		"keep":        {keep},
		"both":        {keep, "--min-time=" + at(1.1), "--max-time=" + at(4.1)},
		"hashmod-0-3": {fmt.Sprintf(hashmod, 0)},
		"hashmod-1-3": {fmt.Sprintf(hashmod, 1)},
		"hashmod-2-3": {fmt.Sprintf(hashmod, 2)},
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, dir, parts[name]...)
			p.info()
			found := 0
			for range 60 {
				req := world.request(r)
				if req.Limit = 0; !onlyExternal(req.Matchers) {
					found += p.series(req)
				}
			}
			if found == 0 && name != "nothing" && !strings.HasPrefix(name, "hashmod") {
				t.Error("no series were compared")
			}
		})
	}
}

// info compares what both gateways say of their labels and times. Thanos says the end of the last block, which is a
// millisecond after its last sample at the earliest.
func (p pair) info() {
	p.t.Helper()
	h, herr := p.hearth.Info(p.t.Context())
	th, terr := p.thanos.Info(p.t.Context())
	if p.sameFault("Info", herr, terr) {
		return
	}
	sets := func(of *infopb.InfoResponse) (out []string) {
		for _, set := range of.LabelSets {
			out = append(out, set.String())
		}
		slices.Sort(out)
		return out
	}
	if a, b := sets(h), sets(th); !slices.Equal(a, b) {
		p.t.Errorf("label sets:\nhearth %q\nthanos %q", a, b)
	}
	empty := th.Store.MinTime > th.Store.MaxTime
	if empty != (h.Store.MinTime > h.Store.MaxTime) || !empty && (h.Store.MinTime != th.Store.MinTime ||
		h.Store.MaxTime != th.Store.MaxTime && h.Store.MaxTime != th.Store.MaxTime-1) {
		p.t.Errorf("times: hearth %d-%d, thanos %d-%d", h.Store.MinTime, h.Store.MaxTime, th.Store.MinTime, th.Store.MaxTime)
	}
}

// onlyExternal reports whether all matchers are on external labels of the random blocks. Then Thanos's Series is empty:
// its bucketIndexReader.ExpandedPostings returns nothing when no matcher is left for the block. Hearth has all series
// of the blocks, as Thanos's own label calls do.
func onlyExternal(ms []*thanospb.LabelMatcher) bool {
	external := []string{"cluster", "replica"}
	return !slices.ContainsFunc(ms, func(m *thanospb.LabelMatcher) bool { return !slices.Contains(external, m.Name) })
}

// TestResolutionsBesideThanos: a stream has raw and downsampled blocks with gaps, and both choose the same ones.
func TestResolutionsBesideThanos(t *testing.T) {
	thanosBinary(t)
	dir := t.TempDir()
	end := blocks.DefaultPlan().End
	length := 48 * time.Hour
	for i, absent := range [][]int64{nil, {0}, {300_000}, {0, 300_000}, {3_600_000}} {
		p := blocks.DefaultPlan()
		p.Seed, p.Blocks = uint64(i), 0
		p.End = end.Add(-time.Duration(i) * length)
		p.Large = &blocks.Large{Shape: blocks.Shape{Metrics: 10, Namespaces: 2, Pods: 2}, Range: length,
			Interval: 5 * time.Minute}
		one := t.TempDir()
		if err := blocks.Write(t.Context(), one, p); err != nil {
			t.Fatal(err)
		}
		keepResolutions(t, one, dir, absent)
	}
	p := newPair(t, dir)
	r := rand.New(rand.NewPCG(1, 2))
	for _, resolution := range []int64{0, 299_999, 300_000, 3_599_999, 3_600_000, 7_200_000} {
		for range 10 {
			mint := end.Add(-5*length).UnixMilli() + r.Int64N(5*length.Milliseconds())
			req := &thanospb.SeriesRequest{MinTime: mint, MaxTime: mint + r.Int64N(3*length.Milliseconds()),
				MaxResolutionWindow: resolution,
				Matchers:            []*thanospb.LabelMatcher{{Name: "namespace", Value: blocks.Namespace(r.IntN(2))}}}
			if resolution > 0 {
				all := []thanospb.Aggr{thanospb.Aggr_COUNT, thanospb.Aggr_SUM, thanospb.Aggr_COUNTER}
				req.Aggregates = all[:1+r.IntN(len(all))]
			}
			p.series(req)
		}
	}
}

// keepResolutions moves the blocks in from to the bucket, without those of some resolutions.
func keepResolutions(t *testing.T, from, to string, absent []int64) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		id, _ := block.ParseID(e.Name())
		if m := metaIn(t, filepath.Join(from, e.Name()), id); slices.Contains(absent, m.Thanos.Downsample.Resolution) {
			continue
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// limitedCall is a call that selects limitedSeries series with limitedSamples samples, as the limits of a gateway count
// them: a series once for each block that has it, and a chunk as 120 samples.
func limitedCall(t *testing.T) (dir string, req *thanospb.SeriesRequest) {
	t.Helper()
	dir = t.TempDir()
	plan := blocks.DefaultPlan()
	plan.Blocks, plan.Tenants = 3, 1
	if err := blocks.Write(t.Context(), dir, plan); err != nil {
		t.Fatal(err)
	}
	mint, maxt := plan.Range()
	return dir, &thanospb.SeriesRequest{MinTime: mint, MaxTime: maxt,
		Matchers: []*thanospb.LabelMatcher{{Name: "__name__", Value: blocks.MetricName(0)}}}
}

const (
	limitedSeries  = 20 * 3
	limitedSamples = limitedSeries * 120
)

// requestLimits are the flags of `hearth store` and of `thanos store` that bound one call, and what limitedCall takes.
var requestLimits = []struct {
	flag string
	used int
}{
	{"--store.limits.request-series", limitedSeries},
	{"--store.limits.request-samples", limitedSamples},
	{"--store.grpc.touched-series-limit", limitedSeries},
	{"--store.grpc.series-sample-limit", limitedSamples},
}

// TestStoreLimits: a call at a limit is answered, and one beyond it is refused, also if the caller would take a part of
// the answer.
func TestStoreLimits(t *testing.T) {
	dir, req := limitedCall(t)
	f := func(want codes.Code, flag string, limit int) {
		t.Helper()
		c := dialGateway(t, startGateway(t, gateway.Hearth, hearthBinary, dir, fmt.Sprint(flag, "=", limit)))
		for _, strategy := range []thanospb.PartialResponseStrategy{
			thanospb.PartialResponseStrategy_WARN, thanospb.PartialResponseStrategy_ABORT,
		} {
			req.PartialResponseStrategy = strategy
			a, err := c.Series(t.Context(), req)
			if grpcstatus.Code(err) != want || want == codes.OK && len(a.Joined()) != 20 {
				t.Errorf("%s=%d, %s: %d series, %v; want %s", flag, limit, strategy, len(a.Joined()), err, want)
			}
		}
	}
	for _, l := range requestLimits {
		f(codes.ResourceExhausted, l.flag, l.used-1)
		f(codes.OK, l.flag, l.used)
	}
	f(codes.ResourceExhausted, "--store.grpc.downloaded-bytes-limit", 1000)
	f(codes.OK, "--store.grpc.downloaded-bytes-limit", 10_000_000)
}

// TestLimitsBesideThanos: at the edge of a limit both answer, and beyond it both refuse with the same code.
func TestLimitsBesideThanos(t *testing.T) {
	thanosBinary(t)
	dir, req := limitedCall(t)
	for _, l := range requestLimits {
		for _, limit := range []int{l.used - 1, l.used, l.used + 1} {
			flag := fmt.Sprint(l.flag, "=", limit)
			t.Run(flag, func(t *testing.T) { newPair(t, dir, flag).series(req) })
		}
	}
}

// TestQueriesBesideThanos: `thanos query` over either gateway gives the same answers.
func TestQueriesBesideThanos(t *testing.T) {
	thanosBinary(t)
	dir := t.TempDir()
	plan := blocks.DefaultPlan()
	plan.Blocks, plan.Tenants = 24, 2
	plan.Large = &blocks.Large{Shape: blocks.Shape{Metrics: 10, Namespaces: 2, Pods: 3}, Range: 96 * time.Hour,
		Interval: 5 * time.Minute}
	if err := blocks.Write(t.Context(), dir, plan); err != nil {
		t.Fatal(err)
	}
	hearth, thanos := gateways(t, dir)
	var bases []string
	for _, g := range []*gateway.Gateway{hearth, thanos} {
		ports := freePorts(t, 2)
		start(t, "query-"+string(g.Kind), thanosBinary(t), nil, "query", "--http-address="+addr(ports[0]),
			"--grpc-address="+addr(ports[1]), "--endpoint="+g.GRPC, "--log.level=warn")
		bases = append(bases, "http://"+addr(ports[0]))
	}
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 200 {
		expr, parameters := randomQuery(r, plan)
		ask := func(base string) (answer string) {
			eventually(t, time.Minute, func() error {
				body, err := get(base+"/api/v1/"+parameters, nil)
				if err == nil && i == 0 && strings.Contains(string(body), `"result":[]`) {
					err = errors.New("the querier knows no store yet")
				}
				answer = string(body)
				return err
			})
			return withoutStatistics(answer)
		}
		if a, b := ask(bases[0]), ask(bases[1]); a != b {
			t.Fatalf("%s:\nhearth %.600s\nthanos %.600s", expr, a, b)
		}
	}
}

// withoutStatistics cuts off what a querier says about its own work.
func withoutStatistics(body string) string {
	before, _, _ := strings.Cut(body, `,"analysis"`)
	return before
}

func randomQuery(r *rand.Rand, p blocks.Plan) (expr, parameters string) {
	metric := fmt.Sprintf(`%s{tenant_id="%s"}`, blocks.MetricName(r.IntN(9)),
		[]string{blocks.Tenant(0), blocks.Tenant(1), blocks.LargeTenant}[r.IntN(3)])
	native := strings.Replace(metric, metric[:strings.IndexByte(metric, '{')], blocks.MetricName(9), 1)
	forms := []string{
		metric, "sum by (namespace) (rate(" + metric + "[10m]))", "max_over_time(" + metric + "[1h])",
		"topk(3, increase(" + metric + "[1h]))", "count(" + metric + ")", "avg by (pod) (" + metric + ")",
		"histogram_quantile(0.9, sum(rate(" + native + "[10m])))", "histogram_count(sum(" + native + "))",
		"sum(avg_over_time(" + metric + "[30m])) / count(" + metric + ")",
	}
	expr = forms[r.IntN(len(forms))]
	end := p.End.Add(-time.Duration(r.IntN(12*60)) * time.Minute)
	v := url.Values{"query": {expr}, "dedup": {"false"}, "partial_response": {"false"},
		"max_source_resolution": {[]string{"0s", "5m", "1h"}[r.IntN(3)]}}
	if r.IntN(2) == 0 {
		v.Set("time", fmt.Sprint(end.Unix()))
		return expr, "query?" + v.Encode()
	}
	v.Set("start", fmt.Sprint(end.Add(-time.Duration(1+r.IntN(20))*time.Hour).Unix()))
	v.Set("end", fmt.Sprint(end.Unix()))
	v.Set("step", fmt.Sprint(60*(1+r.IntN(60))))
	return expr, "query_range?" + v.Encode()
}

// randomWorld is what random requests are made of.
type randomWorld struct {
	names      []string
	values     map[string][]string
	mint, maxt int64
}

func (w *randomWorld) name(r *rand.Rand) string { return w.names[r.IntN(len(w.names))] }

func (w *randomWorld) value(r *rand.Rand, name string) string {
	all := w.values[name]
	return all[r.IntN(len(all))]
}

// writeRandomBlocks writes a few blocks of two streams, which overlap in time, with labels of all kinds.
func writeRandomBlocks(t *testing.T, r *rand.Rand, dir string) *randomWorld {
	t.Helper()
	w := &randomWorld{mint: 1_790_000_000_000, values: map[string][]string{
		"cluster": {"one", "two"}, "replica": {"0", "1"},
	}}
	w.maxt = w.mint
	for i := range 12 {
		name := "label_" + strings.Repeat("x", i)
		if i == 0 {
			name = "__name__"
		}
		for v := range 1 + r.IntN(8) {
			text := fmt.Sprintf("%c%d", 'a'+rune(r.IntN(4)), v)
			switch r.IntN(10) {
			case 0:
				text = strings.Repeat("long", 1+r.IntN(2000))
			case 1:
				text = "ünï ∑ " + text
			case 2:
				text = string(rune('a' + v))
			}
			w.values[name] = append(w.values[name], text)
		}
	}
	w.names = slices.Sorted(maps.Keys(w.values))
	for i := range 8 {
		mint := w.mint + int64(r.IntN(6))*3_600_000
		maxt := mint + 7_200_000
		w.maxt = max(w.maxt, maxt)
		external := map[string]string{"cluster": []string{"one", "two"}[i%2], "replica": []string{"0", "1"}[r.IntN(2)]}
		writeRandomBlock(t, r, w, dir, external, mint, maxt)
	}
	return w
}

// writeRandomBlock writes a block of random series with one to three chunks each.
func writeRandomBlock(t *testing.T, r *rand.Rand, w *randomWorld, dir string, external map[string]string,
	mint, maxt int64) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sets := map[string]labels.Labels{}
	symbols := map[string]bool{}
	for range 1 + r.IntN(120) {
		b := labels.NewScratchBuilder(4)
		for _, name := range w.names {
			if name == "__name__" || name != "cluster" && name != "replica" && r.IntN(3) == 0 {
				b.Add(name, w.value(r, name))
			}
		}
		b.Sort()
		ls := b.Labels()
		sets[ls.String()] = ls
		ls.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	all := slices.SortedFunc(maps.Values(sets), labels.Compare)
	var id ulid.ULID
	must(id.SetTime(uint64(maxt)))
	for i := 6; i < len(id); i++ {
		id[i] = byte(r.IntN(256))
	}
	path := filepath.Join(dir, id.String())
	cw, err := chunks.NewWriter(filepath.Join(path, block.ChunksName))
	must(err)
	iw, err := index.NewWriter(context.Background(), filepath.Join(path, block.IndexName))
	must(err)
	for _, s := range slices.Sorted(maps.Keys(symbols)) {
		must(iw.AddSymbol(s))
	}
	for i, ls := range all {
		var own []chunks.Meta
		at := mint + r.Int64N(1000)
		for range 1 + r.IntN(3) {
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			must(err)
			m := chunks.Meta{MinTime: at, Chunk: c}
			for range 1 + r.IntN(30) {
				app.Append(0, at, float64(r.IntN(100)))
				m.MaxTime = at
				at += 1 + r.Int64N(60_000)
			}
			own = append(own, m)
		}
		must(cw.WriteChunks(own...))
		must(iw.AddSeries(storage.SeriesRef(i+1), ls, own...))
	}
	must(errors.Join(cw.Close(), iw.Close()))
	meta := block.Meta{BlockMeta: tsdb.BlockMeta{Version: 1, ULID: id, MinTime: mint, MaxTime: maxt,
		Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}}},
		Thanos: block.Thanos{Labels: external, Source: block.SourceTest}}
	f, err := os.Create(filepath.Join(path, block.MetaName))
	must(err)
	must(errors.Join(meta.Write(f), f.Close()))
}

// request is a random one.
func (w *randomWorld) request(r *rand.Rand) *thanospb.SeriesRequest {
	req := &thanospb.SeriesRequest{MinTime: w.mint, MaxTime: w.maxt, SkipChunks: r.IntN(5) == 0}
	if r.IntN(2) == 0 {
		req.MinTime += r.Int64N(w.maxt - w.mint)
		req.MaxTime = req.MinTime + r.Int64N(w.maxt-req.MinTime+1)
	}
	for range 1 + r.IntN(4) {
		name := w.name(r)
		m := &thanospb.LabelMatcher{Name: name, Value: w.value(r, name), Type: thanospb.LabelMatcher_Type(r.IntN(4))}
		if m.Type == thanospb.LabelMatcher_RE || m.Type == thanospb.LabelMatcher_NRE {
			first := []rune(w.value(r, name))[0]
			m.Value = []string{"", ".*", ".+", string(first) + ".*", "[a-c]1", "a1|b2|c3", ".*1", "a1|"}[r.IntN(8)]
		} else if r.IntN(8) == 0 {
			m.Value = ""
		}
		req.Matchers = append(req.Matchers, m)
	}
	if r.IntN(4) == 0 {
		req.Matchers = append(req.Matchers, &thanospb.LabelMatcher{Type: thanospb.LabelMatcher_RE, Name: "absent",
			Value: "|x"})
	}
	if r.IntN(4) == 0 {
		req.WithoutReplicaLabels = []string{"replica"}
	}
	if r.IntN(4) == 0 {
		req.ShardInfo = &thanospb.ShardInfo{TotalShards: 3, ShardIndex: r.Int64N(3), By: r.IntN(2) == 0,
			Labels: []string{"__name__", "label_x"}}
	}
	if r.IntN(6) == 0 && req.ShardInfo == nil {
		req.Limit = 1 + r.Int64N(20)
	}
	return req
}
