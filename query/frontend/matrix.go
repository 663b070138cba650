package frontend

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"unsafe"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/jsonutil"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// matrix is what a range query answers for the steps of a piece.
type matrix struct {
	piece
	step   int64 // ms
	series []column
	infos  []string
}

// column is one series of a matrix.
type column struct {
	metric string // its labels as the API writes them
	at     []int32
	values []float64
	histAt []int32
	hists  [][]byte // the histogram as the API writes it
}

// answer is the body of an answer of the API.
type answer struct {
	matrix
	warnings []string
}

// readAnswer reads an answer to a range query with the steps of p. The error is of kind Internal: what it is not was
// not written by Prometheus's API.
func readAnswer(body []byte, p piece, step int64) (a answer, err error) {
	a.matrix = matrix{piece: p, step: step}
	it := jsoniter.ConfigCompatibleWithStandardLibrary.BorrowIterator(body)
	defer jsoniter.ConfigCompatibleWithStandardLibrary.ReturnIterator(it)
	status, kind := "", ""
	for name := it.ReadObject(); name != ""; name = it.ReadObject() {
		switch name {
		case "status":
			status = it.ReadString()
		case "warnings":
			a.warnings = readStrings(it)
		case "infos":
			a.infos = readStrings(it)
		case "data":
			for name := it.ReadObject(); name != ""; name = it.ReadObject() {
				switch name {
				case "resultType":
					kind = it.ReadString()
				case "result":
					for it.ReadArray() {
						a.series = append(a.series, readColumn(it, p, step))
					}
				default:
					it.Skip()
				}
			}
		default:
			it.Skip()
		}
	}
	switch {
	case it.Error != nil && it.Error.Error() != "EOF":
		return a, errs.E(errs.Internal, "an answer that cannot be read: %w", it.Error)
	case status != "success" || kind != "matrix":
		return a, errs.E(errs.Internal, "an answer with status %q and type %q", status, kind)
	}
	return a, nil
}

func readStrings(it *jsoniter.Iterator) (all []string) {
	for it.ReadArray() {
		all = append(all, it.ReadString())
	}
	return all
}

// readColumn reads one series. Faults are reported to it.
func readColumn(it *jsoniter.Iterator, p piece, step int64) (c column) {
	for name := it.ReadObject(); name != ""; name = it.ReadObject() {
		switch name {
		case "metric":
			c.metric = string(it.SkipAndReturnBytes())
		case "values":
			for it.ReadArray() {
				at, ok := readStep(it, p, step, c.at)
				if !ok {
					return c
				}
				text := it.ReadStringAsSlice()
				v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), 64)
				if err != nil {
					it.ReportError("value", err.Error())
				}
				c.at, c.values = append(c.at, at), append(c.values, v)
				it.ReadArray()
			}
		case "histograms":
			for it.ReadArray() {
				at, ok := readStep(it, p, step, c.histAt)
				if !ok {
					return c
				}
				c.histAt, c.hists = append(c.histAt, at), append(c.hists, bytes.Clone(it.SkipAndReturnBytes()))
				it.ReadArray()
			}
		default:
			it.Skip()
		}
		if it.Error != nil {
			return c
		}
	}
	return c
}

// readStep reads the beginning of a sample: which step of p it is of. It must come after the steps before.
func readStep(it *jsoniter.Iterator, p piece, step int64, before []int32) (at int32, ok bool) {
	it.ReadArray()
	t := int64(math.Round(it.ReadFloat64() * 1000))
	it.ReadArray()
	n := (t - p.from) / step
	switch {
	case it.Error != nil:
		return 0, false
	case t < p.from || t > p.to || (t-p.from)%step != 0 || len(before) > 0 && int32(n) <= before[len(before)-1]:
		it.ReportError("sample", "its time "+strconv.FormatInt(t, 10)+" is that of no step, or out of order")
		return 0, false
	}
	return int32(n), true
}

// slice is the part of m that has the steps of p, of which m must have all. It shares memory with m.
func (m matrix) slice(p piece) matrix {
	out := matrix{piece: p, step: m.step, infos: m.infos}
	first, last := int32((p.from-m.from)/m.step), int32((p.to-m.from)/m.step)
	if first == 0 && p.to == m.to {
		return m
	}
	for _, c := range m.series {
		if c = c.slice(first, last); len(c.at)+len(c.histAt) > 0 {
			out.series = append(out.series, c)
		}
	}
	return out
}

// slice is the part of c from one step to another, both included, whose first step is number 0.
func (c column) slice(first, last int32) column {
	i, _ := slices.BinarySearch(c.at, first)
	j, _ := slices.BinarySearch(c.at, last+1)
	k, _ := slices.BinarySearch(c.histAt, first)
	l, _ := slices.BinarySearch(c.histAt, last+1)
	out := column{metric: c.metric, values: c.values[i:j], hists: c.hists[k:l]}
	out.at, out.histAt = moved(c.at[i:j], -first), moved(c.histAt[k:l], -first)
	return out
}

// moved is a copy of at in which each step is by further on.
func moved(at []int32, by int32) []int32 {
	out := make([]int32, len(at))
	for i, n := range at {
		out[i] = n + by
	}
	return out
}

// join puts pieces together, in whatever order, between which no step is missing. It changes the order of the slice.
func join(pieces []matrix) (out matrix) {
	if len(pieces) == 1 {
		return pieces[0]
	}
	slices.SortFunc(pieces, func(a, b matrix) int { return cmp.Compare(a.from, b.from) })
	out = matrix{piece: piece{pieces[0].from, pieces[len(pieces)-1].to}, step: pieces[0].step}
	at := map[string]int{}
	for _, m := range pieces {
		by := int32((m.from - out.from) / out.step)
		for _, info := range m.infos {
			if !slices.Contains(out.infos, info) {
				out.infos = append(out.infos, info)
			}
		}
		for _, c := range m.series {
			n, found := at[c.metric]
			if !found {
				n = len(out.series)
				at[c.metric] = n
				out.series = append(out.series, column{metric: c.metric})
			}
			to := &out.series[n]
			to.at, to.values = append(to.at, moved(c.at, by)...), append(to.values, c.values...)
			to.histAt, to.hists = append(to.histAt, moved(c.histAt, by)...), append(to.hists, c.hists...)
		}
	}
	order(out.series)
	return out
}

// order sorts series as Prometheus does, by their labels.
func order(all []column) {
	type keyed struct {
		labels.Labels
		column
	}
	in := make([]keyed, len(all))
	b := labels.NewScratchBuilder(16)
	for i, c := range all {
		in[i] = keyed{parseMetric(&b, c.metric), c}
	}
	slices.SortFunc(in, func(a, b keyed) int { return labels.Compare(a.Labels, b.Labels) })
	for i := range in {
		all[i] = in[i].column
	}
}

// parseMetric reads labels as the API writes them.
func parseMetric(b *labels.ScratchBuilder, text string) labels.Labels {
	it := jsoniter.ConfigCompatibleWithStandardLibrary.BorrowIterator([]byte(text))
	defer jsoniter.ConfigCompatibleWithStandardLibrary.ReturnIterator(it)
	b.Reset()
	it.ReadObjectCB(func(it *jsoniter.Iterator, name string) bool {
		b.Add(name, it.ReadString())
		return true
	})
	b.Sort()
	return b.Labels()
}

// write writes an answer as Prometheus's API does.
func (a answer) write(out *jsoniter.Stream) {
	out.WriteRaw(`{"status":"success","data":{"resultType":"matrix","result":[`)
	for i, c := range a.series {
		if i > 0 {
			out.WriteMore()
		}
		c.write(out, a.from, a.step)
		if out.Buffered() > 1<<16 {
			_ = out.Flush() // its error stays in the stream
		}
	}
	out.WriteRaw(`]}`)
	writeStrings(out, "warnings", a.warnings)
	writeStrings(out, "infos", a.infos)
	out.WriteRaw(`}`)
}

func writeStrings(out *jsoniter.Stream, name string, all []string) {
	if len(all) == 0 {
		return
	}
	out.WriteMore()
	out.WriteObjectField(name)
	out.WriteVal(all)
}

func (c column) write(out *jsoniter.Stream, from, step int64) {
	out.WriteRaw(`{"metric":`)
	out.WriteRaw(c.metric)
	for i, n := range c.at {
		if i == 0 {
			out.WriteRaw(`,"values":[[`)
		} else {
			out.WriteRaw(`,[`)
		}
		jsonutil.MarshalTimestamp(from+int64(n)*step, out)
		out.WriteMore()
		jsonutil.MarshalFloat(c.values[i], out)
		out.WriteRaw(`]`)
	}
	if len(c.at) > 0 {
		out.WriteRaw(`]`)
	}
	for i, n := range c.histAt {
		if i == 0 {
			out.WriteRaw(`,"histograms":[[`)
		} else {
			out.WriteRaw(`,[`)
		}
		jsonutil.MarshalTimestamp(from+int64(n)*step, out)
		out.WriteMore()
		out.WriteRaw(unsafe.String(unsafe.SliceData(c.hists[i]), len(c.hists[i])))
		out.WriteRaw(`]`)
	}
	if len(c.histAt) > 0 {
		out.WriteRaw(`]`)
	}
	out.WriteRaw(`}`)
}

// bytes is roughly how much memory m takes.
func (m matrix) bytes() (n int64) {
	for _, c := range m.series {
		n += int64(128 + len(c.metric) + 12*len(c.at) + 28*len(c.histAt))
		for _, h := range c.hists {
			n += int64(len(h))
		}
	}
	return n
}
