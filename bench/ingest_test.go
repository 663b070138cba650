package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb"
)

const (
	perRequest = 2000
	requests   = 10 // one scrape of 20,000 series
	labelCount = 12
)

// message is an uncompressed remote-write 1.0 request whose timestamps can be set in place.
type message struct {
	bytes []byte
	at    []int // offsets of timestamps, each a varint of stampSize bytes
}

const stampSize = 6 // of Unix ms from 2004 until 2109

func newMessage(request int, now int64) *message {
	req := &prompb.WriteRequest{}
	for i := range perRequest {
		ts := prompb.TimeSeries{Samples: []prompb.Sample{{Value: float64(i), Timestamp: now}}}
		ts.Labels = append(ts.Labels,
			prompb.Label{Name: "__name__", Value: fmt.Sprintf("http_request_duration_seconds_%d", i%50)})
		for l := 1; l < labelCount; l++ {
			ts.Labels = append(ts.Labels, prompb.Label{Name: fmt.Sprintf("label_%02d", l),
				Value: fmt.Sprintf("value-%02d-%06d", l, (request*perRequest+i)/l)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	raw, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	m := &message{bytes: raw}
	stamp := binary.AppendUvarint([]byte{0x10}, uint64(now))
	for from := 0; ; {
		i := bytes.Index(raw[from:], stamp)
		if i < 0 {
			break
		}
		m.at = append(m.at, from+i+1)
		from += i + len(stamp)
	}
	if len(m.at) != perRequest {
		panic(fmt.Sprintf("BUG: %d timestamps found in a message of %d", len(m.at), perRequest))
	}
	return m
}

func (m *message) setTime(t int64) {
	for _, at := range m.at {
		binary.PutUvarint(m.bytes[at:at+stampSize], uint64(t))
	}
}

// BenchmarkIngest takes requests from their uncompressed bytes into the WAL of one tenant: decode, cached reference,
// append, commit. All series are known after the first round. One operation is one sample; snappy adds BenchmarkSnappy.
func BenchmarkIngest(b *testing.B) {
	now := time.Now()
	opts := tsdb.DefaultOptions()
	opts.Dir = b.TempDir()
	opts.Now = func() time.Time { return now }
	db, err := tsdb.New(slog.New(slog.DiscardHandler), nil, opts)
	if err != nil {
		b.Fatal(err)
	}
	if err := db.Open(context.Background(), func(err error) { b.Error(err) }); err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	var messages []*message
	for r := range requests {
		messages = append(messages, newMessage(r, now.UnixMilli()))
	}
	write := func(m *message) {
		batch, err := wire.DecodeV1(tenant.Default, m.bytes)
		if err != nil {
			b.Fatal(err)
		}
		failed, err := db.Append(context.Background(), wire.All(batch))
		if err != nil || len(failed) > 0 || len(batch.Rejected) > 0 {
			b.Fatal(err, failed, batch.Rejected)
		}
		batch.Release()
	}
	for _, m := range messages {
		write(m)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += perRequest {
		round := n / perRequest
		if round%requests == 0 {
			now = now.Add(15 * time.Second)
		}
		m := messages[round%requests]
		m.setTime(now.UnixMilli())
		write(m)
	}
}

// BenchmarkSnappy is the decompression of the same requests; one operation is one sample.
func BenchmarkSnappy(b *testing.B) {
	m := newMessage(0, time.Now().UnixMilli())
	body := s2.EncodeSnappy(nil, m.bytes)
	b.ReportMetric(float64(len(m.bytes))/perRequest, "bytes/series")
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += perRequest {
		buf := wire.GetBuffer()
		if _, err := buf.ReadSnappy(bytes.NewReader(body), 1<<26, 1<<28); err != nil {
			b.Fatal(err)
		}
		wire.PutBuffer(buf)
	}
}
