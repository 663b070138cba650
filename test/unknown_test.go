package test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// readPaths are the read APIs whose answers have a place for warnings, with what they are asked.
func readPaths(now time.Time) map[string]url.Values {
	from, to := seconds(now.Add(-time.Hour)), seconds(now)
	return map[string]url.Values{
		"query":          {"query": {"known"}, "time": {to}},
		"query_range":    {"query": {"known"}, "start": {from}, "end": {to}, "step": {"60"}},
		"series":         {"match[]": {"known"}, "start": {from}, "end": {to}},
		"labels":         {"start": {from}, "end": {to}},
		"label/n/values": {"start": {from}, "end": {to}}, "metadata": {},
		"query_exemplars": {"query": {"known"}, "start": {from}, "end": {to}},
	}
}

// says checks that all read APIs warn of want, and fail with 503 where no partial answers are allowed.
func says(t *testing.T, a api, want string) {
	t.Helper()
	for path, params := range readPaths(time.Now()) {
		ans, err := a.get(path, params)
		if err != nil || !strings.Contains(strings.Join(ans.Warnings, "|"), want) {
			t.Errorf("%s: warnings %q, %v; want %q", path, ans.Warnings, err, want)
		}
		params.Set("partial_response", "false")
		if _, err := a.get(path, params); status(err) != http.StatusServiceUnavailable ||
			!strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s with partial_response=false: %v; want 503 and %q", path, err, want)
		}
	}
}

// TestNobodyKnown: a querier that knows nobody, and one that cannot resolve the name that it was given, say so.
func TestNobodyKnown(t *testing.T) {
	for want, endpoint := range map[string]string{
		"nobody to ask is known":               "",
		"its name cannot be resolved":          "--endpoint=dns+nowhere.invalid:10901",
		"nowhere.invalid:10901 did not answer": "--endpoint=nowhere.invalid:10901",
	} {
		ports := freePorts(t, 2)
		args := []string{"query", "--http-address=" + addr(ports[0]), "--grpc-address=" + addr(ports[1])}
		if endpoint != "" {
			args = append(args, endpoint)
		}
		p := hearth(t, "query", args...)
		p.ready("http://"+addr(ports[0])+"/-/healthy", 30*time.Second)
		a := api{base: "http://" + addr(ports[0])}
		eventually(t, 30*time.Second, func() error { // until its parts are open
			_, err := a.get("labels", nil)
			return err
		})
		says(t, a, want)
		p.kill()
	}
}

// TestBackEmpty: a receiver that comes back with an empty disk does not count for what it had, whenever it was polled.
func TestBackEmpty(t *testing.T) {
	r, q := newNode(t, "r1", "receive"), newNode(t, "query", "query")
	r.args = append(r.args, "--tsdb.path="+r.dir, "--receive.replication-factor=1")
	for i, a := range r.args {
		if a == "--receive.replication-factor=3" {
			r.args = append(r.args[:i], r.args[i+1:]...)
			break
		}
	}
	for _, n := range []*node{r, q} {
		n.args = append(n.args, "--gossip.join="+r.gossipAddr)
		n.start()
	}
	r.waitReady()
	q.waitReady()
	req := &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{sample(time.Now().UnixMilli(), 1, "__name__", "known", "n", "1")}}
	eventually(t, 30*time.Second, func() error {
		_, err := do(http.MethodPost, "http://"+r.write+"/api/v1/receive", writeHeader(nil), encode(req))
		return err
	})
	a := q.api("default-tenant")
	eventually(t, 30*time.Second, func() error {
		ans, err := a.query("known", time.Now())
		if err == nil && (len(ans.Warnings) > 0 || !strings.Contains(string(ans.Data), "known")) {
			err = fmt.Errorf("%s, warnings %q", ans.Data, ans.Warnings)
		}
		return err
	})
	r.kill()
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	gone := time.Now().Unix()
	eventually(t, 5*time.Second, func() error { // the ring keeps seconds: a disk of the same second would be the same one
		if time.Now().Unix() == gone {
			return fmt.Errorf("still the second %d", gone)
		}
		return nil
	})
	r.start()
	back := time.Time{}
	for end := time.Now().Add(60 * time.Second); back.IsZero() || time.Since(back) < 8*time.Second; { // more than a poll
		if time.Now().After(end) {
			t.Fatal("the receiver does not come back")
		}
		ans, err := a.query("known", time.Now())
		if err != nil || !strings.Contains(strings.Join(ans.Warnings, "|"), "r1") {
			t.Fatalf("%s after it came back: %s, warnings %q, %v", time.Since(back), ans.Data, ans.Warnings, err)
		}
		if _, err := get("http://"+r.http+"/-/ready", nil); err == nil && back.IsZero() {
			back = time.Now()
		}
	}
	says(t, a, "r1")
}
