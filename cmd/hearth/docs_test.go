package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/pages"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/tracing"
	"github.com/hearth-metrics/hearth/rule/targets"
	"github.com/hearth-metrics/hearth/store/cache"
)

// operatorPages are what somebody who runs Hearth follows.
func operatorPages(t *testing.T) (all []pages.Page) {
	t.Helper()
	read, err := pages.Read("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range read {
		if p.ForOperators() {
			all = append(all, p)
		}
	}
	if len(all) < 8 {
		t.Fatalf("%d pages", len(all))
	}
	return all
}

// foreignFlags are flags of other programs that the pages name.
var foreignFlags = map[string]string{
	"storage.tsdb.delay-compact-file.path": "Prometheus's", "storage.tsdb.min-block-duration": "Prometheus's",
	"storage.tsdb.max-block-duration": "Prometheus's", "web.enable-lifecycle": "Prometheus's",
	"compact.enable-vertical-compaction": "thanos compact", "deduplication.replica-label": "thanos compact",
	"enable-feature": "prometheus; Hearth has one of this name too",
}

var (
	flagText   = regexp.MustCompile(`^--([a-z0-9][a-zA-Z0-9._-]*)(\*)?`)
	suffixText = regexp.MustCompile(`^-[a-z][a-z-]*$`)
)

// TestDocumentedFlags: the flags that the pages name exist, those that are named by their ends too ("`--x-cert`,
// `-key`").
func TestDocumentedFlags(t *testing.T) {
	app, _ := commands()
	known := flagsByName(app, "")
	exists := func(name string) bool {
		return known[name] != nil || foreignFlags[name] != "" || known[strings.TrimPrefix(name, "no-")] != nil
	}
	begins := func(prefix string) bool {
		for name := range known {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	}
	found := 0
	for _, p := range operatorPages(t) {
		last, line := "", 0
		for _, c := range p.Code() {
			if c.Line != line {
				last, line = "", c.Line
			}
			if suffixText.MatchString(c.Text) && last != "" {
				if !slices.ContainsFunc(stems(last), func(stem string) bool { return exists(stem + c.Text) }) {
					t.Errorf("%s:%d: no flag is --%s with %s in the place of its end", c.Page, c.Line, last, c.Text)
				}
				continue
			}
			for _, word := range strings.Fields(c.Text) {
				m := flagText.FindStringSubmatch(word)
				switch {
				case m == nil:
					continue
				case m[2] != "" && begins(m[1]), exists(m[1]):
				default:
					t.Errorf("%s:%d: no role has the flag --%s", c.Page, c.Line, m[1]+m[2])
				}
				last = m[1]
				found++
			}
		}
	}
	if found < 100 {
		t.Errorf("%d flags: this test does not find them", found)
	}
}

// stems are what a flag is before each of its dashes.
func stems(flag string) (all []string) {
	for i, r := range flag {
		if r == '-' {
			all = append(all, flag[:i])
		}
	}
	return all
}

// TestDocumentedDefaults: in tables that begin with the columns flag and default, a default between backticks is the
// flag's.
func TestDocumentedDefaults(t *testing.T) {
	app, _ := commands()
	known, found := flagsByName(app, ""), 0
	for _, p := range operatorPages(t) {
		for _, row := range p.Rows("flag") {
			flag, value := strings.Split(row[0], "`"), strings.Split(row[1], "`")
			if len(flag) != 3 || len(value) < 3 || value[0] != "" || known[strings.TrimPrefix(flag[1], "--")] == nil {
				continue
			}
			found++
			if want := strings.Join(known[strings.TrimPrefix(flag[1], "--")].Default, ","); value[1] != want {
				t.Errorf("%s: the default of %s is %q, the page says %q", p.Path, flag[1], want, value[1])
			}
		}
	}
	if found < 6 {
		t.Errorf("%d defaults: this test does not find them", found)
	}
}

// TestIdleFlagsDocumented: whoever moves from Thanos finds the flags that do nothing.
func TestIdleFlagsDocumented(t *testing.T) {
	named := map[string]bool{}
	for _, p := range operatorPages(t) {
		for _, c := range p.Code() {
			named[c.Text] = named[c.Text] || strings.HasSuffix(p.Path, "thanos-receive.md")
		}
	}
	for _, f := range receiveIdle {
		if !named["--"+f.name] {
			t.Errorf("thanos-receive.md does not name --%s", f.name)
		}
	}
}

// TestDocumentedCommands: the command lines in the pages are ones that hearth takes.
func TestDocumentedCommands(t *testing.T) {
	found := 0
	for _, p := range operatorPages(t) {
		var lines []pages.Code
		for _, b := range p.Blocks() {
			if b.Kind == "sh" {
				for line := range strings.Lines(strings.ReplaceAll(b.Text, "\\\n", " ")) {
					lines = append(lines, pages.Code{Page: b.Page, Line: b.Line, Text: line})
				}
			}
		}
		for _, line := range append(lines, p.Code()...) {
			words := strings.Fields(line.Text)
			if len(words) < 2 || words[0] != "hearth" || strings.HasPrefix(words[1], "-") && len(words) == 2 {
				continue
			}
			found++
			app, _ := commands()
			if err := parses(app, words[1:]); err != nil {
				t.Errorf("%s:%d: %s: %v", line.Page, line.Line, line.Text, err)
			}
		}
	}
	if found < 5 {
		t.Errorf("%d command lines: this test does not find them", found)
	}
}

// parses is the error that hearth would end with at once.
func parses(app *kingpin.Application, args []string) (err error) {
	app.Writer(io.Discard)
	app.Terminate(func(int) {})
	_, err = app.Parse(args)
	return err
}

// TestDocumentedFiles: the files in the pages are ones that their programs take.
func TestDocumentedFiles(t *testing.T) {
	loaders := map[string]func(t *testing.T, text string) error{
		"yaml prometheus": func(_ *testing.T, text string) error {
			_, err := config.Load(text, promslog.NewNopLogger())
			return err
		},
		"yaml limits": func(_ *testing.T, text string) error {
			_, err := tenant.ParseLimits("limits.yml", []byte(text))
			return err
		},
		"yaml deletions": func(_ *testing.T, text string) error {
			_, err := rewrite.ParseDeletions("delete.yml", []byte(text))
			return err
		},
		"yaml users": func(_ *testing.T, text string) error {
			for i := 0; strings.Contains(text, "<64 digits>"); i++ {
				text = strings.Replace(text, "<64 digits>", tokenHash(fmt.Sprint(i)), 1)
			}
			_, err := tenant.ParseUsers("users.yml", []byte(text))
			return err
		},
		"yaml index-cache": func(_ *testing.T, text string) error {
			_, err := cache.ReadIndexConfig("page", []byte(text))
			return err
		},
		"yaml caching-bucket": func(_ *testing.T, text string) error {
			_, err := cache.ReadBucketConfig("page", []byte(text))
			return err
		},
		"yaml alertmanagers": func(_ *testing.T, text string) error {
			_, err := targets.Parse("page", "alertmanagers", []byte(text))
			return err
		},
		"yaml objstore": func(t *testing.T, text string) error {
			dir := t.TempDir()
			app, setups := commands()
			command, err := app.Parse(
				[]string{"store", "--data-dir=" + dir, "--objstore.config=" + strings.ReplaceAll(text, "/var/lib/hearth", dir)})
			if err != nil {
				return err
			}
			return setups[command](newProcess(app, command, io.Discard, io.Discard))
		},
		"yaml flags": func(t *testing.T, text string) error {
			file := filepath.Join(t.TempDir(), "hearth.yml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return err
			}
			app, _ := commands()
			args, _, err := withConfigFile(app, []string{"all", "--config.file=" + file})
			if err != nil {
				return err
			}
			return parses(app, args)
		},
		"yaml web": func(t *testing.T, text string) error {
			file := filepath.Join(t.TempDir(), "web.yml")
			cert, key := certificateFiles(t)
			text = strings.NewReplacer("/etc/hearth/cert.pem", cert, "/etc/hearth/key.pem", key, "/etc/hearth/ca.pem",
				cert).Replace(text)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return err
			}
			return web.Validate(file)
		},
		"yaml collector": func(_ *testing.T, text string) error {
			return yaml.Unmarshal([]byte(text), new(map[string]any)) // the collector is not one of our libraries
		},
		"yaml tracing": func(_ *testing.T, text string) error {
			_, err := tracing.ParseConfig("tracing.yml", []byte(text))
			return err
		},
		"yaml requests": func(_ *testing.T, text string) error {
			_, err := tracing.ParseLogRules("requests.yml", []byte(text))
			return err
		},
		"json hashrings": func(_ *testing.T, text string) error { return json.Unmarshal([]byte(text), new([]any)) },
	}
	tried := map[string]int{}
	for _, p := range operatorPages(t) {
		for _, b := range p.Blocks() {
			load := loaders[b.Kind]
			if load == nil {
				if strings.HasPrefix(b.Kind, "yaml") || strings.HasPrefix(b.Kind, "json") {
					t.Errorf("%s:%d: nothing loads a block of kind %q", b.Page, b.Line, b.Kind)
				}
				continue
			}
			tried[b.Kind]++
			if err := load(t, b.Text); err != nil {
				t.Errorf("%s:%d: %v", b.Page, b.Line, err)
			}
		}
	}
	for _, kind := range []string{"yaml prometheus", "yaml limits", "yaml users", "yaml objstore", "yaml flags"} {
		if tried[kind] == 0 {
			t.Errorf("no page has a block of kind %q: this test does not find them", kind)
		}
	}
	if err := loaders["yaml limits"](t, "defaults: {no_such_limit: 1}\n"); err == nil {
		t.Error("a limit that does not exist is taken: this test shows nothing")
	}
}

// TestUnit: what deploy/hearth.service promises is so.
func TestUnit(t *testing.T) {
	raw, err := os.ReadFile("../../deploy/hearth.service")
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			set[name] = value
		}
	}
	app, _ := commands()
	if err := parses(app, strings.Fields(strings.TrimPrefix(set["ExecStart"], "/usr/local/bin/hearth "))); err != nil {
		t.Errorf("ExecStart: %v", err)
	}
	var minutes int
	drain := storageFlags{}
	drain.bind(kingpin.New("x", "").Command("y", ""))
	if _, err := fmt.Sscanf(set["TimeoutStopSec"], "%dmin", &minutes); err != nil ||
		float64(minutes) < drain.drain.opts.Timeout.Minutes()+5 {
		t.Errorf("TimeoutStopSec=%s, and a drain may take %s", set["TimeoutStopSec"], drain.drain.opts.Timeout)
	}
	if verify, err := exec.LookPath("systemd-analyze"); err == nil {
		here := strings.NewReplacer("/usr/local/bin/hearth", "/bin/true", "User=hearth", "User=root", "Group=hearth",
			"Group=root").Replace(string(raw))
		file := filepath.Join(t.TempDir(), "hearth.service")
		if err := os.WriteFile(file, []byte(here), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(verify, "verify", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze: %v: %s", err, out)
		}
	}
	if !strings.Contains(set["ExecReload"], "-HUP $MAINPID") || set["MemoryMax"] == "" || set["LimitNOFILE"] == "" {
		t.Errorf("no reload, no bound of memory, or no room for descriptors: %v", set)
	}
}
