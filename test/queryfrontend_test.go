package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// TestQueryFrontend: three receivers, a gateway and a querier with a query frontend before it, and a Prometheus that
// has the same samples. Range queries through the frontend have Prometheus's answers: at first, from the cache, after
// samples that came days late, while a receiver is dead, and after the samples were shipped.
func TestQueryFrontend(t *testing.T) {
	t.Parallel()
	const window = "100d"
	c := startCluster(t, fmt.Sprintf("type: FILESYSTEM\nconfig: {directory: %q}\n", t.TempDir()),
		"--tsdb.out-of-order.time-window="+window)
	front := newNode(t, "front", "query-frontend")
	front.args = slices.DeleteFunc(front.args, func(a string) bool {
		return strings.HasPrefix(a, "--g") // it speaks neither gRPC nor gossip
	})
	front.args = append(front.args, "--query-frontend.downstream-url=http://"+c.query.http)
	front.start()
	front.waitReady()
	_, base := startPrometheus(t, func(string) string { return "storage: {tsdb: {out_of_order_time_window: 100d}}\n" },
		"--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=1y")
	prom := api{base: base}
	asked := api{base: "http://" + front.http}

	write := func(series ...prompb.TimeSeries) {
		t.Helper()
		body := encode(&prompb.WriteRequest{Timeseries: series})
		eventually(t, 30*time.Second, func() error {
			_, err := do(http.MethodPost, "http://"+c.distributor.write+"/api/v1/receive",
				writeHeader(nil), body)
			return err
		})
		if _, err := do(http.MethodPost, base+"/api/v1/write", writeHeader(nil), body); err != nil {
			t.Fatal(err)
		}
	}
	end := time.Now().Truncate(time.Hour).Add(-2 * time.Hour)
	begin := end.Add(-4 * 24 * time.Hour)
	for day := begin; day.Before(end); day = day.Add(24 * time.Hour) {
		var all []prompb.TimeSeries
		for i := range 5 {
			s := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "c_total"},
				{Name: "i", Value: fmt.Sprint(i)}}}
			for at := day; at.Before(day.Add(24 * time.Hour)); at = at.Add(time.Minute) {
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: float64(at.Unix() / 60 * int64(i+1))})
			}
			all = append(all, s)
		}
		write(all...)
	}
	cached := func() (steps float64) {
		t.Helper()
		page, err := get(front.url("/metrics"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(page)) {
			if text, ok := strings.CutPrefix(line, `hearth_query_frontend_steps_total{from="cache"} `); ok {
				if err := json.Unmarshal([]byte(strings.TrimSpace(text)), &steps); err != nil {
					t.Fatal(err)
				}
			}
		}
		return steps
	}
	equal := func() error {
		for _, expr := range []string{`sum(rate(c_total[10m]))`, `c_total`, `count by (i) (c_total offset 1d)`} {
			params := url.Values{"query": {expr}, "start": {seconds(begin)}, "end": {seconds(end)}, "step": {"600"}}
			want, err := prom.get("query_range", params)
			if err != nil {
				return err
			}
			got, err := asked.get("query_range", params)
			if err != nil {
				return err
			}
			if d := diff(want.Data, got.Data); d != "" || len(got.Warnings) > 0 {
				return fmt.Errorf("%s: %s, warnings %q", expr, d, got.Warnings)
			}
		}
		return nil
	}
	must := func(what string) {
		t.Helper()
		if err := equal(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	must("at first")
	// What came within the last minute may have come after an answer, by clocks that differ.
	eventually(t, 2*time.Minute, func() error {
		was := cached()
		if err := equal(); err != nil {
			return err
		}
		if now := cached() - was; now < 1000 {
			return fmt.Errorf("%v steps came from the cache", now)
		}
		return nil
	})
	for i := range 3 {
		at := begin.Add(time.Duration(20+24*i) * time.Hour)
		write(prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "c_total"}, {Name: "i", Value: "late"}},
			Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: float64(i)}}})
		time.Sleep(time.Second) // what is asked for: no answer lacks a sample that is older than a second
		must(fmt.Sprintf("after late sample %d", i))
	}
	c.receivers[0].kill()
	must("with a dead receiver")
	for _, r := range c.receivers[1:] {
		if _, err := do(http.MethodPost, r.url("/api/v1/admin/flush"), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	must("after the samples were shipped")
	code, _, body := asked.ask(t, http.MethodGet, "query_range", "query=c_total{&start=1&end=2&step=1")
	if code != http.StatusBadRequest || !strings.Contains(body, "parse error") {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := asked.ask(t, http.MethodPost, "series", `match[]=c_total`); code != http.StatusOK ||
		!strings.Contains(body, `"i":"late"`) {
		t.Errorf("%d %.300s", code, body)
	}
}
