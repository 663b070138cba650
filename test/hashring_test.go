package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring/static"
)

// hashrings is three receivers of one hashring file, and a querier with their addresses in its flags.
type hashrings struct {
	t         *testing.T
	rf        int
	algorithm string
	file      string
	receivers []*node
	query     *node
}

const spread = 60 // series of a tenant

func startHashrings(t *testing.T, rf int, algorithm string) *hashrings {
	h := &hashrings{t: t, rf: rf, algorithm: algorithm, file: filepath.Join(t.TempDir(), "hashrings.json")}
	h.query = newPlainNode(t, "query", "query")
	for i := 1; i <= 3; i++ {
		r := newPlainNode(t, "r"+strconv.Itoa(i), "receive", "--receive.replication-factor="+strconv.Itoa(rf),
			"--receive.hashrings-algorithm="+algorithm, "--receive.hashrings-file="+h.file)
		r.args = append(r.args, "--receive.local-endpoint="+r.grpc)
		h.receivers = append(h.receivers, r)
		h.query.args = append(h.query.args, "--endpoint="+r.grpc)
	}
	return h
}

func (h *hashrings) start() {
	h.t.Helper()
	nodes := append(slices.Clone(h.receivers), h.query)
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		n.waitReady()
	}
}

// write replaces the file: red-* on the first few members, everybody else on members. The content is returned.
func (h *hashrings) write(few, members []*node) []byte {
	h.t.Helper()
	endpoints := func(nodes []*node) []any {
		var list []any
		for _, n := range nodes {
			if h.algorithm == static.Ketama {
				list = append(list, map[string]string{"address": n.grpc, "az": "zone-" + n.name})
			} else {
				list = append(list, n.grpc)
			}
		}
		return list
	}
	content, err := json.Marshal([]map[string]any{
		{"hashring": "few", "tenants": []string{"red-*"}, "tenant_matcher_type": "glob", "endpoints": endpoints(few)},
		{"hashring": "rest", "endpoints": endpoints(members)},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.replace(content)
	return content
}

// replace changes the file as people do who care: as a whole.
func (h *hashrings) replace(content []byte) {
	h.t.Helper()
	if err := os.WriteFile(h.file+".new", content, 0o644); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(h.file+".new", h.file); err != nil {
		h.t.Fatal(err)
	}
}

// send gives every receiver a third of the tenant's series.
func (h *hashrings) send(name, id string, at time.Time) error {
	var all []error
	for i, r := range h.receivers {
		req := &prompb.WriteRequest{}
		for s := i; s < spread; s += len(h.receivers) {
			req.Timeseries = append(req.Timeseries, sample(at.UnixMilli(), float64(s), "__name__", name, "n", strconv.Itoa(s)))
		}
		_, err := do(http.MethodPost, "http://"+r.write+"/api/v1/receive", writeHeader(tenantHeader(id)), encode(req))
		all = append(all, err)
	}
	return errors.Join(all...)
}

// check compares what each receiver holds with what the file's placement says.
func (h *hashrings) check(content []byte, name, id string, at time.Time) (holds map[string]int) {
	h.t.Helper()
	place, err := static.Parse(content, h.algorithm, h.rf)
	if err != nil {
		h.t.Fatal(err)
	}
	want := map[string][]string{}
	for s := range spread {
		n := strconv.Itoa(s)
		hash := xxhash.Sum64String(id + "\xff__name__\xff" + name + "\xffn\xff" + n + "\xff")
		replicas := place.Replicas(nil, tenant.ID(id), hash)
		if len(replicas) != h.rf {
			h.t.Fatalf("series %s of %s is placed %d times, want %d", n, id, len(replicas), h.rf)
		}
		for _, m := range replicas {
			a := place.Members()[m].Addr
			want[a] = append(want[a], "__name__="+name+" n="+n+" ")
		}
	}
	holds = map[string]int{}
	for _, r := range h.receivers {
		slices.Sort(want[r.grpc])
		holds[r.name] = len(want[r.grpc])
		req := &thanospb.SeriesRequest{MinTime: at.UnixMilli() - 1000, MaxTime: at.UnixMilli() + 1000,
			Matchers: []*thanospb.LabelMatcher{{Type: thanospb.LabelMatcher_EQ, Name: "__name__", Value: name}}}
		eventually(h.t, 10*time.Second, func() error { // the last copy may come after the acknowledgement
			got, err := thanosSeries(h.t, r.grpc, []string{"hearth-tenant", id}, req)
			if err != nil {
				return err
			}
			slices.Sort(got)
			if !slices.Equal(got, want[r.grpc]) {
				return fmt.Errorf("%s holds %d series of %s, the placement says %d:\n%q\n%q", r.name, len(got), id,
					len(want[r.grpc]), got, want[r.grpc])
			}
			return nil
		})
	}
	return holds
}

// whole asks the querier: every series once, with its value, nothing missing and no warning.
func (h *hashrings) whole(name, id string, at time.Time) {
	h.t.Helper()
	eventually(h.t, 15*time.Second, func() error {
		ans, err := h.query.api(id).query(fmt.Sprintf("sum(%s) + 1000 * count(%s)", name, name), at.Add(time.Second))
		if err != nil {
			return err
		}
		v, err := scalarOf(ans)
		if want := float64(spread*(spread-1)/2 + 1000*spread); err != nil || v != want || len(ans.Warnings) > 0 {
			return fmt.Errorf("%s of %s: %v (%w), want %v; warnings %q", name, id, v, err, want, ans.Warnings)
		}
		return nil
	})
}

func (h *hashrings) sent(name, id string) time.Time {
	h.t.Helper()
	at := time.Now()
	eventually(h.t, 15*time.Second, func() error { return h.send(name, id, at) })
	return at
}

// TestHashrings: Thanos's file of several rings. Whoever takes a series, it lands where the file places it.
func TestHashrings(t *testing.T) {
	t.Parallel()
	f := func(rf int, algorithm string) {
		t.Run(fmt.Sprintf("%s of %d", algorithm, rf), func(t *testing.T) {
			h := startHashrings(t, rf, algorithm)
			content := h.write(h.receivers[:rf], h.receivers)
			h.start()
			for _, id := range []string{"blue", "red-1"} {
				at := h.sent("placed", id)
				holds := h.check(content, "placed", id, at)
				if id == "blue" && (holds["r1"] == 0 || holds["r2"] == 0 || holds["r3"] == 0) {
					t.Errorf("a member of the ring has nothing: %v", holds)
				}
				if id == "red-1" && holds["r3"] > 0 && rf < 3 {
					t.Errorf("the tenant's own ring is not used: %v", holds)
				}
				h.whole("placed", id, at)
			}
		})
	}
	f(1, static.Hashmod)
	f(2, static.Ketama)
	f(3, static.Ketama)
}

// TestHashringChange: a new member takes part as soon as the file says so; a broken file changes nothing, and
// is reported.
func TestHashringChange(t *testing.T) {
	t.Parallel()
	h := startHashrings(t, 2, static.Ketama)
	content := h.write(h.receivers[:2], h.receivers[:2])
	h.start()
	first := h.sent("before", "blue")
	if holds := h.check(content, "before", "blue", first); holds["r3"] > 0 {
		t.Fatalf("r3 is not in the file and holds %v", holds)
	}

	content = h.write(h.receivers[:2], h.receivers)
	everyone := func(pattern string, want float64) {
		t.Helper()
		for _, r := range h.receivers {
			eventually(t, 15*time.Second, func() error { return metricIs(r, pattern, want) })
		}
	}
	everyone(`hearth_hashrings_endpoints{hashring="rest"}`, 3)
	second := h.sent("after", "blue")
	if holds := h.check(content, "after", "blue", second); holds["r3"] == 0 {
		t.Errorf("the new member holds nothing: %v", holds)
	}

	for broken, why := range map[string]string{
		`[{"hashring": "rest", "endpoints": [`: "not valid JSON", `[]`: "no hashring has endpoints any more",
		`[{"hashring":"rest","endpoints":["127.0.0.1:1"]}]`: "fewer than the replication factor 2",
	} {
		h.replace([]byte(broken))
		everyone("hearth_hashrings_last_read_successful", 0)
		for _, r := range h.receivers {
			r.waitFor(why, 10*time.Second)
		}
		third := h.sent("broken", "blue")
		h.check(content, "broken", "blue", third)
	}
	for _, r := range h.receivers {
		if out := r.output(); !strings.Contains(out, "the last good ones stay in use") ||
			!strings.Contains(out, "hashrings of "+h.file) {
			t.Errorf("%s does not say which file is wrong, and that nothing changes:\n%s", r.name, out)
		}
	}
	h.replace(content)
	everyone("hearth_hashrings_last_read_successful", 1)
	for name, at := range map[string]time.Time{"before": first, "after": second} {
		h.whole(name, "blue", at)
	}
}

// TestHashringIsFilledLater: receivers that start before a controller has filled the file wait for it, and say so to
// senders.
func TestHashringIsFilledLater(t *testing.T) {
	t.Parallel()
	h := startHashrings(t, 2, static.Ketama)
	h.replace([]byte("[{}]"))
	for _, r := range h.receivers {
		r.start()
	}
	for _, r := range h.receivers {
		eventually(t, 20*time.Second, func() error {
			_, err := get("http://"+r.http+"/-/ready?verbose", nil)
			if status(err) != 503 || !strings.Contains(err.Error(), "names no endpoints yet") {
				return fmt.Errorf("ready: %v", err)
			}
			err = h.send("early", "blue", time.Now())
			if status(err) != 503 || !strings.Contains(err.Error(), "the ring has no members yet") {
				return fmt.Errorf("a write: %v", err)
			}
			_, err = get("http://"+r.http+"/-/healthy", nil)
			return err
		})
	}
	h.query.start()
	content := h.write(h.receivers, h.receivers)
	for _, n := range append(slices.Clone(h.receivers), h.query) {
		n.waitReady()
	}
	at := h.sent("placed", "blue")
	h.check(content, "placed", "blue", at)
	h.whole("placed", "blue", at)
}

// TestHashringQuorum: with two copies, both must be stored; the series of the members that are there are.
func TestHashringQuorum(t *testing.T) {
	t.Parallel()
	h := startHashrings(t, 2, static.Ketama)
	h.write(h.receivers[:2], h.receivers)
	h.start()
	h.whole("placed", "blue", h.sent("placed", "blue"))
	h.receivers[2].kill()
	at := time.Now()
	var codes []int
	for s := range spread {
		req := &prompb.WriteRequest{
			Timeseries: []prompb.TimeSeries{sample(at.UnixMilli(), 1, "__name__", "half", "n", strconv.Itoa(s))}}
		_, err := do(http.MethodPost, "http://"+h.receivers[0].write+"/api/v1/receive", writeHeader(tenantHeader("blue")),
			encode(req))
		codes = append(codes, status(err))
	}
	slices.Sort(codes)
	if got := slices.Compact(slices.Clone(codes)); !slices.Equal(got, []int{200, 503}) {
		t.Errorf("with one of three members dead and two copies asked for, writes of one series each are answered %v", codes)
	}
}
