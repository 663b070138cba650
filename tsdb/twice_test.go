package tsdb

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestAppendTwice: a series that a shard has several times is judged as one, new or known: the same value again is success,
// another one for the same time a conflict, and older samples behind newer ones are stored.
func TestAppendTwice(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := time.Now().UnixMilli()
	f := func(name string, want []wire.Failure, stored string, series ...[]wire.Sample) {
		t.Helper()
		b := wire.NewBatch(team)
		other := labels.FromStrings("__name__", "other", "of", name)
		b.Add(other).Samples = []wire.Sample{{T: now, V: 7}}
		for _, samples := range series {
			b.Add(labels.FromStrings("__name__", name)).Samples = samples
		}
		for range 2 { // of a series that is new, and of one that is known and has all that
			failures, err := d.Append(t.Context(), wire.All(b))
			if err != nil || len(failures) != len(want) {
				t.Fatalf("%s: %v, %v; want %v", name, failures, err, want)
			}
			for i := range want {
				got := failures[i]
				got.Reason = ""
				if got != want[i] {
					t.Errorf("%s: %+v, want %+v", name, failures[i], want[i])
				}
			}
		}
		got := fmt.Sprint(collect(t, d.Select(t.Context(), request(team, now-10_000, now+10_000, labels.MustNewMatcher(labels.MatchEqual, "__name__", name)))))
		if got != stored {
			t.Errorf("%s: stored %s, want %s", name, got, stored)
		}
	}
	at := func(t int64, v float64) []wire.Sample { return []wire.Sample{{T: now + t, V: v}} }
	conflict := func(i int) []wire.Failure { return []wire.Failure{{Series: i, Kind: errs.Conflict, Samples: 1}} }
	say := func(name string, parts ...any) string {
		text := fmt.Sprintf(`map[{__name__="%s"}:[`, name)
		for i := 0; i < len(parts); i += 2 {
			if i > 0 {
				text += " "
			}
			text += fmt.Sprintf("{%d %v}", now+int64(parts[i].(int)), parts[i+1])
		}
		return text + "]]"
	}
	f("same", nil, say("same", 0, 1), at(0, 1), at(0, 1))
	f("conflict", conflict(2), say("conflict", 0, 1), at(0, 1), at(0, 2))
	f("backwards", nil, say("backwards", 0, 1, 5, 2, 9, 3), at(9, 3), at(5, 2), at(0, 1))
	f("some", conflict(4), say("some", 0, 1, 5, 2), at(5, 2), at(0, 1), at(5, 2), at(0, 9))
}
