package rpc

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/wire"
)

func timeSeries(t testing.TB, name string) []byte {
	t.Helper()
	ts := prompb.TimeSeries{
		Labels: []prompb.Label{{Name: "__name__", Value: name}}, Samples: []prompb.Sample{{Value: 1.5, Timestamp: 7}},
		Exemplars: []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace", Value: "1"}}, Value: 3, Timestamp: 7}},
	}
	raw, err := ts.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRemoteWriteForms(t *testing.T) {
	var log []string
	var fail func(s wire.Shard) ([]wire.Failure, error)
	note := func(way string, b *wire.Batch) {
		line := way + " " + string(b.Tenant)
		lb := labels.NewScratchBuilder(4)
		for _, s := range b.Series {
			line += fmt.Sprint(" ", wire.LabelsOf(&lb, s.Labels()), len(s.Samples), len(s.Exemplars))
		}
		log = append(log, line)
	}
	register := func(route bool) func(*Server) {
		return func(s *Server) {
			var to func(context.Context, *wire.Batch) error
			if route {
				to = func(_ context.Context, b *wire.Batch) error { note("route", b); return nil }
			}
			RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
				note("store", s.Batch)
				return fail(s)
			}), to)
		}
	}
	ring, alone := dialThanos(t, serve(t, register(true))), dialThanos(t, serve(t, register(false)))
	f := func(c thanos, req *thanospb.WriteRequest, code codes.Code, want ...string) {
		t.Helper()
		log = nil
		err := c.conn.Invoke(c.context(), "/thanos.WriteableStore/RemoteWrite", req, new(thanospb.WriteResponse))
		if status.Code(err) != code || !slices.Equal(log, want) {
			t.Errorf("%v: %q, %v; want %q, %s", req, log, err, want, code)
		}
	}
	fail = func(wire.Shard) ([]wire.Failure, error) { return nil, nil }
	a, b := timeSeries(t, "a"), timeSeries(t, "b")
	old := func(replica int64) *thanospb.WriteRequest {
		return &thanospb.WriteRequest{Timeseries: [][]byte{a, b}, Tenant: "x", Replica: replica}
	}
	tuples := &thanospb.WriteRequest{Replica: 2, TimeseriesTenantData: []*thanospb.TimeSeriesTenantTuple{
		{Timeseries: [][]byte{a}, Tenant: "x"}, {Timeseries: [][]byte{b}, Tenant: "y"},
	}}
	f(ring, old(1), codes.OK, `store x {__name__="a"} 1 1 {__name__="b"} 1 1`)
	f(ring, old(0), codes.OK, `route x {__name__="a"} 1 1 {__name__="b"} 1 1`)
	f(alone, old(0), codes.OK, `store x {__name__="a"} 1 1 {__name__="b"} 1 1`)
	f(ring, tuples, codes.OK, `store x {__name__="a"} 1 1`, `store y {__name__="b"} 1 1`)
	f(ring, &thanospb.WriteRequest{}, codes.OK)
	f(ring, &thanospb.WriteRequest{Timeseries: [][]byte{a}, Replica: 1}, codes.OK,
		`store default-tenant {__name__="a"} 1 1`)
	f(ring, old(-1), codes.InvalidArgument)
	f(ring, &thanospb.WriteRequest{Timeseries: [][]byte{a}, Tenant: "..", Replica: 1}, codes.AlreadyExists)

	codeOf := func(k errs.Kind, want codes.Code) {
		t.Helper()
		stores := []string{`store x {__name__="a"} 1 1 {__name__="b"} 1 1`}
		fail = func(wire.Shard) ([]wire.Failure, error) {
			return []wire.Failure{{Series: 1, Kind: k, Reason: "r"}}, nil
		}
		f(ring, old(1), want, stores...)
		fail = func(wire.Shard) ([]wire.Failure, error) { return nil, errs.E(k, "r") }
		f(ring, old(1), want, stores...)
	}
	codeOf(errs.Conflict, codes.AlreadyExists)
	codeOf(errs.Invalid, codes.AlreadyExists)
	codeOf(errs.Limited, codes.Unavailable)
	codeOf(errs.Unavailable, codes.Unavailable)
	codeOf(errs.Internal, codes.Internal)
	fail = func(s wire.Shard) ([]wire.Failure, error) {
		return []wire.Failure{{Kind: errs.OK, Exemplars: 1}}, nil
	}
	f(ring, old(1), codes.OK, `store x {__name__="a"} 1 1 {__name__="b"} 1 1`)
	fail = func(s wire.Shard) ([]wire.Failure, error) {
		return []wire.Failure{{Kind: errs.Conflict}, {Kind: errs.OK, Exemplars: 1}, {Kind: errs.Unavailable},
			{Kind: errs.Conflict}}, nil
	}
	f(ring, old(1), codes.Unavailable, `store x {__name__="a"} 1 1 {__name__="b"} 1 1`)
}

// TestPlainPeer: the client writes by RemoteWrite to a peer that knows no Write stream, or no version of it in common.
func TestPlainPeer(t *testing.T) {
	for _, newer := range []bool{false, true} {
		got := make(chan string, 1)
		var fail error
		addr := serve(t, func(s *Server) {
			h := &writeServer{
				server:  s,
				log:     s.log,
				metrics: s.metrics,
				writer: writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
					got <- describeAll(s)
					return nil, fail
				}),
				route: func(context.Context, *wire.Batch) error {
					t.Error("a replica was routed on")
					return nil
				},
			}
			s.grpc.RegisterService(service(serviceWriteable, "thanospb/store.proto", []grpc.MethodDesc{
				remoteWriteMethod(),
			}), h)
			if newer {
				s.grpc.RegisterService(service(serviceWriter, "hearthpb/hearth.proto", nil, grpc.StreamDesc{
					StreamName: "Write", ServerStreams: true, ClientStreams: true,
					Handler: func(any, grpc.ServerStream) error { return refuseVersion(1, 8, 9) },
				}), h)
			}
		})
		c := dial(t, addr, ClientOptions{})
		s := richShard()
		for range 2 {
			if _, err := c.Write(context.Background(), s); err != nil {
				t.Fatalf("newer %v: %v", newer, err)
			}
			if d := <-got; d != describeAll(s) {
				t.Errorf("newer %v: arrived as\n%s\nwant\n%s", newer, d, describeAll(s))
			}
		}
		fail = errs.E(errs.Conflict, "too old")
		if _, err := c.Write(context.Background(), s); errs.KindOf(err) != errs.Conflict {
			t.Errorf("conflict: %v", err)
		}
		<-got
	}
}

// TestThanosFrame: releases of Thanos up to 0.42 know no tuples, and answer OK to a request in which they see no
// series.
func TestThanosFrame(t *testing.T) {
	s := richShard()
	var m thanospb.WriteRequest
	if err := proto.Unmarshal(frameBytes(thanosFrame(copies{s, 1})), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Timeseries) != len(s.Series) || m.Tenant != "team-a" || m.Replica != 1 || len(m.TimeseriesTenantData) > 0 {
		t.Errorf("%d series of tenant %q as replica %d, %d tuples", len(m.Timeseries), m.Tenant, m.Replica,
			len(m.TimeseriesTenantData))
	}
}

func richShard() wire.Shard {
	s := shard("team-a", 3)
	rich := s.Batch.Add(labels.FromStrings("__name__", "rich", "ü", "v"))
	rich.Samples = []wire.Sample{{T: -1, V: math.Inf(1)}, {T: 0, V: 0}, {T: 5, V: -2}}
	rich.Exemplars = []wire.Exemplar{
		{T: 5, V: 6, Labels: wire.AppendLabels(nil, labels.FromStrings("trace", "1", "x", "y"))}}
	rich.Histograms = []wire.Histogram{
		{T: 7, H: tsdbutil.GenerateTestHistogram(3)}, {T: 8, FH: tsdbutil.GenerateTestFloatHistogram(4)},
		{T: 9, H: &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: 2, Sum: 3, CustomValues: []float64{1, 2},
			PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1, 0}}},
	}
	return wire.Shard{Batch: s.Batch, Series: []int32{3, 1}}
}

func describeAll(s wire.Shard) string {
	out := describe(wire.Shard{Batch: s.Batch, Series: s.Series})
	for _, i := range s.Series {
		for _, e := range s.Batch.Series[i].Exemplars {
			out += fmt.Sprintf(" exemplar %d %v %q", e.T, e.V, e.Labels)
		}
		for _, h := range s.Batch.Series[i].Histograms {
			out += fmt.Sprintf(" histogram %d %s %s", h.T, h.H, h.FH)
		}
	}
	return out
}

// What a message of empty tenants' parts becomes is in proportion to it: they are no parts.
func TestThanosWriteOfNothing(t *testing.T) {
	const n = 1 << 20
	w, err := parseThanosWrite(bytes.Repeat([]byte{4<<3 | 2, 0}, n))
	if err != nil || len(w.tenants) != 0 {
		t.Errorf("%d parts, %v", len(w.tenants), err)
	}
}

func FuzzThanosWrite(f *testing.F) {
	a := timeSeries(f, "a")
	f.Add(append([]byte{1<<3 | 2, byte(len(a))}, a...))
	f.Add([]byte{4<<3 | 2, 5, 2<<3 | 2, 1, 'x', 3 << 3, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w, err := parseThanosWrite(raw)
		runtime.ReadMemStats(&after)
		// Lists grow by doubling: twice the budget of the message is allocated in all.
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(2*remoteMost*len(raw)+64<<10) {
			t.Errorf("%d bytes allocated for a message of %d", took, len(raw))
		}
		if err != nil {
			return
		}
		for _, tu := range w.tenants {
			if b, err := wire.DecodeV1("a", tu.requests); err == nil {
				b.Release()
			}
		}
	})
}

// An exemplar that cannot be stored decides nothing: the samples beside it are.
func TestRemoteWriteRefusedExemplar(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	one := timeSeries(t, "a")
	exemplar := []byte{3<<3 | 2, 4, 1<<3 | 2, 2, 2<<3 | 2, 0} // of a label without a name
	message := &thanospb.WriteRequest{Timeseries: [][]byte{append(one, exemplar...)}, Tenant: "x", Replica: 1}
	c := dialThanos(t, addr)
	if err := c.conn.Invoke(c.context(), "/thanos.WriteableStore/RemoteWrite", message,
		new(thanospb.WriteResponse)); err != nil {
		t.Error(err)
	}
}
