package files

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition/sourcetest"
)

const good = "groups:\n- name: g\n  rules:\n  - {record: r, expr: up}\n"

// put writes a file below dir.
func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func named(names ...string) string {
	text := "groups:\n"
	for _, name := range names {
		text += fmt.Sprintf("- name: %s\n  rules:\n  - {record: r, expr: up}\n", name)
	}
	return text
}

// show reads all files, and prints the groups as tenant/file/name, without dir.
func show(t *testing.T, f *Files, dir string) (groups string, err error) {
	t.Helper()
	reloaded := f.Reload()
	all, err := f.Groups(t.Context())
	if errs.Text(reloaded) != errs.Text(err) {
		t.Errorf("Reload says %v, Groups says %v", reloaded, err)
	}
	var parts []string
	for _, g := range all {
		rel, _ := filepath.Rel(dir, g.Namespace)
		parts = append(parts, string(g.Tenant)+"/"+rel+"/"+g.Name)
	}
	return strings.Join(parts, " "), err
}

func newFiles(opts Options) *Files {
	if opts.Limits == nil {
		opts.Limits = tenant.Fixed(tenant.DefaultLimits())
	}
	opts.Tenant, opts.Interval = tenant.Default, time.Hour
	return New(slog.New(slog.DiscardHandler), opts)
}

// expect compares the groups, and looks for each of faults in the error.
func expect(t *testing.T, f *Files, dir, want string, faults ...string) {
	t.Helper()
	got, err := show(t, f, dir)
	if got != want {
		t.Errorf("groups %q, want %q", got, want)
	}
	if (err == nil) != (len(faults) == 0) {
		t.Errorf("error %v, want %q", err, faults)
	}
	for _, fault := range faults {
		if !strings.Contains(errs.Text(err), fault) {
			t.Errorf("error %v lacks %q", err, fault)
		}
	}
}

// TestLastGood: a file with a fault keeps its last good form and is named, the others go on.
func TestLastGood(t *testing.T) {
	dir := t.TempDir()
	a, b := put(t, dir, "a.yml", named("g", "h")), put(t, dir, "b.yml", good)
	f := newFiles(Options{Patterns: []string{filepath.Join(dir, "*.yml"), a}})
	const both = "default-tenant/a.yml/g default-tenant/a.yml/h default-tenant/b.yml/g"
	expect(t, f, dir, both)
	put(t, dir, "a.yml", "groups:\n- name: g\n  rules:\n  - {record: r, expr: 'sum('}\n")
	put(t, dir, "c.yml", good)
	expect(t, f, dir, both+" default-tenant/c.yml/g", a+": ", `group "g", rule 1, "r"`, "4:")
	put(t, dir, "d.yml", "groups: [")
	expect(t, f, dir, both+" default-tenant/c.yml/g", a, "d.yml")
	put(t, dir, "a.yml", named("new"))
	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	expect(t, f, dir, "default-tenant/a.yml/new default-tenant/c.yml/g", "d.yml")
	put(t, dir, "d.yml", "")
	put(t, dir, "a.yml", named("twice", "twice"))
	expect(t, f, dir, "default-tenant/a.yml/new default-tenant/c.yml/g", `a group "twice" in line 2, too`)
}

// TestUnlisted: groups stay while their directory cannot be read, and while a file without a wildcard is missing.
func TestUnlisted(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules")
	path := put(t, rules, "a.yml", good)
	f := newFiles(Options{Patterns: []string{filepath.Join(rules, "*.yml")}})
	single := newFiles(Options{Patterns: []string{path}})
	directory := newFiles(Options{Patterns: []string{rules}})
	const want = "default-tenant/rules/a.yml/g"
	expect(t, f, dir, want)
	expect(t, single, dir, want)
	expect(t, directory, dir, want)
	if err := os.Rename(rules, rules+".away"); err != nil {
		t.Fatal(err)
	}
	expect(t, f, dir, want, "no such file")
	expect(t, single, dir, want, "there is no such file")
	if err := os.Rename(rules+".away", rules); err != nil {
		t.Fatal(err)
	}
	expect(t, f, dir, want)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, f, dir, "")
	expect(t, directory, dir, "")
	expect(t, newFiles(Options{Patterns: []string{filepath.Join(rules, "[")}}), dir, "", "syntax error in pattern")
}

// TestTenants: each tenant's directory has its rules, and a name that no tenant can have is a fault.
func TestTenants(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "acme/a.yaml", good)
	put(t, dir, "acme/b.txt", "not read")
	put(t, dir, "acme/..data/c.yml", "not read")
	put(t, dir, "acme/.d.yml", "not read")
	put(t, dir, "rival/a.yml", good)
	put(t, dir, "file.yml", "not read")
	f := newFiles(Options{TenantDir: dir})
	expect(t, f, dir, "acme/acme/a.yaml/g rival/rival/a.yml/g")
	put(t, dir, "no#tenant/a.yml", good)
	expect(t, f, dir, "acme/acme/a.yaml/g rival/rival/a.yml/g", "no#tenant")
	if err := os.RemoveAll(filepath.Join(dir, "rival")); err != nil {
		t.Fatal(err)
	}
	expect(t, f, dir, "acme/acme/a.yaml/g", "no#tenant")
}

// TestLimits: what a tenant may not have is a fault of its file.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	l := tenant.DefaultLimits()
	l.RuleGroups = 2
	f := newFiles(Options{TenantDir: dir, Limits: func(tenant.ID) *tenant.Limits { return &l }})
	put(t, dir, "acme/a.yml", good)
	put(t, dir, "acme/b.yml", named("x", "y"))
	put(t, dir, "rival/a.yml", named("x", "y"))
	expect(t, f, dir, "acme/acme/a.yml/g rival/rival/a.yml/x rival/rival/a.yml/y", "tenant acme has 3 groups", "rule_groups",
		"b.yml")
	l.RuleGroups = 0
	expect(t, f, dir, "acme/acme/a.yml/g acme/acme/b.yml/x acme/acme/b.yml/y rival/rival/a.yml/x rival/rival/a.yml/y")
	put(t, dir, "acme/b.yml", "groups:\n- name: x\n  source_tenants: [rival]\n")
	expect(t, f, dir, "acme/acme/a.yml/g acme/acme/b.yml/x acme/acme/b.yml/y rival/rival/a.yml/x rival/rival/a.yml/y",
		"may not read tenant rival", "rule_source_tenants")
	l.RuleSourceTenants = []string{"r*"}
	expect(t, f, dir, "acme/acme/a.yml/g acme/acme/b.yml/x rival/rival/a.yml/x rival/rival/a.yml/y")
}

// TestWatched: of patterns only directories that are there are watched, so that the log has no warning of others.
func TestWatched(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.yml", good)
	f := func(pattern, want string) {
		t.Helper()
		got := newFiles(Options{Patterns: []string{filepath.Join(dir, pattern)}}).watched()
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], filepath.Dir(dir))
		}
		want = strings.ReplaceAll(want, "DIR", "/"+filepath.Base(dir))
		if have := strings.Join(got, " "); have != want {
			t.Errorf("%s: %s, want %s", pattern, have, want)
		}
	}
	f("*.yml", "DIR/*")
	f("a.yml", "DIR/*")
	f("", "/* DIR/*") // a directory, which may be replaced itself
	f("none/*.yml", "DIR/none/*.yml")
}

// TestFollow: Changed receives after each change, and not when nothing has changed.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.yml", good)
	f := newFiles(Options{Patterns: []string{filepath.Join(dir, "*.yml")}})
	if err := f.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	await := func(what string) {
		t.Helper()
		select {
		case <-f.Changed():
		case <-time.After(20 * time.Second):
			t.Fatal(what + ": Changed does not receive within 20s")
		}
	}
	await("first read")
	put(t, dir, "b.yml", good)
	await("new file")
	expect(t, f, dir, "default-tenant/a.yml/g default-tenant/b.yml/g")
	put(t, dir, "a.yml", "x")
	await("fault")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Groups(t.Context()); err == nil {
		t.Error("a fault is not reported")
	}
	for range 3 {
		_ = f.Reload()
	}
	select {
	case <-f.Changed():
		t.Error("Changed receives without a change")
	default:
	}
}

// TestContract: files are a source like any other.
func TestContract(t *testing.T) {
	dir := t.TempDir()
	f := newFiles(Options{Patterns: []string{filepath.Join(dir, "*.yml")}})
	sourcetest.Run(t, sourcetest.Place{
		Source: f, Look: func() { _ = f.Reload() },
		Put: func(name, text string) {
			put(t, dir, name+".yml", "groups:\n- "+strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  "))
		},
		Spoil: func(name string) { put(t, dir, name+".yml", "groups: [") },
		Delete: func(name string) {
			if err := os.Remove(filepath.Join(dir, name+".yml")); err != nil {
				t.Fatal(err)
			}
		},
	})
}
