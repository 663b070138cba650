package rpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func blockID(n byte) ulid.ULID { return ulid.ULID{15: n} }

// oneCoverage has a value in each field.
func oneCoverage() series.Coverage {
	return series.Coverage{
		Holding: series.Holding{Bucket: "b", View: series.View{Number: 7, Hash: "h"}},
		Needed:  series.Digest{Blocks: 4, Sums: [2]uint64{1, 1 << 63}},
		Served:  []ulid.ULID{blockID(1)},
		Others: []series.Block{{ID: blockID(2)}, {ID: blockID(3), Replaces: []ulid.ULID{blockID(4), blockID(5)}},
			{ID: blockID(6), Replaces: []ulid.ULID{blockID(7)}}},
	}
}

// sharing is a gateway with a share of the blocks. It says what it covers, and remembers what it was asked for.
type sharing struct {
	*sourcetest.Memory
	covers series.Coverage
	asked  []series.BlockRequest
}

func (s *sharing) hear(ctx context.Context, r *series.Request) {
	s.asked = append(s.asked, r.Blocks)
	series.TellCoverage(ctx, s.covers)
}

func (s *sharing) Select(ctx context.Context, r *series.Request) series.Set {
	s.hear(ctx, r)
	return s.Memory.Select(ctx, r)
}

func (s *sharing) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	s.hear(ctx, r)
	return s.Memory.LabelNames(ctx, r)
}

func (s *sharing) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	s.hear(ctx, r)
	return s.Memory.LabelValues(ctx, name, r)
}

func newSharing() *sharing {
	return &sharing{covers: oneCoverage(), Memory: &sourcetest.Memory{
		About: series.Info{Instance: "s1", Role: series.RoleStore, Blocks: oneCoverage().Holding},
		Data: map[tenant.ID][]sourcetest.Series{tenant.Default: {{Labels: labels.FromStrings("__name__", "up"),
			Samples: []sourcetest.Sample{{T: 1, V: 1}}}}},
	}}
}

// TestBlocksTravel: what a querier asks of a gateway arrives there, and what the gateway says that it covers arrives
// before its first series.
func TestBlocksTravel(t *testing.T) {
	src := newSharing()
	addr := serve(t, func(s *Server) { RegisterStore(s, Store{Sources: map[string]series.Source{"store": src}}) })
	c := dial(t, addr, ClientOptions{Role: "store"})
	if info, err := c.Info(t.Context()); err != nil || info.Blocks != src.About.Blocks {
		t.Fatalf("Info says %+v, %v; want %+v", info.Blocks, err, src.About.Blocks)
	}
	asks := []series.BlockRequest{
		{}, {View: series.View{Number: 9, Hash: "x"}}, {Primary: true}, {Only: []ulid.ULID{}},
		{Only: []ulid.ULID{blockID(1), blockID(2)}, View: series.View{Number: 1}},
	}
	for _, blocks := range asks {
		src.asked = nil
		r := &series.Request{Tenant: tenant.Default, MaxTime: 10, Matchers: all(), Blocks: blocks}
		var heard []series.Coverage
		ctx := series.OnCoverage(t.Context(), func(c series.Coverage) { heard = append(heard, c) })
		set := c.Select(ctx, r)
		if !set.Next() {
			t.Fatal(set.Err())
		}
		if len(heard) != 1 {
			t.Errorf("%d coverages came before the first series", len(heard))
		}
		if set.Next() || set.Err() != nil {
			t.Errorf("a second series, or %v", set.Err())
		}
		if err := set.Close(); err != nil {
			t.Error(err)
		}
		if _, _, err := c.LabelNames(ctx, r); err != nil {
			t.Error(err)
		}
		if _, _, err := c.LabelValues(ctx, "__name__", r); err != nil {
			t.Error(err)
		}
		if len(heard) != 3 {
			t.Fatalf("heard %d coverages", len(heard))
		}
		for i := range heard {
			if !reflect.DeepEqual(heard[i], src.covers) {
				t.Errorf("call %d: heard %+v, want %+v", i, heard[i], src.covers)
			}
			if !reflect.DeepEqual(src.asked[i], blocks) {
				t.Errorf("call %d: was asked for %+v, want %+v", i, src.asked[i], blocks)
			}
		}
	}
	// Thanos's callers see frames without a coverage.
	frames, err := dialThanos(t, addr).series(&thanospb.SeriesRequest{MaxTime: 10, Matchers: matchersToPB(all())})
	if err != nil || len(frames) != 1 || frames[0].Coverage != nil {
		t.Errorf("a caller of Thanos got %v, %v", frames, err)
	}
	// A gateway without series still says what it covers.
	src.Data = nil
	var heard int
	if _, _, err := collect(t, heardBy{c, &heard}, &series.Request{Tenant: tenant.Default, Matchers: all()}); err != nil {
		t.Error(err)
	}
	if heard != 1 {
		t.Errorf("heard %d coverages of a gateway without series", heard)
	}
}

// heardBy counts the coverages that a source says.
type heardBy struct {
	series.Source
	n *int
}

func (h heardBy) Select(ctx context.Context, r *series.Request) series.Set {
	return h.Source.Select(series.OnCoverage(ctx, func(series.Coverage) { *h.n++ }), r)
}

// TestBlocksOnTheWire has the bytes of the messages: other versions read them.
func TestBlocksOnTheWire(t *testing.T) {
	f := func(name string, m generated, want string) {
		t.Helper()
		got := make([]byte, m.SizeVT())
		if _, err := m.MarshalToSizedBufferVT(got); err != nil {
			t.Fatal(err)
		}
		if text := hex.EncodeToString(got); text != strings.ReplaceAll(want, " ", "") {
			t.Errorf("%s: %s", name, text)
		}
	}
	id := func(n string) string { return strings.Repeat("00", 15) + n }
	f("holding", holdingToPB(oneCoverage().Holding), "0a0162 1007 1a0168")
	f("without an id", holdingToPB(series.Holding{Contents: "0123456789abcdef"}), "2a1030313233343536373839616263646566")
	f("a whole one", holdingToPB(series.Holding{Bucket: "b", Whole: true}), "0a0162 2001")
	f("request", blocksToPB(series.BlockRequest{View: oneCoverage().View, Primary: true, Only: []ulid.ULID{blockID(1)}}),
		"0807 120168 1801 2210"+id("01"))
	f("request for none", blocksToPB(series.BlockRequest{Only: []ulid.ULID{}}), "2200")
	f("coverage", coverageToPB(oneCoverage()), "0a08 0a0162 1007 1a0168 1004 190100000000000000 210000000000000080"+
		"2a10"+id("01")+"3230"+id("02")+id("03")+id("06")+"3a03000201 4230"+id("04")+id("05")+id("07"))
	if blocksToPB(series.BlockRequest{}) != nil {
		t.Error("a request for nothing in particular is sent")
	}
}

// TestBlocksBetweenVersions: processes that know nothing of these messages skip them, and a gateway with a share is no
// whole one to them.
func TestBlocksBetweenVersions(t *testing.T) {
	// The field numbers of older messages end before these: they are unknown fields to them.
	for _, m := range []generated{
		&thanospb.SeriesRequest{MaxTime: 5, Blocks: &hearthpb.BlockRequest{Primary: true}},
		&thanospb.LabelNamesRequest{End: 5, Blocks: &hearthpb.BlockRequest{Primary: true}},
		&thanospb.LabelValuesRequest{End: 5, Blocks: &hearthpb.BlockRequest{Primary: true}},
		&thanospb.LabelNamesResponse{Names: []string{"a"}, Coverage: coverageToPB(oneCoverage())},
	} {
		b := make([]byte, m.SizeVT())
		if _, err := m.MarshalToSizedBufferVT(b); err != nil {
			t.Fatal(err)
		}
		last, fields := protowire.Number(0), 0
		for len(b) > 0 {
			num, _, n := protowire.ConsumeField(b)
			b, last, fields = b[n:], num, fields+1
		}
		if fields != 2 || last != 1000 {
			t.Errorf("%T: %d fields, the last has number %d", m, fields, last)
		}
	}
	// An older decoder of series reads a frame of a coverage as one without series.
	frame := &thanospb.SeriesResponse{Coverage: coverageToPB(oneCoverage())}
	b := make([]byte, frame.SizeVT())
	if _, err := frame.MarshalToSizedBufferVT(b); err != nil {
		t.Fatal(err)
	}
	num, typ, n := protowire.ConsumeTag(b)
	if num != 1000 || typ != protowire.BytesType || n != 2 {
		t.Errorf("the frame begins with field %d", num)
	}
	// Info: what older queriers read is the field bucket.
	shared := sourceToPB("store", series.Info{Blocks: oneCoverage().Holding})
	wholeOne := sourceToPB("store", series.Info{Blocks: series.Holding{Bucket: "b", Whole: true}})
	if shared.Bucket != "" || wholeOne.Bucket != "b" {
		t.Errorf("older queriers read the buckets %q and %q", shared.Bucket, wholeOne.Bucket)
	}
	// Of an older gateway comes only that field.
	info, err := infoFromPB(&hearthpb.Source{Role: "store", Bucket: "b"}, nil)
	if want := (series.Holding{Bucket: "b", Whole: true}); err != nil || info.Blocks != want {
		t.Errorf("an older gateway holds %+v, %v", info.Blocks, err)
	}
}

// TestHostileBlocks: what is out of bounds is refused, with a text that says what.
func TestHostileBlocks(t *testing.T) {
	long := strings.Repeat("x", maxBucketBytes+1)
	ids := func(n int) []byte { return make([]byte, n*idBytes) }
	f := func(want string, in *hearthpb.Coverage) {
		t.Helper()
		if _, err := coverageFromPB(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f("id of a bucket has 257", &hearthpb.Coverage{Holding: &hearthpb.Holding{Bucket: long}})
	f("contents of a bucket have 17", &hearthpb.Coverage{Holding: &hearthpb.Holding{Contents: make([]byte, 17)}})
	f("contents of a bucket have 1040", &hearthpb.Coverage{Holding: &hearthpb.Holding{Contents: make([]byte, 1040)}})
	f("hash of a view has 257", &hearthpb.Coverage{Holding: &hearthpb.Holding{ViewHash: long}})
	f("in 17 bytes", &hearthpb.Coverage{Served: ids(2)[:17]})
	f("262145 ids", &hearthpb.Coverage{Served: ids(maxCovered + 1)})
	f("262145 ids", &hearthpb.Coverage{Others: ids(maxCovered + 1)})
	f("262145 ids", &hearthpb.Coverage{Replaces: ids(maxCovered + 1)})
	f("needs 18446744073709551615 blocks", &hearthpb.Coverage{Needed: 1<<64 - 1})
	f("2 blocks replace is said of 1", &hearthpb.Coverage{Others: ids(2), Replaced: []uint32{1}, Replaces: ids(1)})
	f("2 blocks replace is said of 0", &hearthpb.Coverage{Others: ids(2), Replaces: ids(1)})
	f("replaces 4294967295 blocks, and 1", &hearthpb.Coverage{Others: ids(1), Replaced: []uint32{1<<32 - 1}, Replaces: ids(1)})
	f("1 replaced blocks are not of any", &hearthpb.Coverage{Others: ids(1), Replaced: []uint32{0}, Replaces: ids(1)})
	for want, in := range map[string]*hearthpb.BlockRequest{
		"1001 ids":      {Only: ids(series.MaxOnlyBlocks + 1)},
		"in 15 bytes":   {Only: ids(1)[:15]},
		"hash of a vie": {ViewHash: long},
	} {
		_, err := blocksFromPB(in)
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// Over the wire it is the fault of the caller, or of the peer.
	src := newSharing()
	src.covers.Bucket = long
	addr := serve(t, func(s *Server) { RegisterStore(s, Store{Sources: map[string]series.Source{"store": src}}) })
	c := dial(t, addr, ClientOptions{Role: "store"})
	r := &series.Request{Tenant: tenant.Default, MaxTime: 10, Matchers: all()}
	if _, _, err := collect(t, c, r); err == nil || !strings.Contains(err.Error(), "malformed coverage") {
		t.Errorf("a coverage with a long name: %v", err)
	}
	r.Blocks.Only = make([]ulid.ULID, series.MaxOnlyBlocks+1)
	if _, _, err := collect(t, c, r); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a request for too many blocks: %v", err)
	}
	if _, _, err := c.LabelNames(t.Context(), r); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a request for names from too many blocks: %v", err)
	}
}

// FuzzCoverage: no bytes break the decoder, and what it reads is written as it was read.
func FuzzCoverage(f *testing.F) {
	for _, c := range []series.Coverage{{}, oneCoverage()} {
		m := coverageToPB(c)
		b := make([]byte, m.SizeVT())
		if _, err := m.MarshalToSizedBufferVT(b); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d seriesDecoder
		_ = d.frame(protowire.AppendBytes(protowire.AppendTag(nil, fieldCoverage, protowire.BytesType), b))
		in := new(hearthpb.Coverage)
		if in.UnmarshalVT(bytes.Clone(b)) != nil {
			return
		}
		c, err := coverageFromPB(in)
		if err != nil {
			return
		}
		again, err := coverageFromPB(coverageToPB(c))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v became %+v, %v", c, again, err)
		}
	})
}

// FuzzBlockRequest: no bytes break the decoders of requests and of Info.
func FuzzBlockRequest(f *testing.F) {
	f.Add([]byte{0x22, 0})
	f.Add([]byte("\x08\x07\x12\x01h\x18\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := new(hearthpb.BlockRequest)
		if in.UnmarshalVT(bytes.Clone(b)) == nil {
			if r, err := blocksFromPB(in); err == nil && len(r.Only) > series.MaxOnlyBlocks {
				t.Errorf("%d ids", len(r.Only))
			}
		}
		info := new(infopb.InfoResponse)
		if info.UnmarshalVT(bytes.Clone(b)) == nil {
			for _, s := range info.Hearth.GetSources() {
				_, _ = infoFromPB(s, nil)
			}
		}
	})
}
