package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// thanosReceivers are receivers started with the flags that Thanos's documentation starts its own with, and a querier.
type thanosReceivers struct {
	t         *testing.T
	hashrings string
	bucket    string
	query     *node
}

func newThanosReceivers(t *testing.T) *thanosReceivers {
	dir := t.TempDir()
	r := &thanosReceivers{t: t, hashrings: filepath.Join(dir, "hashrings.json"), bucket: filepath.Join(dir, "bucket.yml")}
	writeFile(t, r.bucket, "type: FILESYSTEM\nconfig:\n  directory: "+filepath.Join(dir, "bucket")+"\n")
	r.query = newPlainNode(t, "query", "query")
	return r
}

// receiver is one with Thanos's usual flags and more.
func (r *thanosReceivers) receiver(i int, more ...string) *node {
	n := newPlainNode(r.t, "receive-"+strconv.Itoa(i), "receive", "--label=receive_replica=\""+strconv.Itoa(i)+"\"",
		"--label=receive_cluster=\"eu1\"", "--tsdb.retention=6h", "--tsdb.wal-compression", "--tsdb.no-lockfile",
		"--tsdb.min-block-duration=2h", "--tsdb.max-block-duration=2h", "--tsdb.out-of-order.time-window=0s",
		"--receive.grpc-compression=snappy", "--receive.replication-protocol=protobuf",
		"--receive.tenant-header=THANOS-TENANT", "--receive.default-tenant-id=default-tenant",
		"--receive.tenant-label-name=tenant_id", "--hash-func=SHA256", "--objstore.config-file="+r.bucket)
	n.args = append(n.args, more...)
	return n
}

func (r *thanosReceivers) ring(members ...*node) {
	var addresses []string
	for _, m := range members {
		addresses = append(addresses, m.grpc)
	}
	content, err := json.Marshal(
		[]map[string]any{{"hashring": "default", "tenants": []string{}, "endpoints": addresses, "algorithm": "ketama"}})
	if err != nil {
		r.t.Fatal(err)
	}
	writeFile(r.t, r.hashrings, string(content))
}

func (r *thanosReceivers) start(members []*node, routers ...*node) {
	r.t.Helper()
	for _, m := range members {
		r.query.args = append(r.query.args, "--endpoint="+m.grpc)
	}
	all := slices.Concat(members, routers, []*node{r.query})
	for _, n := range all {
		n.start()
	}
	for _, n := range all {
		n.waitReady()
	}
}

// send writes a series for each of n numbers by way of to.
func (r *thanosReceivers) send(to *node, name string, n int, header http.Header, at time.Time) error {
	req := &prompb.WriteRequest{}
	for i := range n {
		req.Timeseries = append(req.Timeseries, sample(at.UnixMilli(), float64(i), "__name__", name, "n", strconv.Itoa(i)))
	}
	_, err := do(http.MethodPost, "http://"+to.write+"/api/v1/receive", writeHeader(header), encode(req))
	return err
}

// holds is how many series of a name a member has on its own disk.
func holds(t *testing.T, n *node, id, name string) int {
	t.Helper()
	got, err := thanosSeries(t, n.grpc, []string{"hearth-tenant", id},
		&thanospb.SeriesRequest{MinTime: 0, MaxTime: time.Now().Add(time.Hour).UnixMilli(),
			Matchers: []*thanospb.LabelMatcher{{Type: thanospb.LabelMatcher_EQ, Name: "__name__", Value: name}}})
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	return len(got)
}

func (r *thanosReceivers) counts(name string, want float64, at time.Time) {
	r.t.Helper()
	eventually(r.t, 15*time.Second, func() error {
		ans, err := r.query.api("default-tenant").query("count("+name+")", at.Add(time.Second))
		if err != nil {
			return err
		}
		if v, err := scalarOf(ans); err != nil || v != want {
			return fmt.Errorf("%v series of %s (%w), want %v", v, name, err, want)
		}
		return nil
	})
}

// TestRouterIngestors: three receivers that are routers and ingestors at once, as in Thanos's first example.
func TestRouterIngestors(t *testing.T) {
	t.Parallel()
	r := newThanosReceivers(t)
	var members []*node
	for i := range 3 {
		n := r.receiver(i, "--receive.hashrings-file="+r.hashrings, "--receive.replication-factor=3",
			"--receive.replica-header=Copy")
		n.args = append(n.args, "--receive.local-endpoint="+n.grpc)
		members = append(members, n)
	}
	r.ring(members...)
	r.start(members)
	at := time.Now()
	if err := r.send(members[1], "up", 30, nil, at); err != nil {
		t.Fatal(err)
	}
	r.counts("up", 30, at)
	for _, m := range members {
		eventually(t, 10*time.Second, func() error {
			if n := holds(t, m, "default-tenant", "up"); n != 30 {
				return fmt.Errorf("%s has %d series, want all 30", m.name, n)
			}
			return nil
		})
	}

	// A request that says which copy it is is stored where it came, and nowhere else.
	header := func(copy string) http.Header { return http.Header{"Copy": {copy}} }
	if err := r.send(members[2], "copy", 5, header("2"), at); err != nil {
		t.Fatal(err)
	}
	if err := r.send(members[2], "placed", 5, header("0"), at); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		if n := holds(t, m, "default-tenant", "copy"); (n == 5) != (i == 2) {
			t.Errorf("%s has %d series of a copy that came to the third", m.name, n)
		}
	}
	for _, bad := range []string{"4", "-1", "first"} {
		if err := r.send(members[2], "copy", 5, header(bad), at); status(err) != http.StatusBadRequest {
			t.Errorf("copy %q of 3: %v", bad, err)
		}
	}

	members[0].kill()
	if err := r.send(members[1], "later", 30, nil, at); err != nil {
		t.Errorf("with one of three dead: %v", err)
	}
	r.counts("later", 30, at)
	out := members[1].output()
	for _, flag := range []string{"--receive.replication-protocol"} {
		if n := strings.Count(out, "flag has no effect\" flag="+flag+" "); n != 1 {
			t.Errorf("%d warnings of %s:\n%s", n, flag, out)
		}
	}
	if n := strings.Count(out, "--tsdb.out-of-order.time-window=0s means the default"); n != 1 {
		t.Errorf("%d warnings of a window of 0s:\n%s", n, out)
	}
}

// TestRoutersAndIngestors: receivers that only route, in front of receivers that only store, as in Thanos's second
// example.
func TestRoutersAndIngestors(t *testing.T) {
	t.Parallel()
	r := newThanosReceivers(t)
	var ingestors, routers []*node
	for i := range 3 {
		ingestors = append(ingestors, r.receiver(i, "--receive.replication-factor=3"))
	}
	for i := range 2 {
		routers = append(routers, r.receiver(10+i, "--receive.hashrings-file="+r.hashrings, "--receive.replication-factor=2"))
	}
	r.ring(ingestors...)
	r.start(ingestors, routers...)
	at := time.Now()
	for i, n := range routers {
		if err := r.send(n, "up"+strconv.Itoa(i), 60, http.Header{"Thanos-Replica": {"1"}},
			at); err != nil { // means nothing here
			t.Fatal(err)
		}
		r.counts("up"+strconv.Itoa(i), 60, at)
	}
	sum := 0
	eventually(t, 10*time.Second, func() error {
		sum = 0
		for _, m := range ingestors {
			n := holds(t, m, "default-tenant", "up0")
			if sum += n; n == 0 || n == 60 {
				return fmt.Errorf("%s has %d series of 60 with two copies of each", m.name, n)
			}
		}
		if sum != 120 {
			return fmt.Errorf("%d copies of 60 series, want 120", sum)
		}
		return nil
	})
	for _, n := range routers {
		if _, err := os.Stat(n.dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a router made %s: %v", n.dir, err)
		}
		if out := n.output(); !strings.Contains(out, "routing only") {
			t.Errorf("%s does not say that it only routes:\n%s", n.name, out)
		}
		if body, err := get(n.url("/metrics"), nil); err != nil || strings.Contains(string(body), "hearth_tsdb_") {
			t.Errorf("%s has a TSDB: %v", n.name, err)
		}
	}

	// An ingestor stores what comes to it, once, whatever its replication factor and the replica header say.
	if err := r.send(ingestors[0], "direct", 9, http.Header{"Thanos-Replica": {"7"}}, at); err != nil {
		t.Fatal(err)
	}
	for i, m := range ingestors {
		if n := holds(t, m, "default-tenant", "direct"); (n == 9) != (i == 0) {
			t.Errorf("%s has %d series that came to the first", m.name, n)
		}
	}
	if out := ingestors[0].output(); strings.Count(out, "flag=--receive.replication-factor") != 1 {
		t.Errorf("an ingestor does not say that its replication factor is nobody's:\n%s", out)
	}
}

// TestShuffleShards: a tenant's series are on as many receivers as its limits say, everywhere the same.
func TestShuffleShards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	limits := filepath.Join(dir, "limits.yml")
	writeFile(t, limits, "defaults: {shard_size: 3}\ntenants:\n  everywhere: {shard_size: 0}\n")
	ports := freePorts(t, 6)
	var receivers []*node
	run := func(name, role string, i int, more ...string) *node {
		n := newPlainNode(t, name, role, "--runtime-config.file="+limits, "--gossip.address="+addr(ports[i]),
			"--gossip.instance-id="+name)
		for _, p := range ports[:2] {
			n.args = append(n.args, "--gossip.join="+addr(p))
		}
		n.args = append(n.args, more...)
		n.start()
		return n
	}
	for i := range 5 {
		receivers = append(receivers, run("r"+strconv.Itoa(i), "receive", i, "--receive.replication-factor=2"))
	}
	query := run("query", "query", 5)
	for _, n := range append(receivers, query) {
		n.waitReady()
	}
	for _, n := range append(receivers, query) {
		eventually(t, 15*time.Second,
			func() error { return metricIs(n, `hearth_ring_members{role="receive",state="active"}`, 5) })
	}
	at := time.Now()
	send := func(id string) {
		t.Helper()
		for i, r := range receivers { // a write may be early: retried, as senders do
			eventually(t, 10*time.Second, func() error {
				req := &prompb.WriteRequest{}
				for s := range 40 {
					req.Timeseries = append(req.Timeseries,
						sample(at.UnixMilli(), float64(s), "__name__", "up", "n", strconv.Itoa(40*i+s)))
				}
				_, err := do(http.MethodPost, "http://"+r.write+"/api/v1/receive", writeHeader(tenantHeader(id)), encode(req))
				return err
			})
		}
	}
	shard := func(n *node, id string) []string {
		var page struct {
			Tenant struct {
				Members []struct{ ID string }
			}
		}
		body, err := get(n.url("/ring?format=json&tenant="+id), nil)
		if err == nil {
			err = json.Unmarshal(body, &page)
		}
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range page.Tenant.Members {
			ids = append(ids, m.ID)
		}
		return ids
	}
	for id, size := range map[string]int{"acme": 3, "blue": 3, "everywhere": 5} {
		send(id)
		want := shard(query, id)
		if len(want) != size {
			t.Fatalf("the shard of %s is %q, want %d receivers", id, want, size)
		}
		for _, r := range receivers {
			if got := shard(r, id); !slices.Equal(got, want) {
				t.Errorf("%s says that %s is on %q, and others on %q", r.name, id, got, want)
			}
			eventually(t, 10*time.Second, func() error {
				if n := holds(t, r, id, "up"); (n > 0) != slices.Contains(want, r.name) {
					return fmt.Errorf("%s has %d series of %s, whose shard is %q", r.name, n, id, want)
				}
				return nil
			})
		}
		eventually(t, 15*time.Second, func() error {
			ans, err := query.api(id).query("count(up)", at.Add(time.Second))
			if err != nil {
				return err
			}
			if v, err := scalarOf(ans); err != nil || v != 200 || len(ans.Warnings) > 0 {
				return fmt.Errorf("%v series of %s (%w), want 200; warnings %q", v, id, err, ans.Warnings)
			}
			return nil
		})
	}

	before := shard(query, "acme")
	writeFile(t, limits, "defaults: {shard_size: 4}\n")
	eventually(t, 20*time.Second, func() error {
		after := shard(query, "acme")
		for _, id := range before {
			if !slices.Contains(after, id) {
				return fmt.Errorf("a larger shard lost %s: %q, then %q", id, before, after)
			}
		}
		if len(after) != 4 {
			return fmt.Errorf("the shard is %q", after)
		}
		return nil
	})
}
