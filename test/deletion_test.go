package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tenantsIn are the tenants of the blocks that a bucket directory has, one for each block.
func tenantsIn(bucket string) (all []string, err error) {
	metas, err := filepath.Glob(filepath.Join(bucket, "*", "meta.json"))
	for _, path := range metas {
		raw, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		var m struct {
			Thanos struct{ Labels map[string]string }
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, m.Thanos.Labels["tenant_id"])
	}
	return all, err
}

// TestTenantDeletion: two tenants are written, shipped and written again; one of them is deleted while a receiver is
// down. Its writes are refused at once, its data goes from answers, disks and the bucket, and what the receiver has
// that was away does not come back. The other tenant is untouched. Then the tenant is made anew.
func TestTenantDeletion(t *testing.T) {
	t.Parallel()
	bucket := t.TempDir()
	objstore := fmt.Sprintf("type: FILESYSTEM\nconfig: {directory: %q}\n", bucket)
	c := startCluster(t, objstore, "--receive.deletion-interval=500ms")
	compactor := newNode(t, "compact", "compact")
	compactor.args = slices.DeleteFunc(compactor.args, func(a string) bool { return strings.HasPrefix(a, "--grpc") })
	compactor.args = append(compactor.args, "--data-dir="+compactor.dir, "--objstore.config="+objstore, "--wait",
		"--wait-interval=1s", "--compact.cleanup-interval=1s", "--delete-delay=0s",
		"--gossip.join="+c.receivers[0].gossipAddr)
	compactor.start()
	compactor.waitReady()

	now := time.Now()
	client := http.DefaultClient
	write := func(tenant, job string) error {
		_, err := do(http.MethodPost, "http://"+c.distributor.write+"/api/v1/receive", writeHeader(tenantHeader(tenant)),
			writeBody(job, 20, now.UnixMilli()))
		return err
	}
	reads := func(tenant string, want ...string) error {
		code, got, err := jobs(client, "http://"+c.query.http, tenantHeader(tenant))
		if err != nil || code != http.StatusOK || !slices.Equal(got, want) {
			return fmt.Errorf("tenant %s: %d %q %w", tenant, code, got, err)
		}
		return nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tenant := range []string{"acme", "other"} {
		must(write(tenant, "shipped"))
	}
	for _, r := range c.receivers[:2] {
		_, err := do(http.MethodPost, r.url("/api/v1/admin/flush"), nil, nil)
		must(err)
	}
	for _, tenant := range []string{"acme", "other"} {
		must(write(tenant, "head"))
		eventually(t, 20*time.Second, func() error { return reads(tenant, "head", "shipped") })
	}
	away := c.receivers[2]
	away.kill()

	form := url.Values{"tenant": {"acme"}, "delay": {"15s"}, "reason": {"contract ended"}}
	answer, err := do(http.MethodPost, compactor.url("/compact/delete-tenant"),
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(form.Encode()))
	must(err)
	var asked struct {
		Data struct{ Request struct{ ID string } }
	}
	must(json.Unmarshal(answer, &asked))
	must(reads("acme", "head", "shipped")) // it can still be undone
	eventually(t, 10*time.Second, func() error {
		err := write("acme", "late")
		if status(err) != http.StatusBadRequest || !strings.Contains(err.Error(), asked.Data.Request.ID) ||
			!strings.Contains(err.Error(), `tenant \"acme\"`) && !strings.Contains(err.Error(), `tenant "acme"`) {
			return fmt.Errorf("the write was answered with %w", err)
		}
		return nil
	})
	must(write("other", "late"))

	gone := func(receivers ...*node) error {
		left, err := tenantsIn(bucket)
		if err != nil || slices.Contains(left, "acme") || !slices.Contains(left, "other") {
			return fmt.Errorf("blocks of %q are in the bucket %w", left, err)
		}
		for _, r := range receivers {
			dirs, err := filepath.Glob(filepath.Join(r.dir, "*acme*"))
			if err != nil || len(dirs) > 0 {
				return fmt.Errorf("%s has %q %w", r.name, dirs, err)
			}
		}
		return reads("acme")
	}
	eventually(t, 60*time.Second, func() error { return gone(c.receivers[:2]...) })
	eventually(t, 20*time.Second, func() error { return reads("other", "head", "late", "shipped") })

	away.start()
	away.waitReady()
	must(reads("acme"))
	eventually(t, 20*time.Second, func() error { return gone(c.receivers...) })
	_, err = do(http.MethodPost, away.url("/api/v1/admin/flush"), nil, nil)
	must(err)
	eventually(t, 20*time.Second, func() error { return gone(c.receivers...) })
	must(reads("other", "head", "late", "shipped"))

	tool := func(args ...string) string {
		return prints(t, append(args, "--objstore.config="+objstore)...)
	}
	out := tool("tools", "tenant", "list", "--output=json")
	if !strings.Contains(out, `"state":"due"`) || !strings.Contains(out, `"blocks":0`) {
		t.Error(out)
	}
	if out := tool("tools", "tenant", "undelete", "acme", "--anew", "--no-dry-run"); !strings.HasPrefix(out, "renewed: ") {
		t.Error(out)
	}
	eventually(t, 10*time.Second, func() error { return write("acme", "anew") })
	eventually(t, 20*time.Second, func() error { return reads("acme", "anew") })
	for _, r := range c.receivers {
		_, err := do(http.MethodPost, r.url("/api/v1/admin/flush"), nil, nil)
		must(err)
	}
	eventually(t, 20*time.Second, func() error {
		left, err := tenantsIn(bucket)
		if err != nil || !slices.Contains(left, "acme") {
			return fmt.Errorf("blocks of %q are in the bucket %w", left, err)
		}
		return reads("acme", "anew")
	})
}
