package reloader

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// target is a Prometheus that notes each reload, by POST or by signal.
type target struct {
	mu     sync.Mutex
	ok     bool
	at     time.Time
	output string // the file it reads
	asked  int
	went   int // reloads that went well
}

func (p *target) reload(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	b, err := os.ReadFile(p.output)
	p.ok = err == nil && !bytes.Contains(b, []byte("[broken"))
	if !p.ok {
		return errors.New("the configuration is broken")
	}
	p.went++
	p.at = time.Now().Add(-time.Second) // so that the next reload need not wait for the next second
	return nil
}

func (p *target) reloads() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *target) last(context.Context) (bool, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ok, p.at, nil
}

// byHangup makes the trigger that sends a signal to a real process of this test, which p notes.
func (p *target) byHangup(t *testing.T) func(context.Context) error {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("hearth-reload-test-%d", os.Getpid()) // other runs of this test have theirs
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	// A child of a process that ignores SIGHUP, as under nohup, ignores it too, except where the parent is notified of it.
	notified := make(chan os.Signal, 1)
	signal.Notify(notified, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(notified) })
	life, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	start := func() *exec.Cmd {
		cmd := exec.CommandContext(life, path, "1000")
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
		return cmd
	}
	cmd := start()
	wg.Go(func() { // SIGHUP ends the process: each end is a reload
		for {
			_ = cmd.Wait()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGHUP {
				return
			}
			cmd = start()
			_ = p.reload(life)
		}
	})
	t.Cleanup(func() {
		end()
		wg.Wait()
	})
	return BySignal(name, p.last)
}

func packed(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.Bytes()
}

// setting is a directory as Kubernetes mounts a ConfigMap, a plain one, and a reloader over both.
type setting struct {
	t      *testing.T
	dir    string
	config string // path of the configuration
	rules  string // directory of rules
	p      *target
	r      *Reloader
	unset  atomic.Bool
}

func (s *setting) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// mount makes dir hold files through links to a directory of their own, which swap as one.
func (s *setting) mount(dir, version string, files map[string]string) {
	s.t.Helper()
	data := filepath.Join(dir, "..v"+version)
	s.must(os.Mkdir(data, 0o755))
	for name, text := range files {
		s.must(os.WriteFile(filepath.Join(data, name), []byte(text), 0o644))
	}
	s.must(os.Symlink("..v"+version, filepath.Join(dir, "..tmp")))
	s.must(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	for name := range files {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			s.must(os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
}

func (s *setting) await(what string, done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			out, _ := os.ReadFile(s.p.output)
			s.t.Fatalf("%s: %d reloads, output %q", what, s.p.reloads(), out)
		}
	}
}

func (s *setting) good() int {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.p.went
}

func newSetting(t *testing.T, method string) *setting {
	t.Helper()
	s := &setting{t: t, dir: t.TempDir(), rules: filepath.Join(t.TempDir(), "rules")}
	s.config = filepath.Join(s.dir, "prometheus.yml")
	s.p = &target{output: filepath.Join(t.TempDir(), "out.yml")}
	s.must(os.Mkdir(s.rules, 0o755))
	s.mount(s.dir, "1", map[string]string{"prometheus.yml": "name: $(NAME) $OTHER ${OTHER}\n"})
	s.mount(s.rules, "1", map[string]string{"a.yml": "one"})
	trigger := s.p.reload
	if method == "signal" {
		trigger = s.p.byHangup(t)
	}
	var err error
	s.r, err = New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), Options{
		ConfigFile: s.config, OutputFile: s.p.output, RuleDirs: []string{s.rules}, WatchInterval: time.Hour,
		RetryInterval: 20 * time.Millisecond, Trigger: trigger, Method: method,
		Variable: func(name string) (string, bool) { return "x-" + name, name != "UNSET" || !s.unset.Load() },
	})
	s.must(err)
	s.r.settle = 100 * time.Millisecond
	s.must(s.r.Open(t.Context(), nil))
	t.Cleanup(func() { s.r.Close() })
	return s
}

func (s *setting) output(want string) func() bool {
	return func() bool {
		b, _ := os.ReadFile(s.p.output)
		return string(b) == want
	}
}

// TestMatrix changes files in all the ways in which people and programs do, for both ways to reload. Each change that
// counts is one reload, and no other is.
func TestMatrix(t *testing.T) {
	for _, method := range []string{"http", "signal"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := newSetting(t, method)
			reloads := 1
			step := func(what string, change func()) {
				t.Helper()
				change()
				reloads++
				s.await(what, func() bool { return s.good() == reloads })
			}
			s.await("start", func() bool { return s.good() == 1 })
			if !s.output("name: x-NAME $OTHER ${OTHER}\n")() {
				t.Fatal("the output is not the configuration with variables")
			}
			if info, err := os.Stat(s.p.output); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the mode of the output is %v, %v", info.Mode(), err)
			}
			step("swapped as by Kubernetes", func() { s.mount(s.dir, "2", map[string]string{"prometheus.yml": "v: 2"}) })
			s.must(os.WriteFile(s.config+".new", []byte("v: 2"), 0o644)) // the same content is no change
			s.must(os.Rename(s.config+".new", s.config))
			step("edited in place", func() { s.must(os.WriteFile(s.config, []byte("v: 3"), 0o644)) })
			step("renamed over", func() {
				s.must(os.WriteFile(s.config+".new", []byte("v: 4"), 0o644))
				s.must(os.Rename(s.config+".new", s.config))
			})
			step("packed", func() { s.must(os.WriteFile(s.config, packed("v: $(FIVE)"), 0o644)) })
			s.await("unpacked", s.output("v: x-FIVE"))
			step("rules swapped", func() { s.mount(s.rules, "2", map[string]string{"a.yml": "two"}) })
			step("many rules at once", func() {
				for _, name := range strings.Split("bcdefgh", "") {
					s.must(os.WriteFile(filepath.Join(s.rules, name+".yml"), []byte(name), 0o644))
				}
			})
			step("a rule renamed", func() {
				s.must(os.Rename(filepath.Join(s.rules, "b.yml"), filepath.Join(s.rules, "z.yml")))
			})

			faults := func() float64 { return testutil.ToFloat64(s.r.m.applyFailed) }
			before := faults()
			s.unset.Store(true)
			s.must(os.WriteFile(s.config, []byte("v: $(UNSET) $(UNSET)"), 0o644))
			s.await("unset variable", func() bool { return faults() > before && testutil.ToFloat64(s.r.m.unset) == 1 })
			if !s.output("v: x-FIVE")() {
				t.Error("a configuration without its variables was written")
			}
			before = faults()
			s.must(os.WriteFile(s.config, packed("v: 6")[:12], 0o644))
			s.await("packed file that ends early", func() bool { return faults() > before })
			before = faults()
			s.must(os.Remove(s.config))
			s.await("no file", func() bool { return faults() > before })
			if s.good() != reloads {
				t.Errorf("%d reloads, want %d", s.good(), reloads)
			}
			step("a file again", func() { s.must(os.WriteFile(s.config, []byte("v: 7"), 0o644)) })

			failed := testutil.ToFloat64(s.r.m.failed)
			s.must(os.WriteFile(s.config, []byte("[broken"), 0o644))
			s.await("invalid YAML", func() bool { return testutil.ToFloat64(s.r.m.failed) > failed })
			if testutil.ToFloat64(s.r.m.succeeded) != 0 {
				t.Error("the last reload went well")
			}
			step("valid again", func() { s.must(os.WriteFile(s.config, []byte("v: 8"), 0o644)) })
			before = faults()
			s.must(os.RemoveAll(s.rules))
			s.must(os.WriteFile(s.config, []byte("v: 9"), 0o644))
			s.await("directory that cannot be read", func() bool { return faults() > before })
			s.await("success", func() bool { return testutil.ToFloat64(s.r.m.succeeded) == 1 })
			if s.good() != reloads {
				t.Errorf("%d reloads, want %d", s.good(), reloads)
			}
		})
	}
}

// TestNotBeforeWritten: a Prometheus that does not answer before it has its configuration gets it.
func TestNotBeforeWritten(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte("a: 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := New(slog.New(slog.DiscardHandler), nil, Options{ConfigFile: in, OutputFile: out, RetryInterval: time.Hour,
		Trigger: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if b, _ := os.ReadFile(out); string(b) == "a: 1" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("not written")
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestReplace: what is written goes nowhere else.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "out")
	if err := errors.Join(os.WriteFile(victim, []byte("kept"), 0o644), os.Symlink(victim, path),
		os.Symlink(victim, path+".tmp")); err != nil {
		t.Fatal(err)
	}
	o := Options{OutputFile: path}
	if _, err := o.write([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "kept" {
		t.Errorf("a link was followed: %q", b)
	}
	info, err := os.Lstat(path)
	b, _ := os.ReadFile(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 || string(b) != "secret" {
		t.Errorf("%v, %q, %v", info.Mode(), b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".out*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := replace(filepath.Join(dir, "none", "x"), nil); err == nil {
		t.Error("a directory that does not exist is no error")
	}
}

// TestUnpackBound: a packed file that would become larger than the bound is refused.
func TestUnpackBound(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range maxConfig>>20 + 1 {
		_, _ = w.Write(zeros)
	}
	_ = w.Close()
	if _, err := unpack(b.Bytes()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
	for _, content := range []string{"", "a", "ab", "\x1f\x8b", "\x1f\x8bx"} { // shorter than the mark of gzip
		if got, err := unpack([]byte(content)); err != nil || string(got) != content {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
}

func TestExpand(t *testing.T) {
	got, missing := expand([]byte("$(A)$(A) $A ${A} $(b c) $(B) $(C)$(B) $$(A)"), func(name string) (string, bool) {
		return "$(" + name + ")!", name == "A"
	})
	want := "$(A)!$(A)! $A ${A} $(b c) $(B)! $(C)!$(B)! $$(A)!"
	if string(got) != want || strings.Join(missing, "") != "BC" {
		t.Errorf("%q, %q", got, missing)
	}
}

// TestFind: only the executable decides, and two processes are none.
func TestFind(t *testing.T) {
	proc := t.TempDir()
	add := func(pid, exe string) {
		t.Helper()
		if err := errors.Join(os.Mkdir(filepath.Join(proc, pid), 0o755),
			os.Symlink(exe, filepath.Join(proc, pid, "exe"))); err != nil {
			t.Fatal(err)
		}
	}
	add("self", "/bin/prometheus")
	add("10", "/usr/bin/bash")
	if err := os.WriteFile(filepath.Join(proc, "10", "comm"), []byte("prometheus"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(proc, "11"), 0o755); err != nil { // it does not show its executable
		t.Fatal(err)
	}
	if pid, err := find(proc, "prometheus"); err == nil || !strings.Contains(err.Error(), "1 processes") {
		t.Errorf("%d, %v", pid, err)
	}
	add("20", "/bin/prometheus (deleted)")
	if pid, err := find(proc, "prometheus"); pid != 20 || err != nil {
		t.Errorf("%d, %v", pid, err)
	}
	add("30", "/opt/prometheus")
	if pid, err := find(proc, "prometheus"); err == nil || !strings.Contains(err.Error(), "20, 30") {
		t.Errorf("%d, %v", pid, err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{OutputFile: "x", RetryInterval: 1}, {ConfigFile: "x", OutputFile: "./x", RetryInterval: 1}, {}, {WatchInterval: -1,
			RetryInterval: 1},
	} {
		if _, err := New(slog.New(slog.DiscardHandler), nil, o); err == nil {
			t.Errorf("%+v is valid", o)
		}
	}
}

// TestIdle: where nothing is watched, nothing says that a reload has failed.
func TestIdle(t *testing.T) {
	r, err := New(slog.New(slog.DiscardHandler), nil, Options{Method: "http", RetryInterval: 1,
		Trigger: func(context.Context) error { return nil }, Variable: os.LookupEnv})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Idle() || testutil.ToFloat64(r.m.succeeded) != 1 {
		t.Error("an alert on thanos_sidecar_reloader_last_reload_successful fires")
	}
}
