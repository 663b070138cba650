package rpc

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// hanging serves writes, of which those of tenant "hung" end with the test or with the call of end.
func hanging(t *testing.T, set func(*Server)) (s *Server, end func()) {
	stuck, end := context.WithCancel(context.Background())
	s = newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		set(s)
		RegisterWrite(s, writerFunc(func(_ context.Context, shard wire.Shard) ([]wire.Failure, error) {
			if shard.Batch.Tenant == "hung" {
				<-stuck.Done()
			}
			return nil, nil
		}), nil)
	})
	t.Cleanup(end)
	return s, end
}

// giveUp makes write fail by its deadline, again and again, until it is refused; that is the error.
func giveUp(t *testing.T, tries int, write func(context.Context) error) error {
	t.Helper()
	for range tries {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_ = write(ctx)
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return write(ctx)
}

// A tenant whose writes hang is refused once it has its share of a stream, and of the process; the others of the
// stream go on.
func TestHungTenantLeavesOthersTheirRoom(t *testing.T) {
	for name, set := range map[string]func(*Server){
		"of a stream":    func(*Server) {},
		"of the process": func(s *Server) { s.writing = newBudget(20<<20, streamParts) },
	} {
		s, end := hanging(t, set)
		c := dial(t, s.Addr().String(), ClientOptions{})
		large := shard("hung", 20_000) // five megabytes
		err := giveUp(t, 20, func(ctx context.Context) error {
			_, err := c.Write(ctx, large)
			return err
		})
		if errs.KindOf(err) != errs.Exhausted || errs.RetryAfter(err) == 0 || !strings.Contains(err.Error(), `"hung"`) {
			t.Errorf("%s: %v; want it refused as overload, with the tenant", name, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for range 20 {
			if _, err := c.Write(ctx, shard("other", 20_000)); err != nil {
				t.Fatalf("%s: another tenant's write: %v", name, err)
			}
		}
		end()
		eventually(t, name+": the tenant is stored again", func() bool {
			_, err := c.Write(ctx, large)
			return err == nil
		})
		cancel()
	}
}

// The same of RemoteWrite, whose calls stay as long as the store hangs.
func TestHungTenantLeavesRemoteWritesTheirRoom(t *testing.T) {
	s, end := hanging(t, func(s *Server) { s.remote = newBudget(20<<20, remoteParts) })
	c := dialThanos(t, s.Addr().String())
	write := func(id string) func(context.Context) error {
		message := thanosMessage(5_000)
		message.Tenant = id
		return func(ctx context.Context) error {
			return c.conn.Invoke(ctx, "/thanos.WriteableStore/RemoteWrite", message, new(thanospb.WriteResponse))
		}
	}
	if err := giveUp(t, 20, write("hung")); status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), `"hung"`) {
		t.Errorf("%v; want it refused, with the tenant", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 20 {
		if err := write("other")(ctx); err != nil {
			t.Fatalf("another tenant's write: %v", err)
		}
	}
	end()
	eventually(t, "all is given back", func() bool {
		s.remote.tenantMemory.mu.Lock()
		defer s.remote.tenantMemory.mu.Unlock()
		return s.remote.tenantMemory.used == 0 && len(s.remote.tenantMemory.tenants) == 0
	})
}

// A tenant over its share waits while some of its writes end, and is refused when none does.
func TestClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTenantMemory(100)
		f := func(n int64, kind errs.Kind, waited time.Duration) {
			t.Helper()
			began := time.Now()
			if _, err := s.claim(t.Context(), "a", n); errs.KindOf(err) != kind || time.Since(began) != waited {
				t.Fatalf("%v after %s, want %s after %s", err, time.Since(began), kind, waited)
			}
		}
		f(30, errs.OK, 0)
		f(20, errs.OK, 0) // half of all
		go func() {
			for range 3 { // it moves, though never enough
				time.Sleep(hangsAfter / 2)
				s.giveBack("a", 10)
			}
		}()
		f(30, errs.OK, 3*hangsAfter/2)
		f(1, errs.Exhausted, hangsAfter)
		f(1, errs.Exhausted, 0) // nobody waits for it again
		if n, err := s.claim(t.Context(), "b", 25); n != 25 || err != nil {
			t.Fatal(n, err)
		}
		go func() {
			for range 10 { // what others finish is no progress of this tenant
				time.Sleep(hangsAfter / 4)
				s.giveBack("b", 1)
			}
		}()
		s.giveBack("a", 1)
		f(2, errs.Exhausted, hangsAfter)
		synctest.Wait()
		time.Sleep(10 * hangsAfter)
		s.giveBack("a", 49)
		f(40, errs.OK, 0)
		s.giveBack("a", 40)
		s.giveBack("b", 15)
		if s.used != 0 || len(s.tenants) != 0 {
			t.Errorf("%d bytes of %d tenants are left", s.used, len(s.tenants))
		}
	})
}
