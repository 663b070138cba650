package block

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// slowBucket takes delay for each upload.
type slowBucket struct {
	objstore.Bucket
	delay time.Duration
}

func (b *slowBucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	select {
	case <-time.After(b.delay):
		return b.Bucket.Upload(ctx, name, r, o...)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ours is whose the buckets of these tests are.
var ours = Owner{Cluster: "hearth", TenantLabel: "tenant_id", ReplicaLabel: "receive_replica"}

func anyIdentity(Identity) error { return nil }

func TestClaim(t *testing.T) {
	f := func(delays ...time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			mem := objstore.NewInMemBucket()
			got := make([]Identity, len(delays))
			var wg sync.WaitGroup
			for i, d := range delays {
				wg.Go(func() {
					id, err := Claim(t.Context(), &slowBucket{mem, d}, ours, anyIdentity)
					if err != nil {
						t.Error(err)
					}
					got[i] = id
				})
			}
			wg.Wait()
			for _, id := range got {
				if id.UUID == "" || id.Owner != ours || id != got[0] {
					t.Fatalf("they disagree: %q", got)
				}
			}
			time.Sleep(fresh)
			begin := time.Now()
			if again, err := Claim(t.Context(), mem, ours, anyIdentity); err != nil || again != got[0] ||
				time.Since(begin) != 0 {
				t.Fatalf("read again: %q, %v", again, err)
			}
		})
	}
	f(0)
	f(0, 0, 0)
	f(0, 900*time.Millisecond, 300*time.Millisecond)
	synctest.Test(t, func(t *testing.T) { // too slow a write is an error, not a doubtful identity
		id, err := Claim(t.Context(), &slowBucket{objstore.NewInMemBucket(), time.Hour}, ours, anyIdentity)
		if errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("%q, %v", id, err)
		}
	})
	if _, err := Claim(t.Context(), objstore.NewInMemBucket(), Owner{Cluster: "x"},
		anyIdentity); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a process that does not know its names: %v", err)
	}
}

// TestClaimCompletes has an object of a version that knew only the uuid.
func TestClaimCompletes(t *testing.T) {
	f := func(was, want string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			mem := objstore.NewInMemBucket()
			put1(t, mem, identityName, was)
			time.Sleep(fresh)
			id, err := Claim(t.Context(), mem, ours, anyIdentity)
			if err != nil || !id.complete() {
				t.Fatalf("%+v, %v", id, err)
			}
			r, err := mem.Get(t.Context(), identityName)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(r); string(b) != want {
				t.Errorf("%s became %s, want %s", was, b, want)
			}
		})
	}
	f(`{"uuid":"u1"}`,
		`{"cluster_label":"hearth","replica_label":"receive_replica","tenant_label":"tenant_id","uuid":"u1"}`)
	f(`{"uuid":"u1","tenant_label":"team","of a later version":[1]}`,
		`{"cluster_label":"hearth","of a later version":[1],"replica_label":"receive_replica","tenant_label":"team","uuid":"u1"}`)
	whole := `{"uuid":"u1","cluster_label":"a","tenant_label":"b","replica_label":"c"}`
	f(whole, whole)
}

// TestClaimsOfTwo has processes of two clusters at once on a bucket that is new, or of an earlier version: exactly
// those of one cluster get it, and no process believes that it has a bucket that another cluster has, too.
func TestClaimsOfTwo(t *testing.T) {
	for _, was := range []string{"", `{"uuid":"u1"}`, `{"uu`} {
		synctest.Test(t, func(t *testing.T) {
			mem := objstore.NewInMemBucket()
			if was != "" {
				put1(t, mem, identityName, was)
			}
			var mu sync.Mutex
			winners, refused := map[string]int{}, 0
			var wg sync.WaitGroup
			for i, cluster := range []string{"a", "b", "a", "b"} {
				own := Owner{Cluster: cluster, TenantLabel: "tenant_id", ReplicaLabel: "receive_replica"}
				wg.Go(func() {
					_, err := Claim(t.Context(), &slowBucket{mem, time.Duration(i) * 200 * time.Millisecond}, own,
						func(id Identity) error { return id.MayWrite(own, labels.EmptyLabels()) })
					mu.Lock()
					defer mu.Unlock()
					switch errs.KindOf(err) {
					case errs.OK:
						winners[cluster]++
					case errs.Conflict:
						refused++
					default:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			id, err := ReadIdentity(t.Context(), mem)
			if err != nil || len(winners) != 1 || winners[id.Cluster] != 2 || refused != 2 {
				t.Errorf("%q: the bucket is of %q, %v have it, %d are refused; %v", was, id.Cluster, winners, refused, err)
			}
		})
	}
}

// TestClaimRefused: a process that may not write does not write the object either.
func TestClaimRefused(t *testing.T) {
	mem := objstore.NewInMemBucket()
	put1(t, mem, identityName, `{"uuid":"u1","tenant_label":"team"}`)
	no := errors.New("no")
	if _, err := Claim(t.Context(), mem, ours, func(Identity) error { return no }); !errors.Is(err, no) {
		t.Error(err)
	}
	if id, err := ReadIdentity(t.Context(), mem); err != nil || id.Cluster != "" {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestSettledIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objstore.NewInMemBucket()
		if _, err := SettledIdentity(t.Context(), mem); errs.KindOf(err) != errs.NotFound {
			t.Fatal(err)
		}
		put1(t, mem, identityName, `{"uuid":"first"}`)
		go func() {
			time.Sleep(settle / 2)
			put1(t, mem, identityName, `{"uuid":"last"}`)
		}()
		if id, err := SettledIdentity(t.Context(), mem); err != nil || id.UUID != "last" {
			t.Errorf("%+v, %v", id, err)
		}
	})
}

func TestReadIdentity(t *testing.T) {
	f := func(content string, want errs.Kind) {
		t.Helper()
		mem := objstore.NewInMemBucket()
		put1(t, mem, identityName, content)
		if id, err := ReadIdentity(t.Context(), mem); errs.KindOf(err) != want {
			t.Errorf("%.80s: %+v, %v", content, id, err)
		}
	}
	f(`{"uuid":"u"}`, errs.OK)
	f(``, errs.Invalid)
	f(`{}`, errs.Invalid)
	f(`[]`, errs.Invalid)
	f(`{"uuid":1}`, errs.Invalid)
	f(`{"uuid":"`+strings.Repeat("x", 300)+`"}`, errs.Invalid)
	f(`{"uuid":"u","cluster_label":"`+strings.Repeat("x", 300)+`"}`, errs.Invalid)
}

// TestMayWrite is the table of who may do what with a bucket.
func TestMayWrite(t *testing.T) {
	f := func(name string, bucket, own Owner, ext labels.Labels, reads, writes bool, says ...string) {
		t.Helper()
		id := Identity{"u", bucket}
		read, write := id.MayRead(own), id.MayWrite(own, ext)
		if (read == nil) != reads || (write == nil) != writes {
			t.Errorf("%s: reads %v, writes %v", name, read, write)
		}
		for _, err := range []error{read, write} {
			if err != nil && errs.KindOf(err) != errs.Conflict {
				t.Errorf("%s: kind %v", name, errs.KindOf(err))
			}
		}
		for _, text := range says {
			if write == nil || !strings.Contains(write.Error(), text) {
				t.Errorf("%s: %v does not say %s", name, write, text)
			}
		}
	}
	with := func(change func(*Owner)) Owner {
		o := ours
		change(&o)
		return o
	}
	none := labels.EmptyLabels()
	f("the same", ours, ours, none, true, true)
	f("an earlier version's", Owner{}, ours, none, true, true)
	f("no flags", ours, Owner{Cluster: "hearth"}, none, true, true)
	f("another tenant label", ours, with(func(o *Owner) { o.TenantLabel = "team" }), none, false, false,
		"hearth/bucket.json", "tenant_label=tenant_id", "--receive.tenant-label-name=team", "another bucket")
	f("another replica label", ours, with(func(o *Owner) { o.ReplicaLabel = "replica" }), none, false, false,
		"hearth/bucket.json", "replica_label=receive_replica", "--receive.replica-label-name=replica")
	us := with(func(o *Owner) { o.Cluster = "us" })
	f("another cluster", ours, us, none, true, false,
		"hearth/bucket.json", "cluster_label=hearth", "--gossip.cluster-label=us", `--label='cluster="us"'`)
	f("another cluster, marked", ours, us, labels.FromStrings("where", "us"), true, true)
	f("another cluster, with any label", ours, us, labels.FromStrings("where", "eu"), true, false)
	f("another cluster, marked by the replica", ours, us, labels.FromStrings("receive_replica", "us"), true, false)
	f("another cluster, marked by the tenant", ours, us, labels.FromStrings("tenant_id", "us"), true, false)
	f("another cluster, marked, with another tenant label", ours, Owner{"us", "team", "receive_replica"},
		labels.FromStrings("cluster", "us"), false, false)
}
