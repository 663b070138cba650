package wire

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// allocated is how many bytes do allocates.
func allocated(do func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// hollow are frames that say more than they bring, by name. Each is of about size bytes.
func hollow(size int) map[string][]byte {
	head := func(version byte) []byte { return []byte{version, 1, 'a'} }
	claim := func(dst []byte, n int) []byte { return binary.AppendUvarint(dst, uint64(n)) }
	zeros := make([]byte, size)
	number := append(head(numberedVersion), 1, calledNew|shapeCounts, 8)
	number = append(number, "a\xffb\xffc\xffd\xff"...)
	number = append(number, 0, 0, 0, 0) // no items, no metadata
	again := bytes.Repeat([]byte{calledNumber | shapeCounts | 1<<headBits, 0, 0, 0}, size/4)
	oneSample := append([]byte{calledLabels, 4}, "a\xffb\xff"...)
	oneSample = append(oneSample, make([]byte, 9)...)
	return map[string][]byte{
		"numbered: a claim before zeros": append(claim(head(numberedVersion), size/minNumbered-16), zeros...),
		"numbered: many claims": append(
			head(numberedVersion),
			bytes.Repeat([]byte{0xff, 0xff, 0x3f}, size/3)...),
		"numbered: a claim before one": append(
			append(claim(head(numberedVersion), size/minNumbered-16), oneSample...),
			zeros...),
		"numbered: one number again":  append(claim(number, size/4), again...),
		"numbered: of no tenant":      append(claim([]byte{numberedVersion, 0}, size/minNumbered-16), zeros...),
		"plain: a claim before zeros": append(claim(head(shardVersion), size/minSeries-16), zeros...),
		"plain: a claim of samples": append(
			claim(append(claim(head(shardVersion), 1), 4, 'a', Sep, 'b', Sep, shapeCounts), size/minSample-16),
			zeros...),
		"plain: metadata with no texts":    append(claim(claim(head(shardVersion), 0), size/4-16), zeros...),
		"numbered: metadata with no texts": append(claim(claim(head(numberedVersion), 0), size/4-16), zeros...),
		"numbered: a claim of samples": append(
			claim(append(head(numberedVersion), 1, calledLabels|shapeCounts, 4, 'a', Sep, 'b', Sep), size/minSample-16),
			zeros...),
		"numbered: a claim of histograms": append(
			claim(append(head(numberedVersion), 1, calledLabels|shapeCounts, 4, 'a', Sep, 'b', Sep, 0), size/minHistogram-16),
			zeros...),
		"numbered: a claim of exemplars": append(
			claim(append(head(numberedVersion), 1, calledLabels|shapeCounts, 4, 'a', Sep, 'b', Sep, 0, 0), size/minExemplar-16),
			zeros...),
		"numbered: of another tenant's name": append(claim(append(append([]byte{}, number...), 0), 0), zeros...),
	}
}

// What a decoded frame takes is bounded by what it brings, not by what it says of itself: neither many series that are
// only claimed, nor many that are empty, take more than a frame of that size is granted.
func TestFrameMemoryIsForWhatCame(t *testing.T) {
	const size = 8 << 20
	for name, frame := range hollow(size) {
		runtime.GC() // a pooled batch has its memory already; two collections empty the pool
		runtime.GC()
		var err error
		took := allocated(func() {
			var b *Batch
			if b, err = decodeEither(frame); b != nil {
				b.Release()
			}
		})
		// Arenas grow by doubling: what they had before is garbage, and counts here.
		if most := 4*FrameMemory(len(frame)) + 1<<20; took > most {
			t.Errorf("%s: %d MiB allocated for %d MiB (%v), may be %d", name, took>>20, len(frame)>>20, err, most>>20)
		}
	}
	for _, name := range []string{"numbered: a claim before zeros", "numbered: a claim before one", "numbered: of no tenant", "plain: a claim before zeros"} {
		claim := hollow(size)[name]
		if took := allocated(func() { _, _ = decodeEither(claim) }); took > size {
			t.Errorf("%s: %d MiB allocated for a claim of %d MiB", name, took>>20, size>>20)
		}
	}
}

// A compressed message of a few bytes may be a large frame. It takes no more than one of that size.
func TestFrameMemoryOfCompressible(t *testing.T) {
	frame := hollow(64 << 20)["numbered: one number again"]
	if small := len(snappy.Encode(nil, frame)); small > len(frame)/16 {
		t.Fatalf("%d bytes compressed: this is to be a small message", small)
	}
	var err error
	took := allocated(func() { _, err = decodeEither(frame) })
	if errs.KindOf(err) != errs.TooLarge {
		t.Errorf("error %v, want TooLarge", err)
	}
	if took > 6*maxFrameMemory { // arenas grow by doubling, and with the race detector more
		t.Errorf("%d MiB allocated, a frame may take %d", took>>20, maxFrameMemory>>20)
	}
}

func decodeEither(frame []byte) (*Batch, error) {
	if len(frame) > 0 && frame[0] == numberedVersion {
		d := NewStreamDecoder(NewSharedSeries(0))
		defer d.Close()
		return d.Decode(frame)
	}
	return DecodeShard(frame)
}

// The frames of a good sender are far below the bound, whatever they are of.
func TestFrameMemoryOfGoodFrames(t *testing.T) {
	for name, fill := range map[string]func(*Series){
		"one sample": func(s *Series) { s.Samples = append(s.Samples, Sample{T: 1, V: 1}) },
		"histograms": func(s *Series) {
			for i := range 20 {
				s.Histograms = append(s.Histograms, Histogram{T: int64(i), H: &histogram.Histogram{
					PositiveSpans: []histogram.Span{{Length: 8}}, PositiveBuckets: make([]int64, 8),
				}})
			}
		},
		"nothing": func(*Series) {},
	} {
		b := NewBatch("a")
		for i := range 1000 {
			s := b.Add(labels.FromStrings("__name__", "up", "i", string(rune('a'+i))))
			fill(s)
		}
		payload := NewStreamEncoder()
		frame, _ := payload.Add(payload.Begin(nil, b.Tenant), All(b))
		got, err := decodeEither(frame)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if took, may := got.Content(), FrameMemory(len(frame)); took > may && name != "nothing" {
			t.Errorf("%s: %d bytes of memory for a frame of %d, which is granted %d", name, took, len(frame), may)
		}
		got.Release()
	}
}

// FuzzFrameMemory: whatever a frame says, it takes no more memory than a frame of its size is granted.
func FuzzFrameMemory(f *testing.F) {
	for _, frame := range hollow(1 << 10) {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		took := allocated(func() {
			if b, err := decodeEither(frame); err == nil {
				b.Release()
			}
		})
		if most := 4*FrameMemory(len(frame)) + 1<<20; took > most {
			t.Errorf("%d bytes allocated for a frame of %d, may be %d", took, len(frame), most)
		}
	})
}
