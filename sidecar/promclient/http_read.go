package promclient

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Content types of responses to remote read.
const (
	streamedType = "application/x-streamed-protobuf; proto=prometheus.chunkedreadresponse"
	sampledType  = "application/x-protobuf"
)

// Answer is a response to Read: Frames or Samples.
type Answer struct {
	// Frames are the series as they come, in the order of Prometheus, which does not know of external labels. The caller
	// closes them.
	Frames *Frames
	// Samples are all series of a Prometheus that cannot stream them, ordered by labels; nil when there are Frames.
	Samples storage.SeriesSet
}

// Read asks for the series within [mint, maxt] (ms) that all matchers select. Prometheus adds external labels that a
// series has not itself. A response of samples, which comes as a whole, may have maxSampled bytes.
func (c *Client) Read(ctx context.Context, ms []*labels.Matcher, mint, maxt int64, maxSampled int64) (Answer, error) {
	query, err := remote.ToQuery(mint, maxt, ms, nil)
	if err != nil {
		return Answer{}, errs.Wrap(errs.Invalid, err)
	}
	forms := []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}
	request := prompb.ReadRequest{Queries: []*prompb.Query{query}, AcceptedResponseTypes: forms}
	raw, err := request.Marshal()
	if err != nil {
		return Answer{}, errs.Wrap(errs.Invalid, err)
	}
	resp, err := c.do(ctx, http.MethodPost, c.address("/api/v1/read", nil), snappy.Encode(nil, raw), http.Header{
		"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"},
		"X-Prometheus-Remote-Read-Version": {"0.1.0"},
	})
	if err != nil {
		return Answer{}, err
	}
	kind := strings.ToLower(resp.Header.Get("Content-Type"))
	switch {
	case strings.HasPrefix(kind, streamedType):
		return Answer{Frames: newFrames(resp.Body)}, nil
	case strings.HasPrefix(kind, sampledType):
		defer resp.Body.Close()
		samples, err := sampled(resp.Body, maxSampled)
		return Answer{Samples: samples}, err
	}
	resp.Body.Close()
	return Answer{}, errs.E(errs.Unavailable, "Prometheus answers remote read with content type %q", kind)
}

// sampled reads a response of samples. Its size is checked before it is decompressed.
func sampled(body io.Reader, most int64) (storage.SeriesSet, error) {
	packed, err := io.ReadAll(io.LimitReader(body, most+1))
	if err != nil {
		return nil, broken(err)
	}
	size, err := snappy.DecodedLen(packed)
	if err != nil {
		return nil, broken(err)
	}
	if int64(len(packed)) > most || int64(size) > most {
		return nil, errs.E(errs.Exhausted, "Prometheus answers with samples, which are read whole, and they have more than "+
			"%d bytes: select fewer series or a shorter time", most)
	}
	raw, err := snappy.Decode(nil, packed)
	if err != nil {
		return nil, broken(err)
	}
	var all prompb.ReadResponse
	if err := proto.Unmarshal(raw, &all); err != nil {
		return nil, broken(err)
	}
	if len(all.Results) != 1 {
		return nil, errs.E(errs.Unavailable, "the response of Prometheus has %d results instead of one", len(all.Results))
	}
	return remote.FromQueryResult(true, all.Results[0]), nil
}
