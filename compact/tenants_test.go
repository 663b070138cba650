package compact

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/compact/tenants"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// owned is a bucket that says which label names the tenant of a block.
func owned(t testing.TB) *objstore.InMemBucket {
	bkt := objstore.NewInMemBucket()
	text := `{"uuid":"u","cluster_label":"c","tenant_label":"tenant_id","replica_label":"receive_replica"}`
	if err := bkt.Upload(t.Context(), "hearth/bucket.json", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return bkt
}

// asking asks an operator's route of a compactor.
func asking(t testing.TB, c *Compactor, path string, form url.Values) (code int, text string) {
	t.Helper()
	mux := http.NewServeMux()
	operators := tenants.New(c.log, c.bkt, c, c.opts.Refuse, c.opts.Now)
	for _, r := range operators.Routes() {
		mux.Handle(r.Pattern, r.Handler)
	}
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// old is a block of a tenant, of some hours ago.
func old(t testing.TB, bkt objstore.Bucket, id string, source string, number byte) ulid.ULID {
	now := time.Now()
	return bare(t, bkt, metaOf(id, 0, now.Add(-4*time.Hour), now.Add(-2*time.Hour), source), number)
}

// left are the blocks that a bucket has, by number.
func left(t testing.TB, bkt *objstore.InMemBucket) (numbers []byte) {
	t.Helper()
	for _, id := range slices.SortedFunc(maps.Keys(viewOf(t, bkt).Metas), ulid.ULID.Compare) {
		numbers = append(numbers, id[15])
	}
	slices.Sort(numbers)
	return numbers
}

// TestDeleteTenant: the blocks of the tenant go when it is due, and those that come later; blocks of others, and those
// that say no tenant, stay. An undo leaves all as it was.
func TestDeleteTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := owned(t)
		old(t, bkt, "a", block.SourceReceive, 1)
		old(t, bkt, "a", block.SourceCompactor, 2)
		old(t, bkt, "b", block.SourceReceive, 3)
		old(t, bkt, "", block.SourceReceive, 4)
		c := openWithoutJobs(t, bkt)
		defer c.Close()
		synctest.Wait()
		if code, text := asking(t, c, "/compact/delete-tenant", url.Values{"tenant": {"a"}, "reason": {"left"}}); code != 200 ||
			!strings.Contains(text, `"blocks_without_tenant":1`) || !strings.Contains(text, `"reason":"left"`) {
			t.Fatalf("%d %s", code, text)
		}
		if code, text := asking(t, c, "/compact/delete-tenant", url.Values{"tenant": {"a"}}); code != 409 {
			t.Errorf("a second request: %d %s", code, text)
		}
		time.Sleep(23 * time.Hour)
		if got := left(t, bkt); string(got) != "\x01\x02\x03\x04" || len(viewOf(t, bkt).Deletions) != 0 {
			t.Fatalf("too early: %v", got)
		}
		if code, text := asking(t, c, "/compact/undelete-tenant", url.Values{"tenant": {"a"}, "anew": {"true"}}); code != 409 {
			t.Errorf("anew before it is due: %d %s", code, text)
		}
		if code, text := asking(t, c, "/compact/undelete-tenant", url.Values{"tenant": {"a"}}); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		if code, _ := asking(t, c, "/compact/undelete-tenant", url.Values{"tenant": {"a"}}); code != 404 {
			t.Errorf("undone twice: %d", code)
		}
		time.Sleep(100 * time.Hour)
		if got := left(t, bkt); string(got) != "\x01\x02\x03\x04" {
			t.Fatalf("undone: %v", got)
		}
		if code, text := asking(t, c, "/compact/delete-tenant", url.Values{"tenant": {"a"}, "delay": {"1h"}}); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		time.Sleep(55 * time.Minute)
		if code, text := asking(t, c, "/compact/undelete-tenant", url.Values{"tenant": {"a"}}); code != 409 ||
			!strings.Contains(text, "could be undone until") {
			t.Errorf("too late: %d %s", code, text)
		}
		if s := c.Status().Deletions; len(s) != 2 || s[0].State != deletion.Undone || s[1].State != deletion.Waiting {
			t.Errorf("%+v", s)
		}
		time.Sleep(11 * time.Minute)
		if s := c.Status().Deletions; s[1].State != deletion.Due || s[1].Blocks != 2 {
			t.Errorf("%+v", s)
		}
		v := viewOf(t, bkt)
		if len(v.Deletions) != 2 {
			t.Fatalf("marked: %v", v.Deletions)
		}
		for id, m := range v.Deletions {
			if id[15] > 2 || !strings.HasPrefix(m.Details, becauseDeleted+" ") {
				t.Errorf("mark of %s: %+v", id, m)
			}
		}
		time.Sleep(20 * time.Minute)
		if got := left(t, bkt); string(got) != "\x03\x04" {
			t.Errorf("left: %v", got)
		}
		if n := testutil.ToFloat64(c.metrics.marked.WithLabelValues(markerDeletion, becauseDeleted)); n != 2 {
			t.Errorf("%v marks are counted", n)
		}
		// A receiver that was away ships again, somebody copies a block.
		old(t, bkt, "a", block.SourceReceive, 5)
		old(t, bkt, "a", block.SourceUpload, 6)
		time.Sleep(30 * time.Minute)
		if got := left(t, bkt); string(got) != "\x03\x04" {
			t.Errorf("what came later: %v", got)
		}
		// Made anew: what is older than that goes, what is younger stays.
		if code, text := asking(t, c, "/compact/undelete-tenant", url.Values{"tenant": {"a"}, "anew": {"true"}}); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		old(t, bkt, "a", block.SourceReceive, 7)
		time.Sleep(5 * time.Hour)
		old(t, bkt, "a", block.SourceReceive, 8)
		time.Sleep(time.Hour)
		if got := left(t, bkt); string(got) != "\x03\x04\x08" {
			t.Errorf("made anew: %v", got)
		}
	})
}

// TestDeleteDefaultTenant: only the blocks that were confirmed go, and what is made of them and of heads.
func TestDeleteDefaultTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := owned(t)
		id := string(tenant.Default)
		old(t, bkt, id, block.SourceReceive, 1)
		old(t, bkt, "", block.SourceReceive, 2)
		c := openWithoutJobs(t, bkt)
		defer c.Close()
		synctest.Wait()
		code, text := asking(t, c, "/compact/delete-tenant", url.Values{"tenant": {id}})
		_, digest, found := strings.Cut(text, "by their digest ")
		if code != 409 || !found {
			t.Fatalf("not confirmed: %d %s", code, text)
		}
		digest = digest[:32]
		old(t, bkt, id, block.SourceReceive, 3)
		form := url.Values{"tenant": {id}, "delay": {"5h"}, "confirm": {digest}}
		if code, text := asking(t, c, "/compact/delete-tenant", form); code != 409 || !strings.Contains(text, "2 blocks") {
			t.Fatalf("another block has come: %d %s", code, text)
		}
		v := viewOf(t, bkt)
		of, err := block.ReadIdentity(t.Context(), bkt)
		if err != nil {
			t.Fatal(err)
		}
		_, err = change.DeleteTenant(v, of, tenant.Default, time.Now(), change.Asked{})
		_, digest, _ = strings.Cut(fmt.Sprint(err), "by their digest ")
		form.Set("confirm", digest)
		code, text = asking(t, c, "/compact/delete-tenant", form)
		var answer struct{ Data change.TenantPlan }
		if err := json.Unmarshal([]byte(text), &answer); code != 200 || err != nil {
			t.Fatalf("%d %s", code, text)
		}
		if got := answer.Data.Request.Confirmed; got == nil || len(got.Blocks) != 2 {
			t.Errorf("confirmed: %v", got)
		}
		time.Sleep(4 * time.Hour)
		old(t, bkt, id, block.SourceReceive, 4) // its id is of 2 h after the request
		old(t, bkt, id, block.SourceUpload, 5)
		time.Sleep(2 * time.Hour)
		if got := left(t, bkt); string(got) != "\x02\x05" {
			t.Errorf("left: %v", got)
		}
	})
}

// TestDeleteTenantGuards: nothing is marked while the clock is wrong; what cannot be read has no effect, and the pass
// says so.
func TestDeleteTenantGuards(t *testing.T) {
	bkt := owned(t)
	old(t, bkt, "a", block.SourceReceive, 1)
	o := testOptions(t, "one")
	o.Jobs.Off, o.DeleteDelay = true, 0
	o.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	if err := deletion.Put(t.Context(), bkt, deletion.New("a", time.Now(), time.Hour)); err != nil {
		t.Fatal(err)
	}
	c := newCompactor(t, bkt, o)
	if err := c.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("%v", err)
	}
	if code, text := asking(t, c, "/compact/delete-tenant", url.Values{"tenant": {"b"}}); code != 409 || !strings.Contains(text, "clock") {
		t.Errorf("%d %s", code, text)
	}
	if len(left(t, bkt)) != 1 || len(viewOf(t, bkt).Deletions) != 0 || len(viewOf(t, bkt).Requests.Entries()) != 1 {
		t.Error("something was done")
	}
	bad := deletion.Folder + ulid.MustNew(1, strings.NewReader("0123456789")).String() + ".json"
	if err := bkt.Upload(t.Context(), bad, strings.NewReader(`{"version":2}`)); err != nil {
		t.Fatal(err)
	}
	o.Now = nil
	c = newCompactor(t, bkt, o)
	if err := c.Once(t.Context()); err == nil || !strings.Contains(err.Error(), bad) || len(left(t, bkt)) != 1 {
		t.Errorf("%v", err)
	}
	for form, want := range map[string]int{"tenant=": 400, "tenant=../x": 400, "tenant=b&delay=x": 400, "tenant=b&delay=9999d": 400,
		"tenant=b&anew=x": 400, "tenant=b&reason=" + strings.Repeat("x", 2000): 400} {
		values, _ := url.ParseQuery(form)
		if code, text := asking(t, c, "/compact/delete-tenant", values); code != want {
			t.Errorf("%.50s: %d %s", form, code, text)
		}
	}
	c.opts.Refuse = true
	if code, _ := asking(t, c, "/compact/delete-tenant", url.Values{"tenant": {"b"}}); code != 403 {
		t.Error(code)
	}
	if code, _ := asking(t, c, "/compact/undelete-tenant", url.Values{"tenant": {"a"}}); code != 403 {
		t.Error(code)
	}
}

// TestDeletionMetric: a request is counted by what it is at the time of the scrape, also if nobody has looked since.
func TestDeletionMetric(t *testing.T) {
	bkt, now := owned(t), time.Now()
	o := testOptions(t, "one")
	o.Now = func() time.Time { return now }
	reg := prometheus.NewRegistry()
	c, err := New(slog.New(slog.DiscardHandler), reg, bkt, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := deletion.Put(t.Context(), bkt, deletion.New("a", now, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := func(state string) {
		t.Helper()
		text := "# HELP hearth_compact_tenant_deletions Requests to delete a tenant, by state: waiting, held, undone, due or " +
			"renewed.\n# TYPE hearth_compact_tenant_deletions gauge\n"
		for _, s := range []string{"due", "held", "renewed", "undone", "waiting"} {
			n := 0
			if s == state {
				n = 1
			}
			text += fmt.Sprintf("hearth_compact_tenant_deletions{state=%q} %d\n", s, n)
		}
		err := testutil.GatherAndCompare(reg, strings.NewReader(text), "hearth_compact_tenant_deletions")
		if err != nil {
			t.Error(err)
		}
	}
	want("waiting")
	now = now.Add(2 * time.Hour)
	want("due")
}

// TestDeleteRules: the rules of a tenant go when its deletion is due, and those that come later. Rules of others stay,
// and those of the tenant that were stored since it was made anew.
func TestDeleteRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := owned(t)
		put := func(name string) string {
			if err := bkt.Upload(t.Context(), name, strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
			return name
		}
		version := func(id string) string {
			return put("hearth/rules/" + id + "/bnM/Zw/" + ulid.MustNew(ulid.Timestamp(time.Now()), ulid.DefaultEntropy()).String() + ".yaml")
		}
		has := func(name string) bool {
			there, err := bkt.Exists(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			return there
		}
		own, mimirs, alike := version("a"), put("rules/a/bnM=/Zw=="), version("a b")
		others := put("rules/ab/bnM=/Zw==")
		c := openWithoutJobs(t, bkt)
		defer c.Close()
		synctest.Wait()
		if code, text := asking(t, c, "/compact/delete-tenant", url.Values{"tenant": {"a"}}); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		time.Sleep(23 * time.Hour)
		if !has(own) || !has(mimirs) {
			t.Fatal("too early")
		}
		time.Sleep(2 * time.Hour)
		if has(own) || has(mimirs) || !has(others) || !has(alike) {
			t.Fatalf("own %v, of Mimir %v, of others %v, %v", has(own), has(mimirs), has(others), has(alike))
		}
		later := version("a")
		time.Sleep(time.Hour)
		if has(later) {
			t.Error("what came later stays")
		}
		if code, text := asking(t, c, "/compact/undelete-tenant", url.Values{"tenant": {"a"}, "anew": {"true"}}); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		time.Sleep(time.Hour)
		anew := version("a")
		time.Sleep(time.Hour)
		if !has(anew) || !has(others) || !has(alike) {
			t.Error("rules of a tenant that was made anew are deleted")
		}
	})
}
