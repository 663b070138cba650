package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/compact"
)

// steppedBucket lets one write after another through, each when the test says so.
type steppedBucket struct {
	objstore.Bucket
	about chan string   // what is about to be written
	next  chan struct{} // it may be
}

func (b *steppedBucket) wait(ctx context.Context, what string) error {
	select {
	case b.about <- what:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-b.next:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (b *steppedBucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if err := b.wait(ctx, "write "+name); err != nil {
		return err
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

func (b *steppedBucket) Delete(ctx context.Context, name string) error {
	if err := b.wait(ctx, "delete "+name); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, name)
}

// floatSample is a float of a block that a test makes.
type floatSample struct {
	t int64
	v float64
}

func (s floatSample) ST() int64                     { return 0 }
func (s floatSample) T() int64                      { return s.t }
func (s floatSample) F() float64                    { return s.v }
func (s floatSample) H() *histogram.Histogram       { return nil }
func (s floatSample) FH() *histogram.FloatHistogram { return nil }
func (s floatSample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s floatSample) Copy() chunks.Sample           { return s }

const (
	steppedSeries = 40
	steppedStep   = 30_000 // ms
)

func steppedValue(i int, t int64) float64 { return float64((t/1000*int64(i+1))%997 + 1) }

// putReplica makes the block of two hours that a replica ships.
func putReplica(t *testing.T, bkt objstore.Bucket, replica string, begin int64) {
	t.Helper()
	var list []storage.Series
	end := begin + compactWindow.Milliseconds()
	for i := range steppedSeries {
		var samples []chunks.Sample
		for ts := begin; ts < end; ts += steppedStep {
			samples = append(samples, floatSample{ts, steppedValue(i, ts)})
		}
		list = append(list, storage.NewListSeries(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), samples))
	}
	dir, err := tsdb.CreateBlock(list, t.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	meta := metaIn(t, dir, ulid.MustParse(filepath.Base(dir)))
	meta.MinTime, meta.MaxTime, meta.Thanos.Source = begin, end, block.SourceReceive
	meta.Thanos.Labels = map[string]string{"tenant_id": "a", "receive_replica": replica}
	if err := block.Upload(t.Context(), bkt, dir, *meta); err != nil {
		t.Fatal(err)
	}
}

// thanosReader is a real Thanos querier over a real Thanos store.
type thanosReader struct {
	t     *testing.T
	store *gateway.Gateway
	api   api
}

func newThanosReader(t *testing.T, dir string) thanosReader {
	t.Helper()
	store := startGateway(t, gateway.Thanos, thanosBinary(t), dir, "--sync-block-duration=200ms")
	ports := freePorts(t, 2)
	start(t, "query-thanos", thanosBinary(t), nil, "query", "--http-address="+addr(ports[0]),
		"--grpc-address="+addr(ports[1]), "--endpoint="+store.GRPC, "--query.replica-label=receive_replica")
	return thanosReader{t, store, api{base: "http://" + addr(ports[0])}}
}

// synced waits until the store has looked at the bucket as it is now, as a whole.
func (r thanosReader) synced() {
	r.t.Helper()
	syncs := func() float64 {
		page, err := get("http://"+r.store.HTTP+"/metrics", nil)
		if err != nil {
			r.t.Fatal(err)
		}
		return parseMetrics(r.t, string(page)).values["thanos_blocks_meta_syncs_total"]
	}
	want := syncs() + 2 // one may have begun before
	eventually(r.t, 30*time.Second, func() error {
		if n := syncs(); n <= want {
			return fmt.Errorf("%v syncs, want more than %v", n, want)
		}
		return nil
	})
}

// check asks for all samples, and for sums that may be made of 5m. Each series must be there once.
func (r thanosReader) check(windows []int64) error {
	last := windows[len(windows)-1] + compactWindow.Milliseconds()
	length := last - windows[0]
	ask := func(expr, resolution string, into any) error {
		ans, err := r.api.get("query", url.Values{"query": {expr}, "time": {seconds(time.UnixMilli(last - 1))},
			"dedup": {"true"}, "partial_response": {"false"}, "max_source_resolution": {resolution}})
		if err == nil && len(ans.Warnings) > 0 {
			err = fmt.Errorf("warnings %q", ans.Warnings)
		}
		return errors.Join(err, json.Unmarshal(ans.Data, into))
	}
	var raw struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	if err := ask(fmt.Sprintf("m[%dms]", length), "0s", &raw); err != nil {
		return err
	}
	if len(raw.Result) != steppedSeries {
		return fmt.Errorf("%d series, want %d", len(raw.Result), steppedSeries)
	}
	sums := map[string]float64{}
	for _, s := range raw.Result {
		i, _ := strconv.Atoi(s.Metric["i"])
		n := 0
		for _, from := range windows {
			for ts := from; ts < from+compactWindow.Milliseconds(); ts += steppedStep {
				if n >= len(s.Values) || int64(s.Values[n][0].(float64)*1000) != ts ||
					s.Values[n][1] != strconv.FormatFloat(steppedValue(i, ts), 'f', -1, 64) {
					return fmt.Errorf("series %d: %d samples, number %d is not that of %d", i, len(s.Values), n, ts)
				}
				sums[s.Metric["i"]] += steppedValue(i, ts)
				n++
			}
		}
		if n != len(s.Values) || len(sums) == 0 {
			return fmt.Errorf("series %d: %d samples, want %d", i, len(s.Values), n)
		}
	}
	var sum struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := ask(fmt.Sprintf("sum_over_time(m[%dms])", length), "5m", &sum); err != nil {
		return err
	}
	if len(sum.Result) != steppedSeries {
		return fmt.Errorf("%d series of 5m, want %d", len(sum.Result), steppedSeries)
	}
	for _, s := range sum.Result {
		if got, _ := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64); !near(got, sums[s.Metric["i"]]) {
			return fmt.Errorf("series %s: the sum of 5m is %v, want %v", s.Metric["i"], got, sums[s.Metric["i"]])
		}
	}
	return nil
}

// TestCompactionSeenByThanos stops a pass of the compactor before each of its writes, deletions among them. A real
// Thanos querier over a real Thanos store finds each series and sample once at each of these points, whether outputs
// are whole or split into parts. A compactor that is killed leaves the bucket at one of them.
func TestCompactionSeenByThanos(t *testing.T) {
	thanosBinary(t)
	for _, form := range []struct {
		name  string
		index int64
	}{{"whole", 64 << 30}, {"split", 4 << 10}} {
		t.Run(form.name, func(t *testing.T) { t.Parallel(); stepThroughPass(t, form.index) })
	}
}

func stepThroughPass(t *testing.T, maxIndex int64) {
	dir := t.TempDir()
	files, err := filesystem.NewBucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-70 * 24 * time.Hour).UnixMilli()
	begin -= begin % fourteenDays.Milliseconds()
	var windows []int64
	for _, hour := range []int64{0, 46, 50, 60} {
		windows = append(windows, begin+hour*3_600_000)
		for _, replica := range []string{"r0", "r1"} {
			putReplica(t, files, replica, windows[len(windows)-1])
		}
	}
	reader := newThanosReader(t, dir)
	eventually(t, time.Minute, func() error { return reader.check(windows) })

	bkt := &steppedBucket{Bucket: files, about: make(chan string), next: make(chan struct{})}
	o := compact.DefaultOptions()
	o.Dir, o.Instance, o.ConsistencyDelay, o.DeleteDelay = t.TempDir(), "one", 0, 0
	o.Retention.Wait, o.Jobs.MaxIndexSize = 0, maxIndex
	o.BucketID = func() (string, bool) { return "bucket", true }
	c, err := compact.New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), bkt, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Once(t.Context()) }()
	kinds, writes := map[string]int{}, 0
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			reader.synced()
			if err := reader.check(windows); err != nil {
				t.Errorf("in the end: %v", err)
			}
			metas := metasIn(t, dir)
			parts := 0
			for _, m := range metas {
				var ext struct{ Hearth struct{ Of int } }
				if json.Unmarshal(m.Thanos.Extensions, &ext) == nil && ext.Hearth.Of > 1 {
					parts++
				}
				kinds[fmt.Sprint(m.Thanos.Downsample.Resolution)]++
			}
			t.Logf("%d writes; in the end %d blocks, %d of them parts, by resolution %v", writes, len(metas), parts, kinds)
			if (parts > 0) != (maxIndex < 1<<20) || kinds["300000"] == 0 {
				t.Errorf("%d parts, %v", parts, kinds)
			}
			return
		case what := <-bkt.about:
			// What is below hearth/ and debug/ no reader of Thanos sees.
			if object := what[strings.IndexByte(what, ' ')+1:]; writes == 0 || !strings.HasPrefix(object, "hearth/") {
				reader.synced()
				if err := reader.check(windows); err != nil {
					t.Errorf("before write %d (%s): %v", writes, what, err)
				}
			}
			writes++
			bkt.next <- struct{}{}
		}
	}
}
