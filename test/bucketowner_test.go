package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/block"
)

// sharedBucket is a directory that several processes use as their bucket, with the flag that says so.
type sharedBucket struct{ dir, flag string }

func newSharedBucket(t *testing.T) sharedBucket {
	dir := filepath.Join(t.TempDir(), "bucket")
	return sharedBucket{dir, fmt.Sprintf("--objstore.config=type: FILESYSTEM\nconfig: {directory: %q}", dir)}
}

// names is what hearth/bucket.json says, by field, without the uuid.
func (b sharedBucket) names(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.dir, "hearth", "bucket.json"))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]string
	if err := json.Unmarshal(raw, &fields); err != nil || fields["uuid"] == "" {
		t.Fatalf("%s: %v", raw, err)
	}
	delete(fields, "uuid")
	return fields
}

// objects are the files of the bucket.
func (b sharedBucket) objects(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ship writes a sample to n and has it put its blocks into the bucket.
func (n *node) ship(name string, at time.Time) {
	n.t.Helper()
	body := encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(at.UnixMilli(), 1, "__name__", name)}})
	eventually(n.t, 20*time.Second, func() error {
		_, err := do(http.MethodPost, n.url("/api/v1/receive"), writeHeader(nil), body)
		return err
	})
	if _, err := do(http.MethodPost, n.url("/api/v1/admin/flush"), nil, nil); err != nil {
		n.t.Fatal(err)
	}
}

// end stops n and expects status 0.
func (n *node) end() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	if code := n.wait(30 * time.Second); code != 0 {
		n.t.Fatalf("%s: status %d:\n%s", n.name, code, tail(n.log, 5))
	}
}

// TestBucketOwner: a bucket says whose it is, and processes that would mix their blocks with those of others are
// refused.
func TestBucketOwner(t *testing.T) {
	bkt := newSharedBucket(t)
	now := time.Now()
	first := newPlainNode(t, "first", "receive", bkt.flag, "--gossip.cluster-label=eu", "--receive.tenant-label-name=team")
	first.start()
	first.waitReady()
	first.ship("first", now)
	want := map[string]string{"cluster_label": "eu", "tenant_label": "team", "replica_label": "receive_replica"}
	if got := bkt.names(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("the bucket says %v, want %v", got, want)
	}
	first.end()

	plain := func(more ...string) []string {
		return append(newPlainNode(t, "refused", "receive", bkt.flag).args, more...)
	}
	before := len(bkt.objects(t))
	refuses(t, nil, plain("--gossip.cluster-label=us"),
		"hearth/bucket.json", "cluster_label=eu", "--gossip.cluster-label=us", "--label=", "another bucket")
	refuses(t, nil, plain("--gossip.cluster-label=us", "--gossip.address="+addr(freePorts(t, 1)[0])),
		"--gossip.cluster-label=us")
	refuses(t, nil, plain("--gossip.cluster-label=us", `--label=region="eu"`), "--gossip.cluster-label=us")
	refuses(t, nil, plain("--gossip.cluster-label=eu", "--receive.tenant-label-name=tenant_id"),
		"hearth/bucket.json", "tenant_label=team", "--receive.tenant-label-name=tenant_id")
	refuses(t, []string{"HEARTH_RECEIVE_TENANT_LABEL_NAME=tenant_id"}, plain("--gossip.cluster-label=eu"),
		"tenant_label=team")
	refuses(t, nil, plain("--gossip.cluster-label=eu", "--receive.replica-label-name=copy"),
		"hearth/bucket.json", "replica_label=receive_replica", "--receive.replica-label-name=copy")
	refuses(t, nil, append(newPlainNode(t, "refused", "store", bkt.flag).args, "--receive.tenant-label-name=tenant_id"),
		"hearth/bucket.json", "tenant_label=team")
	if n := len(bkt.objects(t)); n != before {
		t.Errorf("processes that were refused wrote %d objects", n-before)
	}

	// The same cluster goes on, also without the flag: the bucket says the name.
	first.args = append(first.args[:len(first.args)-2], "--gossip.cluster-label=eu")
	first.start()
	first.waitReady()
	first.ship("again", now)
	first.end()

	// Another cluster whose blocks are marked may use the bucket, too.
	marked := newPlainNode(t, "marked", "receive", bkt.flag, "--gossip.cluster-label=us", `--label=cluster="us"`)
	marked.start()
	marked.waitReady()
	marked.ship("marked", now)
	marked.end()

	metas := 0
	for _, path := range bkt.objects(t) {
		if filepath.Base(path) != block.MetaName {
			continue
		}
		metas++
		id, _ := block.ParseID(filepath.Base(filepath.Dir(path)))
		m := metaIn(t, filepath.Dir(path), id)
		if m.Thanos.Labels["team"] != "default-tenant" || m.Thanos.Labels["tenant_id"] != "" {
			t.Errorf("%s: %+v", path, m)
		}
	}
	if metas != 3 {
		t.Errorf("%d blocks in the bucket, want 3", metas)
	}
}

// TestReadOnlyBucket: a store gateway serves a bucket that it may not write to, and writes nothing to one that it may.
// It takes the names of labels from the bucket.
func TestReadOnlyBucket(t *testing.T) {
	bkt := newSharedBucket(t)
	if err := os.MkdirAll(bkt.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	early := newPlainNode(t, "early", "store", bkt.flag, "--gossip.address="+addr(freePorts(t, 1)[0]))
	early.start()
	early.waitReady()
	early.end()
	if all := bkt.objects(t); len(all) != 0 {
		t.Errorf("a store gateway wrote %q", all)
	}

	now := time.Now()
	writer := newPlainNode(t, "writer", "receive", bkt.flag, "--receive.tenant-label-name=team")
	writer.start()
	writer.waitReady()
	writer.ship("shipped", now)
	writer.end()

	mode := func(dir, file fs.FileMode) {
		err := filepath.WalkDir(bkt.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if e.IsDir() {
				return os.Chmod(path, dir)
			}
			return os.Chmod(path, file)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	before := strings.Join(bkt.objects(t), "\n")
	mode(0o555, 0o444)
	defer mode(0o777, 0o666)
	store := newPlainNode(t, "store", "store", bkt.flag)
	query := newPlainNode(t, "query", "query", "--endpoint="+store.grpc, "--receive.tenant-label-name=team")
	store.start()
	query.start()
	store.waitReady()
	query.waitReady()
	eventually(t, 30*time.Second, func() error {
		ans, err := query.api("default-tenant").query("shipped", now)
		if err != nil {
			return err
		}
		if v, err := scalarOf(ans); err != nil || v != 1 {
			return fmt.Errorf("%s: %v %w", ans.Data, v, err)
		}
		return nil
	})
	if after := strings.Join(bkt.objects(t), "\n"); after != before {
		t.Errorf("objects before\n%s\nafter\n%s", before, after)
	}
}
