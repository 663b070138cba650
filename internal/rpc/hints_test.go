package rpc

import (
	"context"
	"encoding/hex"
	"testing"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/series"
)

func TestHintsFromPB(t *testing.T) {
	f := func(raw, want string, stats bool, kind errs.Kind) {
		t.Helper()
		b, err := hex.DecodeString(raw)
		if err != nil {
			t.Fatal(err)
		}
		ms, wanted, err := hintsFromPB(new(expr.Matchers), &anypb.Any{Value: b})
		got := ""
		for _, m := range ms {
			got += m.String()
		}
		if got != want || wanted != stats || errs.KindOf(err) != kind {
			t.Errorf("%s: %q, %v, %v", raw, got, wanted, err)
		}
	}
	f("", "", false, errs.OK)
	f("1001", "", true, errs.OK)
	f("1000", "", false, errs.OK)
	f("0a08"+"0802"+"12016a"+"1a0178"+"1001", `j=~"x"`, true, errs.OK)
	f("0a06"+"12016a"+"1a0178"+"0a08"+"0801"+"12016b"+"1a0179", `j="x"k!="y"`, false, errs.OK)
	f("1a0178"+"1001", "", true, errs.OK) // a field of a later version
	f("0a08"+"0802"+"12016a"+"1a0128", "", false, errs.Invalid)
	f("0a08"+"0807"+"12016a"+"1a0178", "", false, errs.Invalid)
	f("0aff", "", false, errs.Invalid)
	f("0a02"+"08", "", false, errs.Invalid)
	if ms, stats, err := hintsFromPB(new(expr.Matchers), nil); ms != nil || stats || err != nil {
		t.Error(ms, stats, err)
	}
}

// TestHintsOfAnswers: what several streams of one gateway read is one sum, and each block is named once.
func TestHintsOfAnswers(t *testing.T) {
	var h heardQueried
	ctx := h.listen(context.Background())
	if h.blocks("x") != nil || (*heardQueried)(nil).statistics("x", 1, 1) != nil {
		t.Error("hints without a source that serves blocks")
	}
	id := func(n byte) ulid.ULID { return ulid.ULID{15: n} }
	for _, q := range []series.Queried{
		{Blocks: []ulid.ULID{id(2), id(1)}, Series: series.ReadAmount{Touched: 3, TouchedBytes: 40, Reads: 1, ReadBytes: 50}},
		{Blocks: []ulid.ULID{id(1)}, Series: series.ReadAmount{Touched: 4, TouchedBytes: 2, Reads: 1, ReadBytes: 6},
			Chunks: series.ReadAmount{ReadBytes: 100}},
	} {
		series.TellQueried(ctx, func() series.Queried { return q })
	}
	a := h.statistics("SeriesResponseHints", 5, 6)
	if a.TypeUrl != "type.googleapis.com/hintspb.SeriesResponseHints" {
		t.Error(a.TypeUrl)
	}
	blocks := ""
	stats := map[protowire.Number]uint64{}
	err := fields(a.Value, func(num protowire.Number, _ uint64, content []byte) error {
		return fields(content, func(inner protowire.Number, v uint64, id []byte) error {
			if num == hintQueriedBlocks {
				blocks += string(id) + " "
			} else {
				stats[inner] = v
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := id(1).String() + " " + id(2).String() + " "; blocks != want {
		t.Errorf("blocks %q, want %q", blocks, want)
	}
	for num, want := range map[protowire.Number]uint64{1: 2, 2: 5, 3: 6, 10: 7, 11: 42, 13: 56, 14: 2, 18: 100, 20: 156} {
		if stats[num] != want {
			t.Errorf("statistic %d is %d, want %d", num, stats[num], want)
		}
	}
}

func FuzzHintsFromPB(f *testing.F) {
	for _, seed := range []string{"", "1001", "0a080802" + "12016a" + "1a0178" + "1001", "0aff"} {
		b, _ := hex.DecodeString(seed)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ms, _, err := hintsFromPB(new(expr.Matchers), &anypb.Any{Value: b})
		if err == nil && len(ms) > len(b)/2 {
			t.Errorf("%d matchers of %d bytes", len(ms), len(b))
		}
	})
}
