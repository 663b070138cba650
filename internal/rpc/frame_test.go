package rpc

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/proto"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

func frameBytes(e *encoded) []byte {
	bufs := e.buffers()
	defer bufs.Free()
	return bufs.Materialize()
}

var cases = []series.Series{
	{},
	{Labels: labels.FromStrings("__name__", "up")},
	{Labels: labels.FromStrings("a", strings.Repeat("long ", 100), "ü", "\"\n"), Chunks: []series.Chunk{
		{MinTime: 0, MaxTime: 0, Raw: series.Encoded{Encoding: chunkenc.EncXOR, Data: []byte{1, 2, 3}}},
		{MinTime: -5, MaxTime: math.MaxInt64,
			Raw: series.Encoded{Encoding: chunkenc.EncHistogram, Data: bytes.Repeat([]byte("h"), 300)}},
		{MinTime: 7, MaxTime: 8, Raw: series.Encoded{Encoding: chunkenc.EncFloatHistogram, Data: []byte("f")}},
		{MinTime: 9, MaxTime: 9, Aggr: &series.AggrChunks{
			series.Count:   {Encoding: chunkenc.EncXOR, Data: []byte("c")},
			series.Counter: {Encoding: chunkenc.EncXOR, Data: []byte("cc")},
		}},
	}},
}

// TestFrames compares the hand-written encoder with the generated code, and the decoder with the encoder.
func TestFrames(t *testing.T) {
	for i, in := range cases {
		var b batch
		if err := b.add(in); err != nil {
			t.Fatal(err)
		}
		raw := frameBytes(b.take(false))
		want := &thanospb.SeriesResponse{Result: &thanospb.SeriesResponse_Series{Series: seriesToPB(in)}}
		var got thanospb.SeriesResponse
		if err := proto.Unmarshal(raw, &got); err != nil || !proto.Equal(&got, want) {
			t.Errorf("case %d: generated code reads\n%v, %v\nwant\n%v", i, &got, err, want)
		}
		if canonical, _ := (proto.MarshalOptions{Deterministic: true}).Marshal(want); !bytes.Equal(canonical, raw) {
			t.Errorf("case %d: bytes\n%x\nwant\n%x", i, raw, canonical)
		}
		var d seriesDecoder
		if err := d.frame(raw); err != nil || len(d.out) != 1 || !reflect.DeepEqual(d.out[0], in) {
			t.Errorf("case %d: decoded %+v, %v\nwant %+v", i, d.out, err, in)
		}
	}
	var b batch
	for _, in := range cases {
		if err := b.add(in); err != nil {
			t.Fatal(err)
		}
	}
	raw := frameBytes(b.take(true))
	var got thanospb.SeriesResponse
	if err := proto.Unmarshal(raw, &got); err != nil || len(got.GetBatch().GetSeries()) != len(cases) {
		t.Fatalf("batch: %v, %v", &got, err)
	}
	var d seriesDecoder
	if err := d.frame(raw); err != nil || !reflect.DeepEqual(d.out, cases) {
		t.Errorf("batch: %+v, %v", d.out, err)
	}
	unknown := series.Series{Chunks: []series.Chunk{{Raw: series.Encoded{Encoding: 4, Data: []byte("x")}}}}
	if err := b.add(unknown); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("an encoding that StoreAPI does not know: %v", err)
	}
}

func seriesToPB(s series.Series) *thanospb.Series {
	out := &thanospb.Series{Labels: labelsToPB(s.Labels).Labels}
	one := func(e series.Encoded) *thanospb.Chunk {
		if e.Encoding == chunkenc.EncNone {
			return nil
		}
		return &thanospb.Chunk{Type: thanospb.Chunk_Encoding(e.Encoding - 1), Data: e.Data}
	}
	for _, c := range s.Chunks {
		a := &thanospb.AggrChunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Raw: one(c.Raw)}
		if c.Aggr != nil {
			a.Count, a.Sum, a.Min = one(c.Aggr[series.Count]), one(c.Aggr[series.Sum]), one(c.Aggr[series.Min])
			a.Max, a.Counter = one(c.Aggr[series.Max]), one(c.Aggr[series.Counter])
		}
		out.Chunks = append(out.Chunks, a)
	}
	return out
}

func TestDecodeForeignFrames(t *testing.T) {
	frame := func(r *thanospb.SeriesResponse) []byte {
		raw, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var d seriesDecoder
	if err := d.frame(frame(warningFrame("careful"))); err != nil || len(d.out) != 0 || len(d.warnings) != 1 ||
		d.warnings[0] != "careful" {
		t.Errorf("warning: %+v, %v", d, err)
	}
	unsorted := &thanospb.Series{Labels: []*thanospb.Label{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}}}
	raw := frame(&thanospb.SeriesResponse{Result: &thanospb.SeriesResponse_Series{Series: unsorted}})
	raw = append(raw, 0xf8, 0x3f, 5, 0xf2, 0x3f, 1, 'x', 0xf5, 0x3f, 1, 2, 3,
		4) // unknown fields 1023 (varint), 1022 (bytes, fixed32)
	if err := d.frame(raw); err != nil || len(d.out) != 1 ||
		d.out[0].Labels.String() != `{b="1", a="2"}` { // Checked sorts them
		t.Errorf("unsorted labels: %+v, %v", d.out, err)
	}
	twice := &thanospb.Series{Labels: []*thanospb.Label{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}}
	if err := d.frame(
		frame(&thanospb.SeriesResponse{Result: &thanospb.SeriesResponse_Series{Series: twice}})); err != nil ||
		len(d.out) != 1 {
		t.Errorf("a label twice: %v", err)
	}
	long := &thanospb.Series{Labels: []*thanospb.Label{{Name: "a", Value: strings.Repeat("x", series.MaxLabelBytes)}}}
	one := &thanospb.SeriesResponse{Result: &thanospb.SeriesResponse_Series{Series: long}}
	if err := d.frame(frame(one)); err != nil || len(d.out) != 0 ||
		len(d.faults.Warnings()) != 1 {
		t.Errorf("a label that is too long: %v", err)
	}
	xor2 := &thanospb.Series{Chunks: []*thanospb.AggrChunk{{Raw: &thanospb.Chunk{Type: 3, Data: []byte("x")}}}}
	if err := d.frame(
		frame(&thanospb.SeriesResponse{Result: &thanospb.SeriesResponse_Series{Series: xor2}})); err != nil ||
		d.out[0].Chunks[0].Raw.Encoding != unknownEncoding {
		t.Errorf("an unknown chunk encoding: %v", err)
	}
	for cut := 1; cut < len(raw); cut++ {
		_ = d.frame(raw[:cut]) // must not panic
	}
}

// TestGoldenSeriesRequest decodes a request assembled by hand from Thanos's field numbers.
func TestGoldenSeriesRequest(t *testing.T) {
	const golden = "" +
		"08e80710d00f" + // min and max time, 1000 and 2000
		"1a0c080212036a6f621a03782e2a" + // matcher job=~"x.*"
		"20e0a7122a020001" + // max resolution 300000; aggregates RAW and COUNT, packed
		"38014001" + // ABORT; skip chunks
		// hints: an Any
		"4a300a2e747970652e676f6f676c65617069732e636f6d2f68696e747370622e5365726965735265717565737448696e7473" +
		"50987558e0d403" + // step 15000, range 60000
		"621a08987512060a0472617465220708011a036a6f622a0408e0d403" + // query hints: func rate, grouping by job, range 60000
		"6a0b08011002180122036a6f62" + // shard 1 of 2 by job
		"72077265706c6963617805800140" // without replica; limit 5; batch 64
	raw, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	in := new(thanospb.SeriesRequest)
	if err := in.UnmarshalVT(raw); err != nil {
		t.Fatal(err)
	}
	r, _, err := requestFromPB(in)
	if err != nil {
		t.Fatal(err)
	}
	want := &series.Request{
		MinTime:       1000,
		MaxTime:       2000,
		Matchers:      []*labels.Matcher{matcher(labels.MatchRegexp, "job", "x.*")},
		MaxResolution: 300000,
		Aggregates:    []series.Aggregate{series.Count},
		SkipChunks:    true,
		Limit:         5,
		WithoutLabels: []string{"replica"},
		Hints:         series.Hints{Step: 15000, Range: 60000, Func: "rate", Grouping: []string{"job"}, By: true},
	}
	if r.Matchers[0].String() != want.Matchers[0].String() {
		t.Errorf("matcher %s", r.Matchers[0])
	}
	r.Matchers, want.Matchers = nil, nil
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	if in.ResponseBatchSize != 64 || partialAllowed(in.PartialResponseDisabled, in.PartialResponseStrategy) ||
		in.Hints.TypeUrl == "" {
		t.Errorf("request %v", in)
	}
	s, err := newSharder(in.ShardInfo)
	if err != nil || s.plain() || s.index != 1 || s.total != 2 || !s.by {
		t.Errorf("shard %+v, %v", s, err)
	}
}

func FuzzSeriesFrame(f *testing.F) {
	var b batch
	for _, s := range cases {
		_ = b.add(s)
	}
	f.Add(frameBytes(b.take(true)))
	f.Add([]byte{0x12, 1, 'w'})
	f.Add([]byte{0x0a, 4, 0x0a, 2, 0x0a, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d seriesDecoder
		err := d.frame(raw)
		var want thanospb.SeriesResponse
		if proto.Unmarshal(raw, &want) != nil {
			return // the generated code also checks UTF-8
		}
		if err != nil && errs.KindOf(err) != errs.Unsupported && !strings.Contains(err.Error(), "twice") {
			t.Fatalf("the generated code reads %v, we say %v", &want, err)
		}
	})
}
