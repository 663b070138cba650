package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// serve opens a server on a free port with what register registers, and returns its address.
func serve(t testing.TB, register func(*Server)) string {
	t.Helper()
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), register)
	return s.Addr().String()
}

func newServer(t testing.TB, opts ServerOptions, reg *prometheus.Registry, register func(*Server)) *Server {
	t.Helper()
	d := DefaultServerOptions()
	d.Address, d.TLS, d.GracePeriod = "127.0.0.1:0", opts.TLS, 5*time.Second
	d.Observer = opts.Observer
	if opts.GracePeriod != 0 {
		d.GracePeriod = opts.GracePeriod
	}
	if opts.SendTimeout != 0 {
		d.SendTimeout = opts.SendTimeout
	}
	if opts.Address != "" {
		d.Address = opts.Address
	}
	s, err := NewServer(quiet, reg, d)
	if err != nil {
		t.Fatal(err)
	}
	register(s)
	if err := s.Open(context.Background(), func(err error) { t.Errorf("server failed: %v", err) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	return s
}

func dial(t testing.TB, addr string, opts ClientOptions) *Client {
	t.Helper()
	c, err := Dial(addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return c
}

// thanos is a client that knows nothing of Hearth.
type thanos struct {
	t    testing.TB
	conn *grpc.ClientConn
	md   []string // metadata of each call
}

func dialThanos(t testing.TB, addr string, md ...string) thanos {
	t.Helper()
	// No codec of ours: the messages go through google.golang.org/protobuf.
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return thanos{t, conn, md}
}

func (c thanos) context() context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), c.md...)
}

// series makes a Series call and returns the frames.
func (c thanos) series(req *thanospb.SeriesRequest, opts ...grpc.CallOption) ([]*thanospb.SeriesResponse, error) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.context())
	defer cancel()
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/thanos.Store/Series", opts...)
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg(req); err != nil {
		return nil, err
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	var frames []*thanospb.SeriesResponse
	for {
		f := new(thanospb.SeriesResponse)
		if err := s.RecvMsg(f); errors.Is(err, io.EOF) {
			return frames, nil
		} else if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

// list makes a Series call and returns the series' labels, in the order of the answer.
func (c thanos) list(req *thanospb.SeriesRequest) []string {
	c.t.Helper()
	frames, err := c.series(req)
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	add := func(s *thanospb.Series) {
		out = append(out, labelsFromPB(&thanospb.ZLabelSet{Labels: s.Labels}).String())
	}
	for _, f := range frames {
		if s := f.GetSeries(); s != nil {
			add(s)
		}
		for _, s := range f.GetBatch().GetSeries() {
			add(s)
		}
		if w := f.GetWarning(); w != "" {
			out = append(out, "warning: "+w)
		}
	}
	return out
}

func collect(t testing.TB, src series.Source, r *series.Request) ([]series.Series, series.Warnings, error) {
	t.Helper()
	set := src.Select(context.Background(), r)
	defer set.Close()
	var out []series.Series
	for set.Next() {
		out = append(out, set.At())
	}
	return out, set.Warnings(), set.Err()
}

func matcher(typ labels.MatchType, name, value string) *labels.Matcher {
	return labels.MustNewMatcher(typ, name, value)
}

func all() []*labels.Matcher {
	return []*labels.Matcher{matcher(labels.MatchRegexp, "__name__", ".+")}
}

// streamer gives a source streams.
type streamer struct {
	series.Source
	streams map[tenant.ID][]series.Stream
}

func (s streamer) Streams(id tenant.ID) []series.Stream { return s.streams[id] }
