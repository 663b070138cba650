package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/store/cache"
)

// question is what a selection is kept under: conditions in an order of their own, and a text that is the same only for
// the same conditions.
type question struct {
	conditions []*condition // by label name
	text       []byte
}

// newQuestion does not change the order of cs.
func newQuestion(cs []*condition) question {
	q := question{conditions: slices.Clone(cs)}
	slices.SortFunc(q.conditions, func(a, b *condition) int { return strings.Compare(a.name, b.name) })
	add := func(s string) {
		q.text = binary.AppendUvarint(q.text, uint64(len(s)))
		q.text = append(q.text, s...)
	}
	for _, c := range q.conditions {
		add(c.name)
		ms := slices.Clone(c.matchers)
		slices.SortFunc(ms, func(a, b *labels.Matcher) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), strings.Compare(a.Value, b.Value))
		})
		q.text = binary.AppendUvarint(q.text, uint64(len(ms)))
		for _, m := range ms {
			q.text = append(q.text, byte(m.Type))
			add(m.Value)
		}
	}
	return q
}

// entriesOf returns the series of a selection, decoded, if they are kept or may be: those of a question that was asked
// before, and not too many. Else known is false.
func (ix *blockIndex) entriesOf(ctx context.Context, s selection) (all []cache.Entry, known bool, err error) {
	if !s.again || len(s.refs) > cache.MostEntries {
		return nil, false, nil
	}
	id := ix.b.meta.ULID
	if all = ix.objects.cache.Entries(id, s.question); all != nil {
		tallyOf(ctx).touched[dataType(cache.Series)].add(len(all), 0) // nothing of the index is looked at
		return all, true, nil
	}
	all = make([]cache.Entry, 0, len(s.refs))
	var builder labels.ScratchBuilder
	sound := true
	for refs := s.refs; len(refs) > 0 && sound; {
		n, err := ix.series(ctx, refs, func(e *indexEntry) error {
			if ok, err := ix.meets(ctx, e, s.late); !ok || err != nil {
				return err
			}
			ls, err := ix.symbols.labels(ctx, e, &builder)
			if err != nil {
				return err
			}
			one := cache.Entry{Labels: ls, Chunks: slices.Clone(e.chunks)}
			all = append(all, one)
			return ix.lease.take(ctx, one.Size())
		}, func(error) { sound = false })
		if err != nil {
			return nil, false, err
		}
		refs = refs[n:]
	}
	if sound { // whoever reads faulty entries says so each time
		ix.objects.cache.PutEntries(id, s.question, all)
	}
	return all, sound, nil
}

// kept returns the selection that an earlier request found. Its references count against the lease.
func (ix *blockIndex) kept(ctx context.Context, q question) (s selection, ok bool, err error) {
	encoded := ix.objects.cache.Expanded(ctx, ix.b.meta.ULID, q.text)
	if encoded == nil {
		return selection{}, false, nil
	}
	if err := ix.lease.take(ctx, int64(encoded.Len())*refBytes); err != nil {
		return selection{}, false, err
	}
	s.question, s.again = q.text, true
	late, refs, ok := encoded.Decode()
	if !ok || late>>len(q.conditions) != 0 {
		return selection{}, false, nil // whatever it is, it is no answer to q
	}
	s.refs = refs
	for i, c := range q.conditions {
		if late>>i&1 == 1 {
			s.late = append(s.late, c)
		}
	}
	return s, true, nil
}

// keep keeps a selection for later requests, unless it has more conditions than there are bits for them.
func (ix *blockIndex) keep(q question, s selection) {
	if len(q.conditions) > 64 {
		return
	}
	late := uint64(0)
	for i, c := range q.conditions {
		if slices.Contains(s.late, c) {
			late |= 1 << i
		}
	}
	ix.objects.cache.PutExpanded(ix.b.meta.ULID, q.text, cache.NewSelection(late, s.refs))
}
