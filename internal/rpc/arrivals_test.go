package rpc

import (
	"bytes"
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// taking is a source that takes samples.
type taking struct {
	*sourcetest.Memory
	says  series.Arrivals
	id    tenant.ID
	since int64
}

func (s *taking) Arrivals(_ context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	s.id, s.since = id, since
	return s.says, nil
}

func TestArrivalsTravel(t *testing.T) {
	src := &taking{Memory: &sourcetest.Memory{}, says: series.Arrivals{Window: 3 * time.Hour, Complete: -5, Since: 7,
		Delays: []series.Delay{{Hour: -3_600_000, Lowest: -9}, {Hour: 0, Lowest: -4, Highest: 9, Latest: 5}}}}
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": src, "store": &sourcetest.Memory{}}})
	})
	for _, role := range []string{"receive", ""} {
		got, err := dial(t, addr, ClientOptions{Role: role}).Arrivals(t.Context(), "a", 11)
		if err != nil || !reflect.DeepEqual(got, src.says) || src.id != "a" || src.since != 11 {
			t.Errorf("role %q: %+v, %v; asked for %q since %d", role, got, err, src.id, src.since)
		}
	}
	_, err := dial(t, addr, ClientOptions{Role: "store"}).Arrivals(t.Context(), "a", 11)
	if errs.KindOf(err) != errs.Unsupported {
		t.Errorf("a gateway: %v", err)
	}
	if _, err := dial(t, addr, ClientOptions{}).Arrivals(t.Context(), "", 11); errs.KindOf(err) != errs.Invalid {
		t.Errorf("no tenant: %v", err)
	}
	// A process that does not know the call.
	addr = serve(t, func(*Server) {})
	if _, err := dial(t, addr, ClientOptions{}).Arrivals(t.Context(), "a", 11); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("an older process: %v", err)
	}
}

// FuzzArrivals: no bytes break the decoder, and what it takes is in order and bounded.
func FuzzArrivals(f *testing.F) {
	f.Add([]byte("\x08\x01\x10\x02\x18\x03\x22\x02\x00\x05\x2a\x02\x01\x02"))
	f.Add([]byte("\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := new(hearthpb.ArrivalsResponse)
		if in.UnmarshalVT(bytes.Clone(b)) != nil {
			return
		}
		a, err := arrivalsFromPB(in)
		if err != nil {
			return
		}
		if a.Window < 0 || len(a.Delays) > series.MaxDelays {
			t.Errorf("window %s, %d delays", a.Window, len(a.Delays))
		}
		again, err := arrivalsFromPB(arrivalsToPB(a))
		if err != nil || !reflect.DeepEqual(again, a) {
			t.Errorf("%+v became %+v, %v", a, again, err)
		}
	})
}
