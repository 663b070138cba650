package test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSilence stops processes in the midst, so that they keep their connections and say nothing: one receiver of
// three, which no answer needs, then two, then the object store.
func TestSilence(t *testing.T) {
	objstore, s3 := startS3(t)
	c := startCluster(t, objstore)
	l := startLoad(t, c.writeURL(), "silence", 200, 200*time.Millisecond, tenantHeader("acme"))
	eventually(t, 60*time.Second, func() error {
		if l.batches() < 20 {
			return fmt.Errorf("%d batches, failures %v", l.batches(), l.failed)
		}
		return nil
	})
	l.stop()
	a := c.query.api("acme")
	whole := func() error { return l.check(a, true) }
	eventually(t, 20*time.Second, whole)

	// within fails when ask does, or takes longer than the most that anybody should wait.
	within := func(what string, most time.Duration, ask func() error) {
		t.Helper()
		begin := time.Now()
		err := ask()
		took := time.Since(begin)
		t.Logf("%s: %s", what, took.Round(time.Millisecond))
		if err != nil || took > most {
			t.Errorf("%s: after %s: %v", what, took, err)
		}
	}
	values := func() error {
		ans, err := a.get("label/instance/values", url.Values{"match[]": {"load"}})
		if err == nil && (len(ans.Warnings) > 0 || strings.Count(string(ans.Data), ",") != l.series-1) {
			return fmt.Errorf("values %.200s, warnings %q", ans.Data, ans.Warnings)
		}
		return err
	}
	c.receivers[2].signal(syscall.SIGSTOP)
	for range 3 {
		within("samples without a receiver that is silent", 10*time.Second, whole)
		within("values without a receiver that is silent", 10*time.Second, values)
	}

	for n, more := range map[*node]string{c.query: "--store.response-timeout=4s", c.store: "--store.bucket-read-timeout=2s"} {
		n.stop(30 * time.Second)
		n.args = append(n.args, more)
		n.start()
		n.waitReady()
	}
	eventually(t, 20*time.Second, whole) // the querier has heard of the gateway that started
	warned := func(says string) func() error {
		return func() error {
			ans, err := a.query("count(load)", time.Now())
			if err == nil && !slices.ContainsFunc(ans.Warnings, func(w string) bool { return strings.Contains(w, says) }) {
				return fmt.Errorf("data %s, warnings %q, want %q", ans.Data, ans.Warnings, says)
			}
			return err
		}
	}
	c.receivers[1].signal(syscall.SIGSTOP)
	for range 2 {
		within("two receivers are silent", 15*time.Second, warned("receivers r2, r3 did not answer"))
	}
	within("and no partial answer will do", 15*time.Second, func() error {
		_, err := a.get("query", url.Values{"query": {"load"}, "partial_response": {"false"}})
		if status(err) != 503 || !strings.Contains(err.Error(), "r2, r3") {
			return fmt.Errorf("want 503 and who is silent: %w", err)
		}
		return nil
	})
	for _, r := range c.receivers[1:] {
		r.signal(syscall.SIGCONT)
	}
	eventually(t, 30*time.Second, whole)

	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error { return metricIs(c.store, "hearth_store_blocks", 3) })
	s3.signal(syscall.SIGSTOP)
	within("the bucket is silent", 15*time.Second, warned("store store"))
	s3.signal(syscall.SIGCONT)
	eventually(t, 30*time.Second, whole)
}
