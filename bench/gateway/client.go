package gateway

import (
	"context"
	"errors"
	"io"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// Client asks one StoreAPI, as a Thanos querier does.
type Client struct{ conn *grpc.ClientConn }

// Dial makes a client of a gRPC address. It connects at the first call.
func Dial(address string) (*Client, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	return &Client{conn}, err
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Answer is what a Series call gave.
type Answer struct {
	Series   []*thanospb.Series
	Warnings []string
	Hints    []byte // the message in the hints, nil without
	Bytes    int    // of all frames, as protobuf
}

// Series reads a whole answer. On an error it gives what came before.
func (c *Client) Series(ctx context.Context, req *thanospb.SeriesRequest) (*Answer, error) {
	out := &Answer{}
	err := c.frames(ctx, req, func(frame *thanospb.SeriesResponse) {
		out.Bytes += proto.Size(frame)
		if s := frame.GetSeries(); s != nil {
			out.Series = append(out.Series, s)
		}
		if b := frame.GetBatch(); b != nil {
			out.Series = append(out.Series, b.Series...)
		}
		if h := frame.GetHints(); h != nil {
			out.Hints = h.Value
		}
		if w := frame.GetWarning(); w != "" {
			out.Warnings = append(out.Warnings, w)
		}
	})
	return out, err
}

// Count reads a whole answer without keeping it, and returns how many series it has.
func (c *Client) Count(ctx context.Context, req *thanospb.SeriesRequest) (n int, err error) {
	err = c.frames(ctx, req, func(frame *thanospb.SeriesResponse) {
		if frame.GetSeries() != nil {
			n++
		}
		n += len(frame.GetBatch().GetSeries())
	})
	return n, err
}

// frames calls each with every frame of an answer.
func (c *Client) frames(ctx context.Context, req *thanospb.SeriesRequest, each func(*thanospb.SeriesResponse)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/thanos.Store/Series")
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil {
		return err
	}
	for {
		var frame thanospb.SeriesResponse
		if err := stream.RecvMsg(&frame); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		each(&frame)
	}
}

// LabelNames calls LabelNames.
func (c *Client) LabelNames(ctx context.Context,
	req *thanospb.LabelNamesRequest) (*thanospb.LabelNamesResponse, error) {
	out := &thanospb.LabelNamesResponse{}
	return out, c.conn.Invoke(ctx, "/thanos.Store/LabelNames", req, out)
}

// LabelValues calls LabelValues.
func (c *Client) LabelValues(ctx context.Context,
	req *thanospb.LabelValuesRequest) (*thanospb.LabelValuesResponse, error) {
	out := &thanospb.LabelValuesResponse{}
	return out, c.conn.Invoke(ctx, "/thanos.Store/LabelValues", req, out)
}

// Info calls Info.
func (c *Client) Info(ctx context.Context) (*infopb.InfoResponse, error) {
	out := &infopb.InfoResponse{}
	return out, c.conn.Invoke(ctx, "/thanos.info.Info/Info", &infopb.InfoRequest{}, out)
}
