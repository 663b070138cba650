package compact

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestRelease: an operator takes a quarantined block back by a request; no page of another server does, and nobody
// where changes are refused.
func TestRelease(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	c := newCompactor(t, bkt, testOptions(t, "one"))
	other := newCompactor(t, bkt, testOptions(t, "two"))
	now := time.Now()
	id := bare(t, bkt, metaOf("a", 0, now.Add(-4*time.Hour), now.Add(-2*time.Hour), block.SourceReceive), 1)
	var none *failure
	c.failed(t.Context(), none.next(id, failedBlock, errs.E(errs.Invalid, "damaged"), now, time.Minute))
	v := viewOf(t, bkt)
	if err := other.syncFailures(t.Context(), v, nil); err != nil || len(other.Status().Failed) != 1 {
		t.Fatalf("%v: the other compactor knows of %v", err, other.Status().Failed)
	}
	ask := func(method, form string, headers ...string) *httptest.ResponseRecorder {
		mux := http.NewServeMux()
		for _, r := range c.Routes() {
			mux.Handle(r.Pattern, r.Handler)
		}
		r := httptest.NewRequest(method, "/compact/release", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w
	}
	f := func(want int, w *httptest.ResponseRecorder) {
		t.Helper()
		if _, there := bkt.Objects()[quarantineName(id)]; w.Code != want || !there {
			t.Errorf("%d %s, want %d; the mark is there: %v", w.Code, w.Body, want, there)
		}
	}
	f(400, ask("POST", "id=../x"))
	f(400, ask("POST", ""))
	f(404, ask("POST", "id=01M8N4V7PD31VZPX8J83FEP8J4"))
	f(405, ask("GET", "id="+id.String()))
	f(403, ask("POST", "id="+id.String(), "Sec-Fetch-Site", "cross-site"))
	c.opts.Refuse = true
	f(403, ask("POST", "id="+id.String()))
	c.opts.Refuse = false
	if w := ask("POST", "id="+id.String(), "Accept", "text/html"); w.Code != 303 || w.Header().Get("Location") != "../compact" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if _, there := bkt.Objects()[quarantineName(id)]; there || len(c.Status().Failed) != 0 {
		t.Error("it is not released")
	}
	if err := other.syncFailures(t.Context(), v, nil); err != nil || len(other.Status().Failed) != 0 {
		t.Errorf("%v: the other compactor still has %v", err, other.Status().Failed)
	}
	// A block whose mark could not be written is released, too.
	c.failures.known[id] = &failure{Failure: none.next(id, failedBlock, errs.E(errs.Invalid, "x"), now, time.Minute)}
	if w := ask("POST", "id="+id.String()); w.Code != 200 || len(c.Status().Failed) != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestProgress: what is left is counted on its own interval, whoever does it, with what follows from it.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := objstore.NewInMemBucket()
		start, now := time.Now().Truncate(8*time.Hour).Add(-40*24*time.Hour), time.Now()
		for i := range 12 { // three replicas of four ranges: four times united, then one compaction
			from := start.Add(time.Duration(i/3) * 2 * time.Hour)
			m := metaOf("a", 0, from, from.Add(2*time.Hour), block.SourceReceive)
			m.Thanos.Labels["receive_replica"], m.Thanos.UploadTime = string(rune('a'+i%3)), now.Add(-time.Hour)
			m.Compaction.Level = 1
			bare(t, bkt, m, byte(i))
		}
		late := metaOf("a", 0, start.Add(48*time.Hour), start.Add(50*time.Hour), block.SourceReceive)
		late.Compaction.Level = 1
		bare(t, bkt, late, 100)
		old := metaOf("b", 0, start, start.Add(2*time.Hour), block.SourceReceive)
		old.Compaction.Level = 1
		bare(t, bkt, old, 101)
		o := testOptions(t, "one")
		o.Owns = func([]byte) bool { return false } // others do the work
		o.Jobs.Downsample, o.ProgressInterval = false, 30*time.Minute
		o.Retention.Wait = time.Hour
		o.Retention.Configured = func() (Configured, error) {
			return Configured{Tenants: map[string]TenantPeriods{"b": {Periods: Periods{Raw: 48 * time.Hour}}}}, nil
		}
		c := newCompactor(t, bkt, o)
		c.opts.CleanInterval = 1000 * time.Hour // the first pass marks nothing, as the retention waits
		_ = c.Open(t.Context(), nil)
		defer c.Close()
		f := func(compactions, blocks, deletions float64) {
			t.Helper()
			synctest.Wait()
			m := c.metrics
			got := [3]float64{testutil.ToFloat64(m.todoJobs), testutil.ToFloat64(m.todoBlocks),
				testutil.ToFloat64(m.todoDeletion)}
			if want := [3]float64{compactions, blocks, deletions}; got != want {
				t.Errorf("compactions, blocks, deletions: %v, want %v", got, want)
			}
		}
		time.Sleep(time.Minute)
		f(5, 16, 0)
		time.Sleep(2 * time.Hour)
		f(5, 16, 1)
	})
}
