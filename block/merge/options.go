package merge

import (
	"errors"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// DefaultMemory is what Run, and each BlockWriter, uses if nothing else is said, in bytes.
const DefaultMemory = 128 << 20

// minMemory is the least that works, in bytes.
const minMemory = 64 << 10

// Options of a Run.
type Options struct {
	// Scratch is a directory for scratch files. They have no names, so nothing is left behind. Needed.
	Scratch string
	// Memory bounds the bytes that the merge keeps; 0 = DefaultMemory. One series with all its chunks comes on top, and
	// what the Sink keeps. It does not change a byte of the result. With less, symbols are kept on disk.
	Memory int64
	// MinTime and MaxTime (ms, MaxTime exclusive) bound the samples of the result. Both 0 = the union of the ranges of
	// the inputs. A sample outside is left out and counted (Result.Clipped); a downsampled chunk is left out only if all
	// of it is outside.
	MinTime, MaxTime int64
	// ReplicaLabels are external labels in which the HA replicas of a source differ. Inputs that differ in them are merged
	// as a query does (docs/design/013-ha-dedup.md), where their samples differ. Empty = all inputs are united.
	ReplicaLabels []string
}

// Validate reports what is wrong, as kind Invalid.
func (o Options) Validate() error {
	var faults []error
	if o.Scratch == "" {
		faults = append(faults, errors.New("no directory for scratch files"))
	}
	if o.Memory < 0 || o.Memory > 0 && o.Memory < minMemory {
		faults = append(faults, errs.E(errs.Invalid, "memory of %d bytes, need %d", o.Memory, minMemory))
	}
	if o.MinTime > o.MaxTime {
		faults = append(faults, errs.E(errs.Invalid, "from %d to %d", o.MinTime, o.MaxTime))
	}
	return errs.Wrap(errs.Invalid, errors.Join(faults...))
}

// withDefaults fills in what is 0.
func (o Options) withDefaults(inputs []Input) Options {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.MinTime == 0 && o.MaxTime == 0 && len(inputs) > 0 {
		o.MinTime, o.MaxTime = rangeOf(inputs[0].Meta)
		for _, in := range inputs[1:] {
			from, to := rangeOf(in.Meta)
			o.MinTime, o.MaxTime = min(o.MinTime, from), max(o.MaxTime, to)
		}
	}
	return o
}

func rangeOf(m *block.Meta) (from, to int64) { return m.MinTime, m.MaxTime }

// Result is what a Run has done.
type Result struct {
	// Series went to the sink. Copied of their chunks are those of inputs, byte for byte.
	Series, Chunks, Copied int64
	// Equal is the number of chunks that were left out because another input has the same.
	Equal int64
	// Decoded is the number of chunks of inputs that were decoded, since they overlap others, cross the range, or have an
	// encoding that not every reader knows.
	Decoded int64
	// Clipped is the number of samples that were left out because they are outside the range. Those of chunks that are
	// outside as a whole are counted as the chunk says.
	Clipped int64
}
