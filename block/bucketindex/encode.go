package bucketindex

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	magic   = "HBIX"
	version = 2
	// without is the version before Block had an Origin. It is read, and no longer written.
	without = 1
)

// The bounds of a content. 100,000 blocks take about 4 MB, and 10 MB before they are compressed.
const (
	// MaxSize is the largest content, in bytes.
	MaxSize = 64 << 20
	// maxBody is the largest content before it is compressed, in bytes.
	maxBody = 128 << 20
	// maxMemory bounds what a decoded content takes, in bytes: a hostile one may have many tiny entries.
	maxMemory = 1 << 30
)

// The flags of a block.
const (
	flagDeletable   = 1 << iota // Compaction.Deletable
	flagFailed                  // Compaction.Failed
	flagOwnSource               // the only source is the block itself
	flagNoUploaded              // Uploaded is unknown
	flagOrigin                  // there is an Origin
	flagSameSources             // its sources are those of Compaction
)

// Encode returns the content for ix. Its error, of kind Invalid, says that it is too large.
func Encode(ix Index) ([]byte, error) {
	e := encoder{strings: map[string]uint64{}, sets: map[string]uint64{}}
	blocks := e.blocks(ix.Blocks)
	rest := e.rest(ix.Rest)
	body := binary.AppendUvarint(nil, uint64(len(e.strings)))
	body = append(body, e.stringTable...)
	body = binary.AppendUvarint(body, uint64(len(e.sets)))
	body = slices.Concat(body, e.setTable, blocks, rest)
	tooLarge := func(n int, what string) error {
		return errs.E(errs.Invalid, "index of %d blocks: %d bytes %s: larger than what is read", len(ix.Blocks), n, what)
	}
	if len(body) > maxBody {
		return nil, tooLarge(len(body), "before compression")
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	defer z.Close()
	out := append([]byte(magic), version)
	out = binary.AppendUvarint(out, uint64(len(body)))
	out = z.EncodeAll(body, out)
	if len(out) > MaxSize {
		return nil, tooLarge(len(out), "compressed")
	}
	return out, nil
}

// encoder numbers the strings and the sets of labels in the order in which they are first used.
type encoder struct {
	strings, sets         map[string]uint64
	stringTable, setTable []byte
	pairs                 []byte   // of one set
	names                 []string // of one set
}

func (e *encoder) str(s string) uint64 {
	n, ok := e.strings[s]
	if !ok {
		n = uint64(len(e.strings))
		e.strings[s] = n
		e.stringTable = binary.AppendUvarint(e.stringTable, uint64(len(s)))
		e.stringTable = append(e.stringTable, s...)
	}
	return n
}

func (e *encoder) labels(m map[string]string) uint64 {
	e.pairs = binary.AppendUvarint(e.pairs[:0], uint64(len(m)))
	e.names = slices.AppendSeq(e.names[:0], maps.Keys(m))
	slices.Sort(e.names)
	for _, name := range e.names {
		e.pairs = binary.AppendUvarint(e.pairs, e.str(name))
		e.pairs = binary.AppendUvarint(e.pairs, e.str(m[name]))
	}
	n, ok := e.sets[string(e.pairs)]
	if !ok {
		n = uint64(len(e.sets))
		e.sets[string(e.pairs)] = n
		e.setTable = append(e.setTable, e.pairs...)
	}
	return n
}

func (e *encoder) blocks(blocks []Block) []byte {
	b := binary.AppendUvarint(nil, uint64(len(blocks)))
	var last int64
	for i := range blocks {
		m := &blocks[i]
		c := &m.Compaction
		flags := uint64(0)
		set := func(flag uint64, on bool) {
			if on {
				flags |= flag
			}
		}
		set(flagDeletable, c.Deletable)
		set(flagFailed, c.Failed)
		set(flagOwnSource, len(c.Sources) == 1 && c.Sources[0] == m.ULID)
		set(flagNoUploaded, m.Uploaded == 0)
		same := m.Origin != nil && slices.Equal(m.Origin.Sources, c.Sources)
		set(flagOrigin, m.Origin != nil)
		set(flagSameSources, same)
		b = append(b, m.ULID[:]...)
		b = binary.AppendUvarint(b, flags)
		b = binary.AppendVarint(b, m.MinTime-last)
		last = m.MinTime
		for _, v := range []uint64{
			uint64(m.MaxTime - m.MinTime), e.labels(m.Labels), uint64(m.Resolution), uint64(c.Level), e.str(m.Source),
			m.Stats.NumSamples, m.Stats.NumFloatSamples, m.Stats.NumHistogramSamples, m.Stats.NumSeries, m.Stats.NumChunks,
			m.Stats.NumTombstones, uint64(m.SeriesMaxSize), uint64(m.ChunkMaxSize),
		} {
			b = binary.AppendUvarint(b, v)
		}
		if flags&flagNoUploaded == 0 {
			b = binary.AppendVarint(b, m.Uploaded-m.MaxTime) // small, as blocks are uploaded when their time is over
		}
		if flags&flagOwnSource == 0 {
			b = binary.AppendUvarint(b, uint64(len(c.Sources)))
			for _, id := range c.Sources {
				b = append(b, id[:]...)
			}
		}
		b = binary.AppendUvarint(b, uint64(len(c.Hints)))
		for _, h := range c.Hints {
			b = binary.AppendUvarint(b, e.str(h))
		}
		b = binary.AppendUvarint(b, uint64(len(m.Files)))
		for _, f := range m.Files {
			b = binary.AppendUvarint(b, e.str(f.Path))
			b = binary.AppendUvarint(b, uint64(f.Size))
		}
		if m.Origin != nil {
			b = e.origin(b, m, same)
		}
	}
	return b
}

func (e *encoder) rest(r Rest) []byte {
	b := binary.AppendUvarint(nil, uint64(len(r.Marks)))
	for _, m := range r.Marks {
		b = append(b, m.ID[:]...)
		kind := uint64(m.Kind) << 1
		if m.Own {
			kind |= 1
		}
		b = binary.AppendUvarint(b, kind)
		b = binary.AppendVarint(b, m.At)
		b = binary.AppendUvarint(b, e.str(m.Reason))
		b = binary.AppendUvarint(b, e.str(m.Details))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Leftovers)))
	for _, l := range r.Leftovers {
		b = append(b, l.ID[:]...)
		b = binary.AppendVarint(b, l.Since)
	}
	return b
}
