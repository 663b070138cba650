package rpc

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/rulestate"
)

// keeper gives the answers that it was made with, and notes what it was asked.
type keeper struct {
	known rulestate.Known
	taken rulestate.Taken
	said  rulestate.HoldAnswer
	asked []any
}

func (k *keeper) Groups(_ context.Context, version uint64) (rulestate.Known, error) {
	k.asked = append(k.asked, version)
	return k.known, nil
}

func (k *keeper) Take(_ context.Context, g rulestate.GroupName) (rulestate.Taken, error) {
	k.asked = append(k.asked, g)
	return k.taken, nil
}

func (k *keeper) Hold(_ context.Context, h rulestate.Held) (rulestate.HoldAnswer, error) {
	k.asked = append(k.asked, h)
	return k.said, nil
}

func TestRulersTravel(t *testing.T) {
	k := &keeper{
		known: rulestate.Known{Version: 1<<63 + 5, Groups: []uint64{1, 1 << 63}, Leaves: true},
		taken: rulestate.Taken{Keeps: true, Busy: true, State: []byte("state")},
		said:  rulestate.HoldAnswer{Evaluates: true, Lacks: true},
	}
	addr := serve(t, func(s *Server) { RegisterRulers(s, k) })
	c := RulerClient{dial(t, addr, ClientOptions{})}
	name := rulestate.GroupName{Tenant: "acme", Namespace: "a/b.yml", Name: "g\n"}
	held := rulestate.Held{Group: name, Slot: time.Unix(9, 5).UTC(), Base: time.Unix(8, 5).UTC(), Series: []byte("series"),
		State: []byte(strings.Repeat("x", 5<<20))} // larger than other requests may be
	first := rulestate.Held{Group: name, Slot: time.Unix(9, 5).UTC(), State: []byte("y")}
	known, err := c.Groups(t.Context(), 1<<62)
	taken, err2 := c.Take(t.Context(), name)
	said, err3 := c.Hold(t.Context(), held)
	_, err4 := c.Hold(t.Context(), first)
	for _, err := range []error{err, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual([]any{known, taken, said}, []any{k.known, k.taken, k.said}) {
		t.Errorf("answers %+v %+v %+v", known, taken, said)
	}
	if want := []any{uint64(1 << 62), name, held, first}; !reflect.DeepEqual(k.asked, want) {
		t.Errorf("asked %.300v", k.asked)
	}

	held.State = make([]byte, maxHold)
	if _, err := c.Hold(t.Context(), held); err == nil {
		t.Error("a state beyond the bound was taken")
	}
	for _, bad := range []rulestate.GroupName{{}, {Tenant: "../x"}} {
		if _, err := c.Take(t.Context(), bad); errs.KindOf(err) != errs.Invalid {
			t.Errorf("group %+v: %v", bad, err)
		}
	}
	var out hearthpb.RulerTakeResponse
	err = c.invoke(c.outgoing(t.Context(), ""), "/"+serviceRulers+"/Take", &hearthpb.RulerTakeRequest{}, &out)
	if errs.KindOf(err) != errs.Invalid {
		t.Errorf("no group: %v", err)
	}
	// A process that does not know the call.
	addr = serve(t, func(*Server) {})
	c = RulerClient{dial(t, addr, ClientOptions{})}
	if _, err := c.Groups(t.Context(), 0); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("an older process: %v", err)
	}
}
