package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// silentPeers are clients that hold on to what they were given for as long as they are let: senders whose bodies do
// not come, and readers that take nothing of a remote read or a Series stream. Nobody else may notice them.
type silentPeers struct {
	bodies, reads, streams atomic.Int64 // begun
}

// surround starts silent clients, and begins each again whenever it is cut off, until the function it returns is
// called.
func (k *soak) surround() (_ *silentPeers, stop func()) {
	const senders, readers = 40, 8
	ctx, cancel := context.WithCancel(context.Background())
	p := &silentPeers{}
	var wg sync.WaitGroup
	again := func(n int, be func(context.Context) error) {
		for range n {
			wg.Go(func() {
				for ctx.Err() == nil {
					if be(ctx) != nil { // the process is away
						select {
						case <-time.After(time.Second):
						case <-ctx.Done():
						}
					}
				}
			})
		}
	}
	again(senders, func(ctx context.Context) error { return p.sendNothing(ctx, k.lb.pick().url) })
	header := k.load.shards[0].header()
	again(readers, func(ctx context.Context) error { return p.takeNoRead(ctx, k.query.url("/api/v1/read"), header) })
	again(readers,
		func(ctx context.Context) error { return p.takeNoStream(ctx, k.query.grpc, header.Get("X-Scope-OrgID")) })
	return p, func() { cancel(); wg.Wait() }
}

// hold keeps a connection, over which something was asked, until the other side or ctx ends it.
func hold(ctx context.Context, address string, request []byte) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	// A write to a connection that was cut off fails sooner or later; nothing is read.
	for tick := time.NewTicker(time.Second); ; <-tick.C {
		if ctx.Err() != nil {
			return nil
		}
		if _, err := conn.Write([]byte("\r")); err != nil {
			return nil
		}
	}
}

// sendNothing announces a body, of which a few bytes come.
func (p *silentPeers) sendNothing(ctx context.Context, to string) error {
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	p.bodies.Add(1)
	return hold(ctx, u.Host, fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: silent\r\n"+
		"Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\nContent-Length: 20000000\r\n\r\n%064d", u.Path, 0))
}

// takeNoRead asks for everything by remote read.
func (p *silentPeers) takeNoRead(ctx context.Context, from string, header http.Header) error {
	u, err := url.Parse(from)
	if err != nil {
		return err
	}
	request := &prompb.ReadRequest{
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS},
		Queries: []*prompb.Query{{EndTimestampMs: time.Now().UnixMilli(), Matchers: []*prompb.LabelMatcher{
			{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+"}}}},
	}
	raw, err := request.Marshal()
	if err != nil {
		return err
	}
	body := snappy.Encode(nil, raw)
	var b bytes.Buffer
	fmt.Fprintf(
		&b,
		"POST %s HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: %s\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n"+
			"X-Prometheus-Remote-Read-Version: 0.1.0\r\nContent-Length: %d\r\n\r\n%s",
		u.Path,
		header.Get("X-Scope-OrgID"),
		len(body),
		body,
	)
	p.reads.Add(1)
	return hold(ctx, u.Host, b.Bytes())
}

// takeNoStream asks for everything over StoreAPI, and does not look at the answer until the call is over.
func (p *silentPeers) takeNoStream(ctx context.Context, from, tenant string) error {
	conn, err := grpc.NewClient(from, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "hearth-tenant", tenant), time.Minute)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/thanos.Store/Series")
	if err != nil {
		return err
	}
	if err := s.SendMsg(&thanospb.SeriesRequest{MaxTime: math.MaxInt64, Matchers: []*thanospb.LabelMatcher{
		{Type: thanospb.LabelMatcher_RE, Name: "__name__", Value: ".+"}}}); err != nil && err != io.EOF {
		return err
	}
	p.streams.Add(1)
	<-s.Context().Done()
	return nil
}
