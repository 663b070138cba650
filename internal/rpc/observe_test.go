package rpc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/mem"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/wire"
)

type requestKey struct{}

// follower is an observer: a request is the text that its context has under requestKey.
type follower struct {
	mu     sync.Mutex
	events []string
}

func (f *follower) note(words ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, strings.Join(words, " "))
}

func (f *follower) noted(event string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.events, event)
}

func (f *follower) Begin(
	ctx context.Context,
	method string,
	get func(string) []string,
) (context.Context, func(uint32, string, error)) {
	id := strings.Join(get("x-request-id"), ",")
	f.note("begin", method, id)
	return context.WithValue(ctx, requestKey{}, id), func(_ uint32, code string, err error) {
		f.note("end", method, id, code)
	}
}

func (f *follower) Resume(ctx context.Context, stamp []byte, name string) (context.Context, func(error)) {
	f.note("resume", name, string(stamp))
	return context.WithValue(ctx, requestKey{},
		string(stamp)), func(err error) { f.note("stored", string(stamp), errs.KindOf(err).String()) }
}

func (f *follower) Carry(ctx context.Context) []string {
	if id, ok := ctx.Value(requestKey{}).(string); ok {
		return []string{"x-request-id", id}
	}
	return nil
}

func (f *follower) Stamp(ctx context.Context) []byte {
	id, _ := ctx.Value(requestKey{}).(string)
	return []byte(id)
}

func (f *follower) Start(ctx context.Context, name, _ string) (context.Context, func(error)) {
	f.note("start", name)
	return ctx, func(err error) { f.note("done", name, errs.KindOf(err).String()) }
}

// TestRequestsAreFollowed: calls and writes on a stream are parts of the request that they are for, on the other side
// too.
func TestRequestsAreFollowed(t *testing.T) {
	f, opts := new(follower), ServerOptions{}
	opts.Observer = f
	s := newServer(t, opts, prometheus.NewRegistry(), func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{series.RoleReceive: quietInfo{}}})
		RegisterWrite(s, writerFunc(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
			id, _ := ctx.Value(requestKey{}).(string)
			f.note("write", string(s.Batch.Tenant), id)
			if s.Batch.Tenant == "bad" {
				return nil, errs.E(errs.Unavailable, "no")
			}
			return nil, nil
		}), nil)
	})
	c := dial(t, s.Addr().String(), ClientOptions{Observer: f})
	ctx := context.WithValue(t.Context(), requestKey{}, "r1")
	if _, err := c.Info(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(ctx, shard("a", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(t.Context(), shard("plain", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(ctx, shard("bad", 1)); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	for _, event := range []string{"begin /thanos.info.Info/Info r1", "end /thanos.info.Info/Info r1 OK", "begin /hearth.Writer/Write ",
		"resume receive write r1", "write a r1", "stored r1 ok", "stored r1 unavailable", "write plain ",
		"start member write", "done member write ok", "done member write unavailable"} {
		eventually(t, event, func() bool { return f.noted(event) })
	}
}

// TestStampsDoNotBreakOthers: a receiver that follows nobody takes frames with stamps as all others, and one that does
// reads a bounded number of them.
func TestStampsDoNotBreakOthers(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	c := dial(t, addr, ClientOptions{Observer: new(follower)})
	if _, err := c.Write(context.WithValue(t.Context(), requestKey{}, "r1"), shard("a", 3)); err != nil {
		t.Fatal(err)
	}
	calls := make([]*writeCall, 3*maxStamps)
	for i := range calls {
		calls[i] = &writeCall{stamp: []byte("stamp")}
	}
	calls[1].stamp = nil
	f := writeFrame{in: &inbound{writeServer: &writeServer{server: &Server{opts: ServerOptions{Observer: new(follower)}}}}}
	sent := mem.BufferSlice{mem.SliceBuffer(appendStamps(nil, calls))}
	if err := f.decode(sent); err != nil || len(f.stamps) != maxStamps || string(f.stamps[0]) != "stamp" ||
		f.over != nil {
		t.Errorf("%d stamps, %v, %v", len(f.stamps), err, f.over)
	}
	if err := errors.Join(f.err, f.over); err != nil {
		t.Error(err)
	}
}
