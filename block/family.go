package block

import (
	"encoding/binary"
	"maps"
	"reflect"
	"slices"
)

// Families divides blocks by their external labels, so that only blocks of one family can replace each other: Replaced
// of all blocks is what Replaced of each family says. The zero value knows of no labels that were removed.
type Families struct {
	removed map[string]bool // labels that compactions removed, as their blocks say
}

// FamiliesOf are the families of metas.
func FamiliesOf(metas []*Meta) Families {
	f := Families{map[string]bool{}}
	for _, m := range metas {
		if m.Origin != nil {
			for _, name := range m.Origin.Removed {
				f.removed[name] = true
			}
		}
	}
	return f
}

// Fits reports whether m can be added to the blocks that f is of. Otherwise m says of further labels that they were
// removed, and blocks of different families may belong together.
func (f Families) Fits(m *Meta) bool {
	return m.Origin == nil || !slices.ContainsFunc(m.Origin.Removed, func(name string) bool { return !f.removed[name] })
}

// Of is a text that the blocks of a family, and no others, have in common.
func (f Families) Of(m *Meta) string { return keyWithout(m.Thanos.Labels, f.removed) }

// Group returns the blocks of each family, in the order of metas.
func (f Families) Group(metas []*Meta) map[string][]*Meta {
	families, keys := map[string][]*Meta{}, map[uintptr]string{}
	for _, m := range metas {
		at := reflect.ValueOf(m.Thanos.Labels).Pointer() // many blocks share one map
		key, ok := keys[at]
		if !ok {
			key = f.Of(m)
			keys[at] = key
		}
		families[key] = append(families[key], m)
	}
	return families
}

// keyWithout stands for the labels that are not removed.
func keyWithout(labels map[string]string, removed map[string]bool) string {
	var key []byte
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if !removed[name] {
			key = binary.AppendUvarint(key, uint64(len(name)))
			key = append(key, name...)
			key = binary.AppendUvarint(key, uint64(len(labels[name])))
			key = append(key, labels[name]...)
		}
	}
	return string(key)
}
