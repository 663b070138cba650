package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

const bucketObject = "hearth/bucket.json"

// says puts an identity into a bucket, as one that is old enough to stay.
func says(t *testing.T, bkt objstore.Bucket, content string) {
	t.Helper()
	if err := bkt.Upload(t.Context(), bucketObject, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// TestLabelNames: names come from flags, the bucket and the defaults, in this order; a flag that contradicts is
// refused.
func TestLabelNames(t *testing.T) {
	f := func(content, tenant, replica, want string) {
		t.Helper()
		mem := objstore.NewInMemBucket()
		if content != "" {
			says(t, mem, content)
		}
		shared := defaultShared()
		if tenant != "" {
			shared.tenantLabel, shared.tenantLabelGiven = tenant, true
		}
		if replica != "" {
			shared.replicaLabel, shared.replicaLabelGiven = replica, true
		}
		b := newBucket(mem, slog.New(slog.DiscardHandler), bucketUse{cluster: "c"})
		got, err := b.settle(shared)
		text := got.tenantLabel + " " + got.replicaLabel
		if err != nil {
			text = err.Error()
		} else if b.own != (block.Owner{Cluster: "c", TenantLabel: got.tenantLabel, ReplicaLabel: got.replicaLabel}) {
			t.Errorf("the bucket is used as %+v", b.own)
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s with flags %q, %q: %s, want %s", content, tenant, replica, text, want)
		}
	}
	theirs := `{"uuid":"u","cluster_label":"other","tenant_label":"team","replica_label":"copy"}`
	f("", "", "", "tenant_id receive_replica")
	f("", "team", "", "team receive_replica")
	f(`{"uuid":"u"}`, "", "copy", "tenant_id copy")
	f("{", "", "", "tenant_id receive_replica")
	f(theirs, "", "", "team copy")
	f(theirs, "team", "copy", "team copy")
	f(theirs, "tenant_id", "", `says tenant_label=team, and this process has --receive.tenant-label-name=tenant_id`)
	f(theirs, "", "receive_replica",
		`says replica_label=copy, and this process has --receive.replica-label-name=receive_replica`)
}

// TestGivenLabels: the environment says names, too; test/bucketowner_test.go gives flags.
func TestGivenLabels(t *testing.T) {
	s := defaultShared()
	if got := s.givenLabels(); got != (block.Owner{}) {
		t.Errorf("%+v without a flag", got)
	}
	t.Setenv("HEARTH_RECEIVE_TENANT_LABEL_NAME", "team")
	s.tenantLabel = "team"
	if got := s.givenLabels(); got != (block.Owner{TenantLabel: "team"}) {
		t.Errorf("%+v by the environment", got)
	}
}

// opened is a bucket that was opened, with what it ends the process with.
func opened(t *testing.T, mem objstore.Bucket, use bucketUse) (*bucket, *error, error) {
	t.Helper()
	b := newBucket(mem, slog.New(slog.DiscardHandler), use)
	b.own = block.Owner{Cluster: use.cluster, TenantLabel: "tenant_id", ReplicaLabel: "receive_replica"}
	ended := new(error)
	err := b.open(t.Context(), func(err error) { *ended = err })
	return b, ended, err
}

// TestBucketOfOthers: who may write into a bucket is decided before anything is written.
func TestBucketOfOthers(t *testing.T) {
	f := func(content string, use bucketUse, writes, lists bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			mem := objstore.NewInMemBucket()
			says(t, mem, content)
			time.Sleep(time.Hour) // it is no new identity
			b, ended, opening := opened(t, mem, use)
			werr := b.Upload(t.Context(), "x", bytes.NewReader(nil))
			lerr := b.Iter(t.Context(), "", func(string) error { return nil })
			time.Sleep(time.Minute)
			synctest.Wait()
			if (werr == nil) != writes || (lerr == nil) != lists {
				t.Errorf("%s, %+v: write %v, list %v", content, use, werr, lerr)
			}
			if there, _ := mem.Exists(t.Context(), "x"); there != writes {
				t.Errorf("%s, %+v: written %v", content, use, there)
			}
			wrong := use.writes && !writes || !lists
			if stops := opening != nil || *ended != nil; stops != wrong {
				t.Errorf("%s, %+v: ends %v, %v", content, use, opening, *ended)
			}
			if err := b.close(); err != nil {
				t.Error(err)
			}
		})
	}
	ours := `{"uuid":"u","cluster_label":"c","tenant_label":"tenant_id","replica_label":"receive_replica"}`
	other := strings.Replace(ours, `"c"`, `"other"`, 1)
	team := strings.Replace(ours, "tenant_id", "team", 1)
	marked := labels.FromStrings("cluster", "c")
	for _, clustered := range []bool{false, true} {
		f(ours, bucketUse{cluster: "c", writes: true, clustered: clustered}, true, true)
		f(`{"uuid":"u"}`, bucketUse{cluster: "c", writes: true, clustered: clustered}, true, true)
		f(other, bucketUse{cluster: "c", writes: true, clustered: clustered}, false, true)
		f(other, bucketUse{cluster: "c", writes: true, clustered: clustered, labels: marked}, true, true)
		f(team, bucketUse{cluster: "c", writes: true, clustered: clustered}, false, false)
		// A process that only reads writes nothing, and may read what is of another cluster.
		f(ours, bucketUse{cluster: "c", clustered: clustered}, false, true)
		f(other, bucketUse{cluster: "c", clustered: clustered}, false, true)
		f(team, bucketUse{cluster: "c", clustered: clustered}, false, false)
	}
}

// TestReaderWritesNothing: a gateway may start first, on a bucket that nobody has written to and that it may not write
// to. It learns of another's names later, and ends: after a restart it uses them.
func TestReaderWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &writeRefusing{Bucket: objstore.NewInMemBucket()}
		b, ended, err := opened(t, mem, bucketUse{cluster: "c", clustered: true})
		if id, known := b.which(); err != nil || id != "" || !known {
			t.Fatalf("%v, id %q, known %v", err, id, known)
		}
		if err := b.Iter(t.Context(), "", func(string) error { return nil }); err != nil {
			t.Error(err)
		}
		says(t, mem.Bucket, `{"uuid":"u","cluster_label":"c","tenant_label":"team","replica_label":"receive_replica"}`)
		time.Sleep(2 * lookInterval)
		synctest.Wait()
		if errs.KindOf(*ended) != errs.Conflict || mem.writes > 0 {
			t.Errorf("the process ends with %v; %d writes", *ended, mem.writes)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}

// writeRefusing is a bucket that may only be read.
type writeRefusing struct {
	objstore.Bucket
	writes int
}

func (b *writeRefusing) Upload(context.Context, string, io.Reader, ...objstore.ObjectUploadOption) error {
	b.writes++
	return errors.New("access denied")
}

// TestIdentityComesLater: a gateway that started before others made the bucket's identity tells it to the cluster from
// its next look on, and does not claim that there is none while the bucket does not answer.
func TestIdentityComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objstore.NewInMemBucket()
		broken := &brokenBucket{Bucket: mem, err: errors.New("connection refused")}
		b, ended, err := opened(t, broken, bucketUse{cluster: "c", clustered: true})
		if err != nil {
			t.Fatal(err)
		}
		f := func(name, want string, wantKnown bool) {
			t.Helper()
			time.Sleep(2 * lookInterval)
			synctest.Wait()
			if id, known := b.which(); id != want || known != wantKnown || *ended != nil {
				t.Errorf("%s: id %q, known %v, ends %v", name, id, known, *ended)
			}
		}
		f("dark", "", false)
		broken.err = nil
		f("empty", "", true)
		broken.err = errors.New("connection refused")
		f("dark again", "", false)
		broken.err = nil
		says(t, mem, `{"uuid":"u","cluster_label":"c","tenant_label":"tenant_id","replica_label":"receive_replica"}`)
		f("claimed", "u", true)
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestIdentityComesWithBlocks: a gateway knows the identity of its bucket as soon as it has listed blocks that were
// shipped by who made the identity, and not at its next look.
func TestIdentityComesWithBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objstore.NewInMemBucket()
		b, ended, err := opened(t, mem, bucketUse{cluster: "c", clustered: true})
		if err != nil {
			t.Fatal(err)
		}
		list := func() (id string, known bool) {
			t.Helper()
			if err := b.Iter(t.Context(), "", func(string) error { return nil }); err != nil {
				t.Fatal(err)
			}
			return b.which()
		}
		if id, known := list(); id != "" || !known {
			t.Errorf("of an empty bucket: id %q, known %v", id, known)
		}
		says(t, mem, `{"uuid":"u","cluster_label":"c","tenant_label":"tenant_id","replica_label":"receive_replica"}`)
		if id, known := list(); id != "u" || !known || *ended != nil {
			t.Errorf("id %q, known %v, ends %v", id, known, *ended)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}

// countedBucket counts how often its identity is read.
type countedBucket struct {
	objstore.Bucket
	reads atomic.Int32
}

func (b *countedBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == bucketObject {
		b.reads.Add(1)
	}
	return b.Bucket.Get(ctx, name)
}

// TestReadsOfIdentity: a start reads the identity once to learn names that no flag gives, and once to know whose bucket
// it is.
func TestReadsOfIdentity(t *testing.T) {
	f := func(use bucketUse, given bool, want int32) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			mem := &countedBucket{Bucket: objstore.NewInMemBucket()}
			says(t, mem, `{"uuid":"u","cluster_label":"c","tenant_label":"tenant_id","replica_label":"receive_replica"}`)
			time.Sleep(time.Hour)
			b := newBucket(mem, slog.New(slog.DiscardHandler), use)
			shared := defaultShared()
			shared.tenantLabelGiven, shared.replicaLabelGiven = given, given
			if _, err := b.settle(shared); err != nil {
				t.Fatal(err)
			}
			if got := mem.reads.Load(); (got == 0) != given {
				t.Errorf("%+v: set-up reads it %d times; flags are given: %v", use, got, given)
			}
			if err := b.open(t.Context(), func(err error) { t.Error(err) }); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if id, _ := b.which(); id != "u" {
				t.Errorf("%+v: id %q", use, id)
			}
			if got := mem.reads.Load(); got != want {
				t.Errorf("%+v, flags given %v: %d reads, want %d", use, given, got, want)
			}
			if err := b.close(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, clustered := range []bool{false, true} {
		for _, writes := range []bool{false, true} {
			f(bucketUse{cluster: "c", clustered: clustered, writes: writes}, false, 2)
		}
	}
	f(bucketUse{cluster: "c", clustered: true}, true, 1)
	f(bucketUse{cluster: "c"}, true, 1)
	f(bucketUse{cluster: "c", writes: true}, true, 2)
	f(bucketUse{cluster: "c", writes: true, clustered: true}, true, 2)
}

// TestDarkAtStart: a receiver whose bucket does not answer at the start looks whose it is before it ships.
func TestDarkAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objstore.NewInMemBucket()
		says(t, mem, `{"uuid":"u","cluster_label":"c","tenant_label":"team","replica_label":"receive_replica"}`)
		time.Sleep(time.Hour)
		dark := &brokenBucket{Bucket: mem, err: errors.New("connection refused")}
		b, ended, err := opened(t, dark, bucketUse{cluster: "c", writes: true, clustered: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Upload(t.Context(), "x", bytes.NewReader(nil)); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("dark: %v", err)
		}
		dark.err = nil
		if err := b.Upload(t.Context(), "x", bytes.NewReader(nil)); errs.KindOf(err) != errs.Conflict || *ended == nil {
			t.Errorf("with another tenant label: %v, ends %v", err, *ended)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLayoutOfBucket: a process that reads ends where the blocks are in another layout than it reads, and one that
// writes where they are in Mimir's.
func TestLayoutOfBucket(t *testing.T) {
	f := func(object string, use bucketUse, want string) {
		t.Helper()
		for _, use.clustered = range []bool{false, true} {
			mem := objstore.NewInMemBucket()
			if err := mem.Upload(t.Context(), object, strings.NewReader(`{"uuid":"u"}`)); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				use.cluster = "c"
				b, ended, err := opened(t, mem, use)
				defer b.close()
				time.Sleep(time.Minute)
				synctest.Wait()
				if err == nil {
					err = *ended
				}
				if use.writes && err == nil {
					err = b.Upload(t.Context(), "x", strings.NewReader("y"))
				}
				if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
					t.Errorf("%s, %+v: %v, want %q", object, use, err, want)
				}
				if n := len(mem.Objects()); want != "" && n != 1 {
					t.Errorf("%s, %+v: %d objects", object, use, n)
				}
			})
		}
	}
	const ours, mimirs = "01ARZ3NDEKTSV4RRFFQ69G5FA1/meta.json", "a/01ARZ3NDEKTSV4RRFFQ69G5FA1/meta.json"
	f(ours, bucketUse{}, "")
	f(ours, bucketUse{writes: true}, "")
	f(mimirs, bucketUse{mimir: true}, "")
	f(mimirs, bucketUse{}, "--objstore.layout=mimir")
	f(mimirs, bucketUse{writes: true}, "name another bucket, or a prefix of its own")
	f("a/bucket-index.json.gz", bucketUse{}, "--objstore.layout=mimir")
	f(bucketObject, bucketUse{mimir: true}, "leave --objstore.layout=mimir out")
}
