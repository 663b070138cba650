package merge

import (
	"github.com/cespare/xxhash/v2"
)

// Tee returns a Sink that hands everything to each of sinks, in their order.
func Tee(sinks ...Sink) Sink { return tee(sinks) }

type tee []Sink

func (t tee) each(f func(Sink) error) error {
	for _, s := range t {
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

func (t tee) Begin(symbols Symbols) error {
	return t.each(func(s Sink) error { return s.Begin(symbols) })
}
func (t tee) Add(x *Series) error { return t.each(func(s Sink) error { return s.Add(x) }) }
func (t tee) End() error          { return t.each(func(s Sink) error { return s.End() }) }

// Split returns a Sink that hands each series to the one of parts that its hash names: Hash modulo the number of parts.
// Which part a series is in is part of the format of split blocks (docs/format/split-blocks.md).
func Split(parts ...Sink) Sink { return &split{tee: parts} }

type split struct {
	tee
	hash hasher
}

func (s *split) Begin(symbols Symbols) error {
	s.hash.symbols = symbols
	return s.tee.Begin(symbols)
}

func (s *split) Add(x *Series) error {
	return s.tee[s.hash.of(x.Symbols)%uint64(len(s.tee))].Add(x)
}

// Hash is labels.StableHash of the labels that numbers stand for: name, value, name, value, ...
func Hash(symbols Symbols, numbers []uint32) uint64 {
	h := hasher{symbols: symbols}
	return h.of(numbers)
}

type hasher struct {
	symbols Symbols
	buf     []byte
}

// of is the XXH64 of each name and value with 0xff behind it.
func (h *hasher) of(numbers []uint32) uint64 {
	h.buf = h.buf[:0]
	for _, n := range numbers {
		h.buf = append(h.buf, h.symbols.At(n)...)
		h.buf = append(h.buf, 0xff)
	}
	return xxhash.Sum64(h.buf)
}
