package rpc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// numbered says that copy number i%n of series i is meant.
type numbered int32

func (n numbered) CopyOf(i int32) int { return int(i % int32(n)) }

// plainPeer is a Thanos receiver: it notes what it is asked to store, and fails as the test says for the copy's number.
type plainPeer struct {
	mu   sync.Mutex
	got  map[int64][]string // names of series by the number of the copy
	fail map[int64]error
}

func (p *plainPeer) remoteWrite(_ context.Context, in *thanospb.WriteRequest) (*thanospb.WriteResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, raw := range in.Timeseries {
		var s prompb.TimeSeries
		if err := s.Unmarshal(raw); err != nil {
			return nil, err
		}
		p.got[in.Replica] = append(p.got[in.Replica], s.Labels[1].Value)
	}
	return &thanospb.WriteResponse{}, p.fail[in.Replica]
}

func servePlain(t *testing.T) (*plainPeer, *Client) {
	p := &plainPeer{got: map[int64][]string{}, fail: map[int64]error{}}
	addr := serve(t, func(s *Server) {
		s.grpc.RegisterService(service(serviceWriteable, "thanospb/store.proto", []grpc.MethodDesc{
			unaryMethod(serviceWriteable, "RemoteWrite", (*plainPeer).remoteWrite),
		}), p)
	})
	return p, dial(t, addr, ClientOptions{})
}

// A Thanos member that has a ring of its own gets each copy with its own number, from 1; one number for all would make
// it pass copies on to where others are already.
func TestCopiesKeepTheirNumbers(t *testing.T) {
	p, c := servePlain(t)
	s := shard("acme", 6)
	s.Series, s.Copies = []int32{0, 1, 2, 4, 5}, numbered(3)
	if failures, err := c.Write(t.Context(), s); err != nil || len(failures) > 0 {
		t.Fatal(failures, err)
	}
	if want := map[int64][]string{1: {"0"}, 2: {"1", "4"}, 3: {"2", "5"}}; fmt.Sprint(p.got) != fmt.Sprint(want) {
		t.Errorf("copies by number: %v, want %v", p.got, want)
	}
	clear(p.got)
	s.Copies = nil // not known: as if it were the only one
	if _, err := c.Write(t.Context(), s); err != nil || len(p.got) != 1 || len(p.got[1]) != 5 {
		t.Errorf("without numbers: %v, %v", p.got, err)
	}
}

// When the requests of a shard fare differently, only the series of those that failed have failed.
func TestCopiesFailByNumber(t *testing.T) {
	p, c := servePlain(t)
	s := shard("acme", 6)
	s.Copies = numbered(3)
	p.fail[2], p.fail[3] = errs.E(errs.Unavailable, "down"), errs.E(errs.Conflict, "too old")
	failures, err := c.Write(t.Context(), s)
	kinds := map[int]errs.Kind{}
	for _, f := range failures {
		kinds[f.Series] = f.Kind
		if f.Samples != 1 {
			t.Errorf("%+v: want one sample", f)
		}
	}
	want := map[int]errs.Kind{1: errs.Unavailable, 4: errs.Unavailable, 2: errs.Conflict, 5: errs.Conflict}
	if err != nil || fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("%v, %v; want %v", kinds, err, want)
	}
	p.fail[1] = errs.E(errs.Unavailable, "down")
	p.fail[3] = p.fail[1]
	if failures, err := c.Write(t.Context(), s); errs.KindOf(err) != errs.Unavailable || failures != nil {
		t.Errorf("all failed alike: %v, %v", failures, err)
	}
}

// RemoteWrite takes no metadata. A shard of nothing else has no request to send, and no outcome but good.
func TestMetadataAloneGoesToNoThanosMember(t *testing.T) {
	p, c := servePlain(t)
	s := shard("acme", 1)
	s.Batch.Metadata = []wire.Metadata{{Family: "m", Type: "counter"}}
	s.Series, s.Metadata, s.Copies = nil, []int32{0}, numbered(3)
	if failures, err := c.Write(t.Context(), s); err != nil || failures != nil || len(p.got) > 0 {
		t.Errorf("%v, %v; the member got %v", failures, err, p.got)
	}
}

// Between Hearth processes a shard is one frame, whatever copies it is of: a receiver stores what it gets.
func TestCopiesAreOneFrameBetweenHearths(t *testing.T) {
	var got [][]int32
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			got = append(got, slices.Clone(s.Series))
			return nil, nil
		}), nil)
	})
	s := shard("acme", 6)
	s.Copies = numbered(3)
	if _, err := dial(t, addr, ClientOptions{}).Write(t.Context(), s); err != nil || len(got) != 1 || len(got[0]) != 6 {
		t.Errorf("%v, %v", got, err)
	}
}
