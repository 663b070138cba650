package sidecar

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/sidecar/promclient"
)

// frameSet is a streamed response as a series.Set. The data of chunks are those of the frames.
type frameSet struct {
	sidecar *Sidecar
	in      *promclient.Frames
	frame   promclient.Frame // the next one, if ahead is set
	ahead   bool
	ended   bool

	labels  frameLabels
	order   constantOrder
	at      series.Series
	last    labels.Labels // of the series before
	inOrder bool          // series have their final labels, and must be in order
	err     error
}

// newFrameSet makes a set whose series get the labels of added and lose those whose names are in drop. Without drop
// they stay as they come, and their order is that of labels which the caller does not see.
func newFrameSet(s *Sidecar, in *promclient.Frames, added labels.Labels, drop []string) *frameSet {
	set := &frameSet{sidecar: s, in: in, inOrder: drop != nil}
	set.labels = newFrameLabels(added, drop)
	set.order.last = set.labels.lastAdded()
	return set
}

// Next implements series.Set.
func (s *frameSet) Next() bool {
	for s.err == nil {
		if next, ok := s.order.take(s.ended); ok {
			return s.yield(next)
		}
		if s.ended {
			return false
		}
		own, one, ok := s.read()
		if !ok {
			s.ended = true
			continue
		}
		s.order.add(own, one)
	}
	return false
}

func (s *frameSet) yield(next series.Series) bool {
	if s.inOrder && !s.last.IsEmpty() && labels.Compare(s.last, next.Labels) >= 0 {
		// The external labels of Prometheus were changed after they were asked for.
		s.err = errs.E(errs.Unavailable, "the series of Prometheus are not in order (%s after %s): its external labels have "+
			"changed, try again", next.Labels, s.last)
		return false
	}
	s.at, s.last = next, next.Labels
	return true
}

// read reads the next series, of as many frames as it has. own are the labels that decide its place in the response.
func (s *frameSet) read() (own [][]byte, one series.Series, ok bool) {
	if !s.ahead && !s.fetch() {
		return nil, one, false
	}
	first := slices.Clone(s.frame.Labels)
	for s.ahead && sameLabels(first, s.frame.Labels) {
		for _, c := range s.frame.Chunks {
			if one.Chunks, s.err = s.appendChunk(one.Chunks, c); s.err != nil {
				return nil, one, false
			}
		}
		s.fetch()
	}
	if s.err != nil {
		return nil, one, false
	}
	own, one.Labels = s.labels.of(first)
	return own, one, true
}

// fetch reads the next frame.
func (s *frameSet) fetch() bool {
	err := s.in.Next(&s.frame)
	s.ahead = err == nil
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	if most := s.sidecar.opts.MaxBytes; s.err == nil && most > 0 && s.in.Bytes > most {
		s.ahead = false
		s.err = errs.E(errs.Limited, "the request reads more than %d bytes of Prometheus", most)
	}
	return s.ahead
}

func sameLabels(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// appendChunk appends c. One that readers do not know is written anew.
func (s *frameSet) appendChunk(to []series.Chunk, c series.Chunk) ([]series.Chunk, error) {
	if c.Raw.Encoding <= chunkenc.EncFloatHistogram {
		return append(to, c), nil
	}
	s.sidecar.m.reencode.Inc()
	anew, err := reencode(c)
	return append(to, anew...), err
}

// At implements series.Set.
func (s *frameSet) At() series.Series { return s.at }

// Err implements series.Set.
func (s *frameSet) Err() error { return s.err }

// Warnings implements series.Set. Remote read has no place for them.
func (s *frameSet) Warnings() series.Warnings { return nil }

// Close implements series.Set.
func (s *frameSet) Close() error {
	if s.in == nil {
		return nil
	}
	s.sidecar.m.frames.Observe(float64(s.in.Count))
	s.sidecar.m.bytes.Add(float64(s.in.Bytes))
	_ = s.in.Close() // the response is over for us, whether or not the connection ends well
	s.in, s.ended = nil, true
	return nil
}

// reencode writes the samples of a chunk in an encoding that all readers know. Start timestamps are lost.
func reencode(c series.Chunk) ([]series.Chunk, error) {
	chunk, err := chunkenc.FromData(c.Raw.Encoding, c.Raw.Data)
	if err != nil {
		return nil, errs.E(errs.Unavailable, "a chunk of Prometheus: %w", err)
	}
	return encode(&storage.SeriesEntry{SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
		return withoutStart{chunk.Iterator(nil)}
	}})
}

// withoutStart hides start timestamps, for which the library chooses encodings that not all readers know.
type withoutStart struct{ chunkenc.Iterator }

// AtST implements chunkenc.Iterator.
func (withoutStart) AtST() int64 { return 0 }

// encode makes chunks of all samples of a series.
func encode(s storage.Series) ([]series.Chunk, error) {
	var out []series.Chunk
	it := storage.NewSeriesToChunkEncoder(s).Iterator(nil)
	for it.Next() {
		meta := it.At()
		out = append(out, series.Chunk{MinTime: meta.MinTime, MaxTime: meta.MaxTime,
			Raw: series.Encoded{Encoding: meta.Chunk.Encoding(), Data: meta.Chunk.Bytes()}})
	}
	if err := it.Err(); err != nil {
		return nil, errs.E(errs.Unavailable, "samples of Prometheus: %w", err)
	}
	return out, nil
}
