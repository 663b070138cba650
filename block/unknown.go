package block

import (
	"bytes"
	"encoding"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// keepUnknown returns now, the JSON of a value of type t, with those fields of old that t does not have, at each level.
// old is the JSON that the value was read from. An entry of a list takes the fields of an equal entry of old; one that
// was changed is another entry. Where old has another form than t, nothing of it is kept.
func keepUnknown(old, now json.RawMessage, t reflect.Type) json.RawMessage {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Struct && !reads(t):
		return keepFields(old, now, t)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && !reads(t.Elem()):
		return keepEntries(old, now, t.Elem())
	}
	return now
}

// reads reports whether a type reads its JSON itself: it has no fields for others then.
func reads(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func keepFields(old, now json.RawMessage, t reflect.Type) json.RawMessage {
	var before map[string]json.RawMessage
	if json.Unmarshal(old, &before) != nil {
		return now
	}
	known := map[string]reflect.Type{} // by the name in lower case, as names are matched in any case
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && f.IsExported() {
			known[strings.ToLower(name)] = f.Type
		}
	}
	byName := map[string]json.RawMessage{}
	unknown := maps.Clone(before)
	for name, value := range before {
		if lower := strings.ToLower(name); known[lower] != nil {
			byName[lower] = value
			delete(unknown, name)
		}
	}
	var out bytes.Buffer
	field := func(name string, value json.RawMessage) {
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		quoted, _ := json.Marshal(name) // text always has a JSON form
		out.Write(quoted)
		out.WriteByte(':')
		out.Write(value)
	}
	out.WriteByte('{')
	d := json.NewDecoder(bytes.NewReader(now))
	_, _ = d.Token() // {
	for d.More() {   // now is what this package encoded, so it has no faults
		name, _ := d.Token()
		var value json.RawMessage
		_ = d.Decode(&value)
		key := strings.ToLower(name.(string))
		if o, ok := byName[key]; ok {
			value = keepUnknown(o, value, known[key])
		}
		field(name.(string), value)
	}
	for _, name := range slices.Sorted(maps.Keys(unknown)) {
		field(name, unknown[name])
	}
	out.WriteByte('}')
	return out.Bytes()
}

func keepEntries(old, now json.RawMessage, t reflect.Type) json.RawMessage {
	var before, after []json.RawMessage
	if json.Unmarshal(old, &before) != nil || json.Unmarshal(now, &after) != nil {
		return now
	}
	same := map[string]json.RawMessage{} // by what an entry is without the unknown fields
	for _, entry := range before {
		v := reflect.New(t)
		if json.Unmarshal(entry, v.Interface()) == nil {
			if key, err := json.Marshal(v.Interface()); err == nil {
				same[string(key)] = entry
			}
		}
	}
	for i, entry := range after {
		if o, ok := same[string(entry)]; ok {
			after[i] = keepUnknown(o, entry, t)
		}
	}
	out, err := json.Marshal(after)
	if err != nil {
		return now
	}
	return out
}
