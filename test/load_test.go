package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// load writes series with values that can be checked: series i has the value valueAt(i, t) at time t.
type load struct {
	t      *testing.T
	url    string
	header http.Header
	job    string
	series int

	mu     sync.Mutex
	acked  []int64 // timestamps whose whole batch was acknowledged
	failed []error

	stopped chan struct{}
	done    sync.WaitGroup
}

func valueAt(series int, t int64) float64 { return float64(t%1_000_000) + float64(series)*1e6 }

func writeBody(job string, series int, t int64) []byte {
	req := &prompb.WriteRequest{}
	for i := range series {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels: []prompb.Label{
				{Name: "__name__", Value: "load"}, {Name: "instance", Value: strconv.Itoa(i)}, {Name: "job", Value: job},
			},
			Samples: []prompb.Sample{{Timestamp: t, Value: valueAt(i, t)}},
		})
	}
	return encode(req)
}

func encode(req *prompb.WriteRequest) []byte {
	b, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, b)
}

func writeHeader(extra http.Header) http.Header {
	h := http.Header{
		"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"},
		"X-Prometheus-Remote-Write-Version": {"0.1.0"},
	}
	for k, v := range extra {
		h[k] = v
	}
	return h
}

// startLoad writes one batch every interval, at the present time, until stop.
func startLoad(t *testing.T, url, job string, series int, interval time.Duration, header http.Header) *load {
	l := &load{t: t, url: url, header: writeHeader(header), job: job, series: series, stopped: make(chan struct{})}
	l.done.Add(1)
	go func() {
		defer l.done.Done()
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			l.writeOnce(time.Now().UnixMilli())
			select {
			case <-tick.C:
			case <-l.stopped:
				return
			}
		}
	}()
	return l
}

func (l *load) writeOnce(ts int64) {
	_, err := do(http.MethodPost, l.url, l.header, writeBody(l.job, l.series, ts))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, fmt.Errorf("%s: %w", time.UnixMilli(ts).Format("15:04:05.000"), err))
		return
	}
	l.acked = append(l.acked, ts)
}

// stop ends the load; any failed request fails the test.
func (l *load) stop() {
	l.t.Helper()
	close(l.stopped)
	l.done.Wait()
	if len(l.failed) > 0 {
		l.t.Errorf("%d of %d write requests failed: %v", len(l.failed), len(l.failed)+len(l.acked),
			errors.Join(l.failed[:min(5, len(l.failed))]...))
	}
	if len(l.acked) == 0 {
		l.t.Fatal("the load wrote nothing: the test shows nothing")
	}
}

func (l *load) batches() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// check reads every acknowledged sample back: each once, with its value, nothing else, and no warning if quiet.
func (l *load) check(a api, quiet bool) error {
	l.mu.Lock()
	acked := append([]int64(nil), l.acked...)
	l.mu.Unlock()
	first, last := time.UnixMilli(acked[0]), time.UnixMilli(acked[len(acked)-1])
	window := last.Sub(first) + time.Second // and not a moment after the last one: the load may go on
	ans, err := a.query(fmt.Sprintf(`load{job=%q}[%dms]`, l.job, window.Milliseconds()), last)
	if err != nil {
		return err
	}
	if quiet && len(ans.Warnings) > 0 {
		return fmt.Errorf("the answer carries warnings: %q", ans.Warnings)
	}
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	if err := json.Unmarshal(ans.Data, &data); err != nil {
		return err
	}
	if len(data.Result) != l.series {
		return fmt.Errorf("%d series, want %d (warnings %q)", len(data.Result), l.series, ans.Warnings)
	}
	for _, r := range data.Result {
		if err := checkSeries(r.Metric, r.Values, acked, l.job); err != nil {
			return err
		}
	}
	return nil
}

func checkSeries(metric map[string]string, values [][2]any, acked []int64, job string) error {
	i, err := strconv.Atoi(metric["instance"])
	if err != nil || len(metric) != 3 || metric["job"] != job {
		return fmt.Errorf("labels %s are not those written", seriesKey(metric))
	}
	if len(values) != len(acked) {
		return fmt.Errorf("instance %d: %d samples, %d were acknowledged", i, len(values), len(acked))
	}
	for n, v := range values {
		at, _ := v[0].(float64)
		got, _ := strconv.ParseFloat(v[1].(string), 64)
		if int64(at*1000+0.5) != acked[n] || got != valueAt(i, acked[n]) {
			return fmt.Errorf("instance %d: sample %d is %v@%v, want %v@%d", i, n, got, at, valueAt(i, acked[n]), acked[n])
		}
	}
	return nil
}
