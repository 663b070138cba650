package frontend

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// fieldChanges change one field of a request each.
var fieldChanges = map[string]func(*request){
	"tenants":       func(q *request) { q.tenants = []tenant.ID{"a"} },
	"text":          func(q *request) { q.text = "y" },
	"from":          func(q *request) { q.from++ },
	"to":            func(q *request) { q.to++ },
	"step":          func(q *request) { q.step = 30_000 },
	"reach":         func(q *request) { q.reach.Back++ },
	"dedup":         func(q *request) { q.dedup = "false" },
	"replicaLabels": func(q *request) { q.replicaLabels = []string{"r"} },
	"partial":       func(q *request) { q.partial = "false" },
	"resolution":    func(q *request) { q.resolution = "5m" },
	"lookback":      func(q *request) { q.lookback = "1m" },
	"engine":        func(q *request) { q.engine = "thanos" },
	"timeout":       func(q *request) { q.timeout = "1m" },
	"read":          func(q *request) { q.read = true },
	"write":         func(q *request) { q.write = true },
}

func fieldNames() (all []string) {
	for f := range reflect.TypeFor[request]().Fields() {
		all = append(all, f.Name)
	}
	return all
}

func tagOf(t *testing.T, name string) string {
	f, found := reflect.TypeFor[request]().FieldByName(name)
	tag := f.Tag.Get("key")
	if !found || tag == "" {
		t.Errorf("field %s of request has no tag that says whether it is in the key", name)
	}
	return tag
}

// TestKeysDiffer: no two requests have one key, whatever separators their parts have.
func TestKeysDiffer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	texts := []string{"", "a", "a:b", "b", ":", "|", "a|b", "\x00", "\x01a", "1"}
	pick := func() string { return texts[rnd.IntN(len(texts))] }
	seen := map[string]request{}
	for range 300_000 {
		q := request{text: pick(), step: 10, dedup: pick(), partial: pick(), resolution: pick(), lookback: pick(),
			engine: pick()}
		for range rnd.IntN(3) {
			q.tenants = append(q.tenants, tenant.ID(pick()))
		}
		for range rnd.IntN(2) {
			q.replicaLabels = append(q.replicaLabels, pick())
		}
		key := q.key(0, 100)
		if was, found := seen[key]; found && !reflect.DeepEqual(was, q) {
			t.Fatalf("%+v and %+v have one key", was, q)
		}
		seen[key] = q
	}
}
