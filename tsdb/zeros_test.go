package tsdb

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestStartTimestampZeros: a start timestamp becomes a zero where it is newer than all of its series and before its
// sample, once, and for tenants that want it.
func TestStartTimestampZeros(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	at := func(s int) int64 { return now.Add(time.Duration(s-100) * time.Second).UnixMilli() }
	type sample struct{ st, t int } // seconds; st 0 = none
	f := func(name string, zeros bool, requests [][]sample, want ...int) {
		t.Helper()
		for _, kind := range []string{"float", "histogram", "float histogram"} {
			o := testOptions(t)
			limitsOf(&o, tenant.Limits{StartTimestampZeros: zeros})
			d := openDB(t, o)
			ls := labels.FromStrings("__name__", "m")
			for range 2 { // sending it all again changes nothing
				for _, request := range requests {
					b := wire.NewBatch(team)
					s := b.Add(ls)
					for _, p := range request {
						var st int64
						if p.st != 0 {
							st = at(p.st)
						}
						one := &histogram.Histogram{Count: 1, ZeroCount: 1, Sum: 1}
						switch kind {
						case "float":
							s.Samples = append(s.Samples, wire.Sample{T: at(p.t), ST: st, V: 1})
						case "histogram":
							s.Histograms = append(s.Histograms, wire.Histogram{T: at(p.t), ST: st, H: one})
						default:
							s.Histograms = append(s.Histograms, wire.Histogram{T: at(p.t), ST: st, FH: one.ToFloat(nil)})
						}
					}
					mustAppend(t, d, b)
				}
			}
			var times []int
			for _, p := range read(t, d, team)[ls.String()] {
				times = append(times, int((p.t-at(0))/1000))
			}
			if !slices.Equal(times, want) {
				t.Errorf("%s, %s: samples at %v, want %v", name, kind, times, want)
			}
		}
	}
	f("off", false, [][]sample{{{10, 20}}}, 20)
	f("a new series", true, [][]sample{{{10, 20}, {10, 30}}, {{10, 40}}}, 10, 20, 30, 40)
	f("a counter that begins again", true, [][]sample{{{10, 20}}, {{35, 40}}}, 10, 20, 35, 40)
	f("in one request", true, [][]sample{{{10, 20}, {35, 40}, {35, 50}}}, 10, 20, 35, 40, 50)
	f("older than what is stored", true, [][]sample{{{0, 20}}, {{10, 30}}}, 20, 30)
	f("as old as what is stored", true, [][]sample{{{0, 20}}, {{20, 30}}}, 20, 30)
	f("not before its sample", true, [][]sample{{{20, 20}}, {{40, 30}}}, 20, 30)
	f("none", true, [][]sample{{{0, 20}}}, 20)
	f("before the window", true, [][]sample{{{-20_000, 20}}}, 20)
}

// TestLogsOfAnyCompression writes a log first without compression and then with it, dies, and replays both.
func TestLogsOfAnyCompression(t *testing.T) {
	o := testOptions(t)
	now := float64(time.Now().UnixMilli())
	ls := labels.FromStrings("a", "b")
	want := 0
	for i, c := range []compression.Type{compression.None, compression.Snappy, compression.None, compression.Snappy} {
		o.WALCompression = c
		d := openDB(t, o)
		for j := range 50 {
			put(t, d, team, ls, now+float64(1000*(50*i+j)), float64(j))
			put(t, d, team, ls, now-float64(1000*(50*i+j)+500), float64(j)) // by the log of what is out of order
			want += 2
		}
		dropped := filepath.Join(t.TempDir(), "died")
		if err := os.CopyFS(dropped, os.DirFS(o.Dir)); err != nil {
			t.Fatal(err)
		}
		o.Dir = dropped
	}
	if got := read(t, openDB(t, o), team)[ls.String()]; len(got) != want {
		t.Errorf("%d samples are left of %d", len(got), want)
	}
}
