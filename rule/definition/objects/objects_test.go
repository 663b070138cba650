package objects

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
	"github.com/hearth-metrics/hearth/rule/definition/sourcetest"
)

func newStore(bkt objstore.Bucket) *Store {
	return New(slog.New(slog.DiscardHandler), bkt, Options{Interval: time.Hour})
}

func newGroup(t *testing.T, namespace, name, expr string) *definition.Group {
	t.Helper()
	g, err := definition.ParseGroup([]byte(fmt.Sprintf("name: %q\nrules:\n- {record: r, expr: %q}\n", name, expr)))
	if err != nil {
		t.Fatal(err)
	}
	g.Tenant, g.Namespace = "acme", namespace
	return &g
}

func keys(t *testing.T, bkt objstore.Bucket) (all []string) {
	t.Helper()
	add := func(key string) error { all = append(all, key); return nil }
	err := bkt.Iter(t.Context(), "", add, objstore.WithRecursiveIter())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// upload puts bytes into the bucket, as another program does.
func upload(t *testing.T, bkt objstore.Bucket, key string, raw []byte) {
	t.Helper()
	if err := bkt.Upload(t.Context(), key, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
}

// TestContract: both forms of objects are a source, in memory and as files.
func TestContract(t *testing.T) {
	for name, make := range map[string]func() objstore.Bucket{
		"memory": func() objstore.Bucket { return objstore.NewInMemBucket() },
		"files": func() objstore.Bucket {
			bkt, err := filesystem.NewBucket(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return bkt
		},
		"levels": func() objstore.Bucket { return levels{objstore.NewInMemBucket()} },
	} {
		t.Run(name, func(t *testing.T) {
			bkt := make()
			s := newStore(bkt)
			put := func(name, text string) {
				g, err := definition.ParseGroup([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				g.Tenant, g.Namespace = "acme", "ns"
				if err := s.Put(t.Context(), &g); err != nil {
					t.Fatal(err)
				}
			}
			sourcetest.Run(t, sourcetest.Place{
				Source: s, Put: put, Look: func() { s.poll(t.Context()) },
				Spoil: func(name string) {
					version := ulid.MustNew(ulid.Timestamp(time.Now().Add(time.Hour)), ulid.DefaultEntropy())
					upload(t, bkt, newObject(id{"acme", "ns", name}, version).key, []byte("version: 1\nnamespace: ns\n"))
				},
				Delete: func(name string) {
					if err := s.Delete(t.Context(), "acme", "ns", name); err != nil {
						t.Fatal(err)
					}
				},
			})
		})
		t.Run(name+" of Mimir", func(t *testing.T) {
			bkt := make()
			s := newStore(bkt)
			sourcetest.Run(t, sourcetest.Place{
				Source: s, Look: func() { s.poll(t.Context()) },
				Put: func(name, text string) {
					g, err := definition.ParseGroup([]byte(text))
					if err != nil {
						t.Fatal(err)
					}
					upload(t, bkt, mimirKey("rival", "ns", name), mimirGroup("rival", "ns", name, g.Rules[0].Expr))
				},
				Spoil: func(name string) { upload(t, bkt, mimirKey("rival", "ns", name), []byte("\xff\xff")) },
				Delete: func(name string) {
					if err := bkt.Delete(t.Context(), mimirKey("rival", "ns", name)); err != nil {
						t.Fatal(err)
					}
				},
			})
		})
	}
}

// levels is a bucket that lists one level at a time and tells no times.
type levels struct{ objstore.Bucket }

func (levels) SupportedIterOptions() []objstore.IterOptionType { return nil }

func mimirKey(of, namespace, name string) string {
	enc := base64.URLEncoding
	return "rules/" + of + "/" + enc.EncodeToString([]byte(namespace)) + "/" + enc.EncodeToString([]byte(name))
}

func message(raw []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(raw, number, protowire.BytesType), value)
}

func duration(d time.Duration) []byte {
	if d == 0 {
		return nil
	}
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(d/time.Second))
}

func label(name, value string) []byte {
	return message(message(nil, 1, []byte(name)), 2, []byte(value))
}

// mimirGroup is a group as Mimir writes it, with its durations that are zero.
func mimirGroup(of, namespace, name, expr string) []byte {
	rule := message(message(message(nil, 1, []byte(expr)), 2, []byte("r")), 4, nil)
	raw := message(message(nil, 1, []byte(name)), 2, []byte(namespace))
	raw = message(message(raw, 3, duration(time.Minute)), 4, rule)
	return message(message(message(raw, 6, []byte(of)), 11, nil), 13, nil)
}

// TestChanges: what was stored is there, once, under the newest version, and what was deleted is gone in both forms.
func TestChanges(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	s := newStore(bkt)
	ctx := t.Context()
	list := func(namespace, want string) {
		t.Helper()
		groups, err := s.List(ctx, "acme", namespace)
		var got []string
		for _, g := range groups {
			got = append(got, g.Namespace+"/"+g.Name+"="+g.Rules[0].Expr)
		}
		if text := strings.Join(got, " "); err != nil || text != want {
			t.Errorf("%q, %v; want %q", text, err, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	list("", "")
	must(s.Put(ctx, newGroup(t, "ns", "g", "one")))
	must(s.Put(ctx, newGroup(t, "ns", "g", "two")))
	must(s.Put(ctx, newGroup(t, "ns", "h", "up")))
	must(s.Put(ctx, newGroup(t, "other", "g", "up")))
	list("", "ns/g=two ns/h=up other/g=up")
	list("ns", "ns/g=two ns/h=up")
	if all := keys(t, bkt); len(all) != 3 {
		t.Errorf("old versions stay: %q", all)
	}
	slow := newStore(bkt)
	slow.opts.Now = func() time.Time { return time.Unix(1, 0) }
	must(slow.Put(ctx, newGroup(t, "ns", "g", "three"))) // its clock is behind
	list("ns", "ns/g=three ns/h=up")
	if n, err := s.Count(ctx, "acme", "ns", "g"); n != 2 || err != nil {
		t.Errorf("%d groups besides one of three, %v", n, err)
	}
	if n, err := s.Count(ctx, "acme", "ns", "new"); n != 3 || err != nil {
		t.Errorf("%d groups besides a new one, %v", n, err)
	}
	if _, err := s.Get(ctx, "acme", "ns", "none"); errs.KindOf(err) != errs.NotFound {
		t.Error(err)
	}
	upload(t, bkt, mimirKey("acme", "ns", "broken"), []byte("\xff")) // it costs only those who ask for it
	if g, err := s.Get(ctx, "acme", "ns", "h"); err != nil || g.Name != "h" || g.Tenant != "acme" {
		t.Errorf("%+v, %v", g, err)
	}
	must(bkt.Delete(ctx, mimirKey("acme", "ns", "broken")))
	upload(t, bkt, mimirKey("acme", "ns", "g"), mimirGroup("acme", "ns", "g", "theirs"))
	upload(t, bkt, mimirKey("acme", "ns", "m"), mimirGroup("acme", "ns", "m", "theirs"))
	list("ns", "ns/g=three ns/h=up ns/m=theirs") // Hearth's form counts
	must(s.Delete(ctx, "acme", "ns", "g"))
	list("ns", "ns/h=up ns/m=theirs")
	must(s.Delete(ctx, "acme", "ns", ""))
	list("", "other/g=up")
	if all := keys(t, bkt); len(all) != 1 {
		t.Errorf("left: %q", all)
	}
	for _, name := range []string{"", "g"} {
		if err := s.Delete(ctx, "acme", "ns", name); errs.KindOf(err) != errs.NotFound {
			t.Errorf("%q: %v", name, err)
		}
	}
	if groups, err := s.List(ctx, "rival", ""); groups != nil || err != nil {
		t.Errorf("another tenant sees %v, %v", groups, err)
	}
}

// TestHostileNames: no name reaches another tenant, namespace or directory, and each is read as it was written.
func TestHostileNames(t *testing.T) {
	dir := t.TempDir()
	bkt, err := filesystem.NewBucket(filepath.Join(dir, "bucket"))
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(bkt)
	names := []string{"..", ".", "/", "../../x", "a/b", "%2F", "a b", "\n", "\x00", "ns", "NS", "日本", "~", "*",
		strings.Repeat("x", MaxNameBytes), "-", "_", "?", "'\"", "{{ . }}", "!!binary x", "&a", "a: b", "#", "null", "1"}
	for _, namespace := range names {
		for _, name := range []string{names[0], namespace} {
			if err := s.Put(t.Context(), newGroup(t, namespace, name, "up")); err != nil {
				t.Errorf("%q, %q: %v", namespace, name, err)
			}
			if g, err := s.Get(t.Context(), "acme", namespace, name); err != nil || g.Name != name || g.Namespace != namespace {
				t.Errorf("%q, %q: %+v, %v", namespace, name, g, err)
			}
		}
	}
	if groups, err := s.List(t.Context(), "acme", ""); err != nil || len(groups) != 2*len(names)-1 {
		t.Errorf("%d groups, %v; want %d", len(groups), err, 2*len(names)-1)
	}
	for _, key := range keys(t, bkt) {
		if o, ok := parseKey(key); !ok || o.key != key || !strings.HasPrefix(key, "hearth/rules/acme/") {
			t.Errorf("an object outside: %s", key)
		}
	}
	for _, namespace := range names {
		if err := s.Delete(t.Context(), "acme", namespace, ""); err != nil {
			t.Errorf("%q: %v", namespace, err)
		}
	}
	for namespace, name := range map[string]string{"": "g", "ns": "", "\xff": "g", "g": "\xff",
		strings.Repeat("x", MaxNameBytes+1): "g", "n": strings.Repeat("x", MaxNameBytes+1)} {
		g := newGroup(t, namespace, "x", "up")
		g.Name = name
		if err := s.Put(t.Context(), g); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%.20q, %.20q: %v", namespace, name, err)
		}
	}
	if all := keys(t, bkt); len(all) != 0 {
		t.Errorf("left: %q", all)
	}
}

func TestParseKey(t *testing.T) {
	for _, bad := range []string{"", "rules", "rules/", "rules/acme/bnM=/", "rules/acme/bnM=", "rules/acme/bnM=/Zw==/x",
		"rules/a#b/bnM=/Zw==", "rules/acme//Zw==", "rules/acme/n/g", "hearth/rules/acme/bnM/Zw/x.yaml",
		"hearth/rules/acme/bnM/Zw/01HZZZZZZZZZZZZZZZZZZZZZZZ", "hearth/rules/acme/bnM/01HZZZZZZZZZZZZZZZZZZZZZZZ.yaml",
		"hearth/rules/../bnM/Zw/01HZZZZZZZZZZZZZZZZZZZZZZZ.yaml", "hearth/rules/acme/bnM=/Zw/01HZZZZZZZZZZZZZZZZZZZZZZZ.yaml",
		"hearth/rules/acme/bnM/Zw/00000000000000000000000000.yaml", "hearth/bucket.json", "x/rules/acme/bnM=/Zw=="} {
		if o, ok := parseKey(bad); ok {
			t.Errorf("%s is %+v", bad, o)
		}
	}
	for _, good := range []string{"rules/acme/bnM=/Zw==", "hearth/rules/acme/bnM/Zw/01HZZZZZZZZZZZZZZZZZZZZZZZ.yaml"} {
		if o, ok := parseKey(good); !ok || o.id != (id{"acme", "ns", "g"}) || o.mimir() != strings.HasPrefix(good, "rules") {
			t.Errorf("%s is %+v", good, o)
		}
	}
}

// TestNotWhole: no part of an object is taken for the object.
func TestNotWhole(t *testing.T) {
	g := newGroup(t, "ns", "g", "up")
	text, err := encode(g)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) - 1 {
		if _, err := decode(id{"acme", "ns", "g"}, text[:n]); err == nil {
			t.Fatalf("%d of %d bytes are accepted:\n%s", n, len(text), text[:n])
		}
	}
	later := bytes.Replace(text, []byte("version: 1"), []byte("version: 2"), 1)
	if _, err := decode(id{"acme", "ns", "g"}, later); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Error(err)
	}
	if _, err := decode(id{"acme", "ns", "h"}, text); err == nil || !strings.Contains(err.Error(), `group "g" in "ns"`) {
		t.Error(err)
	}
	if _, err := decode(id{"acme", "ns", "g"}, make([]byte, maxObject+1)); err == nil {
		t.Error("a large object is read")
	}
}

// TestMimir: all fields of Mimir's and of Cortex's form are read.
func TestMimir(t *testing.T) {
	rule := message(message(message(nil, 1, []byte("up")), 3, []byte("A")), 4, duration(time.Minute))
	rule = message(message(message(rule, 5, label("a", "b")), 6, label("summary", "s")), 13, duration(time.Hour))
	begin := message(message(message(message(nil, 1, []byte("g")), 2, []byte("ns")), 4, rule), 6, []byte("acme"))
	align := protowire.AppendVarint(protowire.AppendTag(nil, 12, protowire.VarintType), 1)
	limit := protowire.AppendVarint(protowire.AppendTag(nil, 10, protowire.VarintType), 7)
	f := func(raw []byte, want string) {
		t.Helper()
		g, err := decodeMimir(id{"acme", "ns", "g"}, append(bytes.Clone(begin), raw...))
		text, _ := g.Text()
		if err != nil || strings.Join(strings.Fields(string(text)), " ") != want {
			t.Errorf("%v:\n%s, want %s", err, strings.Join(strings.Fields(string(text)), " "), want)
		}
	}
	const rules = "rules: - alert: A expr: up for: 1m keep_firing_for: 1h labels: a: b annotations: summary: s"
	f(nil, "name: g "+rules)
	f(message(nil, 3, duration(30*time.Second)), "name: g interval: 30s "+rules)
	f(message(message(message(message(align, 10, []byte("b")), 10, []byte("a")), 11, nil), 13, duration(2*time.Minute)),
		"name: g query_offset: 2m "+rules+" source_tenants: - a - b") // Mimir
	f(message(message(nil, 11, duration(time.Minute)), 13, nil), "name: g query_offset: 1m "+rules) // an old Mimir
	f(message(message(message(limit, 11, duration(time.Minute)), 12, label("team", "x")), 13, []byte("a")),
		"name: g query_offset: 1m limit: 7 "+rules+" labels: team: x source_tenants: - a") // Cortex
	bad := func(of id, raw []byte, want string) {
		t.Helper()
		if _, err := decodeMimir(of, raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	bad(id{"rival", "ns", "g"}, begin, `of tenant "acme"`)
	bad(id{"acme", "ns", "h"}, begin, `group "h"`)
	bad(id{"acme", "ns", "g"}, begin[:len(begin)-1], "not what Mimir")
	bad(id{"acme", "ns", "g"}, append(bytes.Clone(begin), message(nil, 4, message(nil, 1, []byte("sum(")))...), `group "g", rule 2`)
	endless := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1<<63)
	bad(id{"acme", "ns", "g"}, append(bytes.Clone(begin), message(nil, 3, endless)...), "not a duration")
}

// FuzzDecode: no bytes are a panic in either form.
func FuzzDecode(f *testing.F) {
	f.Add(mimirGroup("acme", "ns", "g", "up"))
	f.Add([]byte("version: 1\nnamespace: ns\ngroup: {name: g, rules: [{record: r, expr: up}]}\ncomplete: true\n"))
	f.Add([]byte("version: 1\ngroup: &a [*a]\ncomplete: true\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		of := id{"acme", "ns", "g"}
		for _, read := range []func(id, []byte) (definition.Group, error){decode, decodeMimir} {
			if g, err := read(of, raw); err == nil && (g.Name != "g" || g.Namespace != "ns" || g.Tenant != "acme") {
				t.Fatalf("%+v", g)
			}
		}
	})
}

// faulty is a bucket that fails with the errors that it has.
type faulty struct {
	objstore.Bucket
	upload, delete, get, list error
}

func (b *faulty) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if b.upload != nil {
		return b.upload
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

func (b *faulty) Delete(ctx context.Context, name string) error {
	if b.delete != nil {
		return b.delete
	}
	return b.Bucket.Delete(ctx, name)
}

func (b *faulty) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if b.get != nil {
		return nil, b.get
	}
	return b.Bucket.Get(ctx, name)
}

func (b *faulty) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	o ...objstore.IterOption) error {
	if b.list != nil {
		return b.list
	}
	return b.Bucket.IterWithAttributes(ctx, dir, f, o...)
}

// TestFaults: a bucket that fails costs no rules, and whoever changes rules hears of it.
func TestFaults(t *testing.T) {
	b := &faulty{Bucket: objstore.NewInMemBucket()}
	s, ctx, down := newStore(b), t.Context(), errors.New("no answer")
	expect := func(what, want string, fails bool) {
		t.Helper()
		s.poll(ctx)
		groups, err := s.Groups(ctx)
		got := ""
		for _, g := range groups {
			got += g.Name + "=" + g.Rules[0].Expr + " "
		}
		if got != want || (err != nil) != fails || fails && !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s: %q, %v; want %q", what, got, err, want)
		}
	}
	b.list = down
	expect("never listed", "", true)
	b.list = nil
	if err := s.Put(ctx, newGroup(t, "ns", "g", "one")); err != nil {
		t.Fatal(err)
	}
	expect("good", "g=one ", false)
	b.list = down
	expect("not listed", "g=one ", true)
	for _, err := range []error{s.Put(ctx, newGroup(t, "ns", "g", "x")), s.Delete(ctx, "acme", "ns", "g")} {
		if errs.KindOf(err) != errs.Unavailable {
			t.Error(err)
		}
	}
	b.list, b.upload = nil, down
	if err := s.Put(ctx, newGroup(t, "ns", "g", "x")); errs.KindOf(err) != errs.Unavailable {
		t.Error(err)
	}
	expect("not uploaded", "g=one ", false)
	b.upload, b.delete = nil, down
	if err := s.Put(ctx, newGroup(t, "ns", "g", "two")); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, "acme", "ns", "g"); errs.KindOf(err) != errs.Unavailable {
		t.Error(err)
	}
	b.delete = nil
	expect("an old version stays", "g=two ", false)
	b.get = down
	if err := s.Put(ctx, newGroup(t, "ns", "g", "three")); err != nil {
		t.Fatal(err)
	}
	expect("not read", "g=two ", true)
	b.get = nil
	expect("read", "g=three ", false)
	var none tenant.ID
	if _, err := s.Get(ctx, none, "ns", "g"); errs.KindOf(err) != errs.NotFound {
		t.Error(err)
	}
}

// TestNotice: a change of this process is followed at once.
func TestNotice(t *testing.T) {
	s := newStore(objstore.NewInMemBucket())
	if err := s.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Put(t.Context(), newGroup(t, "ns", "g", "up")); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for {
		groups, err := s.Groups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(groups) == 1 {
			return
		}
		select {
		case <-s.Changed():
		case <-deadline:
			t.Fatal("the change is not followed within 20s")
		}
	}
}

// hung is a bucket that takes requests and never answers.
type hung struct{ objstore.Bucket }

func (hung) Iter(ctx context.Context, _ string, _ func(string) error, _ ...objstore.IterOption) error {
	<-ctx.Done()
	return ctx.Err()
}

func (h hung) IterWithAttributes(ctx context.Context, dir string, _ func(objstore.IterObjectAttributes) error,
	_ ...objstore.IterOption) error {
	return h.Iter(ctx, dir, nil)
}

// TestHungBucket: a bucket that does not answer keeps a process from starting and stopping no longer than patience, and
// nobody who asks for groups waits for it.
func TestHungBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := newStore(hung{objstore.NewInMemBucket()}), time.Now()
		if err := s.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		opened := time.Now()
		if _, err := s.Groups(t.Context()); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("%v: want that the bucket has not answered", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if took := opened.Sub(began); took != patience || !time.Now().Equal(opened) {
			t.Errorf("open took %v, all the rest %v", took, time.Since(opened))
		}
	})
}
