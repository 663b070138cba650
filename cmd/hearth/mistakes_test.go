package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant/overrides"
)

// written is a kind of file that people write, and how a process reads it.
type written struct {
	read  func(path string) error
	good  string // its first line is a key, which may be set twice
	typo  string // a line with a key that there is not, and
	meant string // the key that is to be suggested
	wrong string // a line with a value of a wrong type, and
	key   string // the key that is to be named
	empty bool   // nothing is a valid content
}

func limitsOf(set func(*overrides.Options, string)) func(string) error {
	return func(path string) error {
		opts := overrides.DefaultOptions()
		set(&opts, path)
		o, err := overrides.New(slog.New(slog.DiscardHandler), nil, opts)
		if err != nil {
			return err
		}
		return o.Reload()
	}
}

func authOf(set func(*httpx.AuthOptions, string)) func(string) error {
	return func(path string) error {
		opts := httpx.AuthOptions{Interval: time.Second}
		set(&opts, path)
		return httpx.NewAuth(slog.New(slog.DiscardHandler), nil, opts).Reload()
	}
}

var hash = strings.Repeat("ab", 32)

var writtenFiles = map[string]written{
	"--auth.tenants-file": {
		read: authOf(func(o *httpx.AuthOptions, path string) { o.UsersFile = path }),
		good: "users:\n  alice: {tenants: [acme], token_sha256: " + hash + "}\n",
		typo: "usrs: {}\n", meant: "users", wrong: "users: 5\n", key: "users",
	},
	"--http.config": {
		read:  authOf(func(o *httpx.AuthOptions, path string) { o.WebConfigFile = path }),
		good:  "http_server_config:\n  http2: true\n",
		empty: true,
		typo:  "basic_auth_user: {}\n",
		meant: "basic_auth_users",
		wrong: "http_server_config: {http2: perhaps}\n",
		key:   "http2",
	},
	"--runtime-config.file": {
		read: limitsOf(func(o *overrides.Options, path string) { o.File = path }),
		good: "defaults:\n  active_series: 5\n", empty: true,
		typo: "tenant: {}\n", meant: "tenants", wrong: "defaults: {active_series: many}\n", key: "active_series",
	},
	"--receive.limits-config-file": {
		read: limitsOf(func(o *overrides.Options, path string) { o.ThanosFile = path }),
		good: "write:\n  global: {max_concurrency: 5}\n", empty: true,
		typo: "wriet: {}\n", meant: "write", wrong: "write: {global: {max_concurrency: many}}\n", key: "max_concurrency",
	},
	"--receive.relabel-config-file": {
		read: func(path string) error {
			c := content{name: "receive.relabel-config", file: path}
			text, err := c.read()
			if err == nil {
				_, err = parseRelabel(c.where(), text)
			}
			return err
		},
		good: "- source_labels: [a]\n  target_label: b\n", empty: true,
		typo: "- {source_labls: [a]}\n", meant: "source_labels", wrong: "- {modulus: many}\n", key: "modulus",
	},
	"--objstore.config-file": {
		read: func(path string) error {
			c := content{name: "objstore.config", file: path}
			text, err := c.read()
			if err == nil {
				_, err = block.OpenBucket(slog.New(slog.DiscardHandler), nil, c.where(), text, "test")
			}
			return err
		},
		good:  "type: FILESYSTEM\nconfig: {directory: x}\n",
		typo:  "confg: {directory: x}\n",
		meant: "config",
		wrong: "type: S3\nconfig: {bucket: b, insecure: perhaps}\n",
		key:   "insecure",
	},
	"--config.file": {
		read: func(path string) error {
			app, _ := commands()
			_, _, err := withConfigFile(app, []string{"query", "--config.file=" + path})
			return err
		},
		good:  "query.timeout: 1m\nlog.level: debug\n",
		empty: true,
		typo:  "query.timout: 1m\n",
		meant: "query.timeout",
		wrong: "query.partial-response: perhaps\n",
		key:   "query.partial-response",
	},
}

// goWords are words of Go and its libraries, which help nobody who writes a configuration.
var goWords = regexp.MustCompile(
	`struct|[uU]nmarshal|type main\.|%!|yaml: |not found in type|!!|<nil>|strconv|reflect|goroutine|0x`)

// TestMistakesInFiles: whatever is wrong with a file that a person writes, the error names the file, the line and the
// key, and says so in plain words.
func TestMistakesInFiles(t *testing.T) {
	for flag, w := range writtenFiles {
		t.Run(strings.TrimLeft(flag, "-"), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file.yml")
			f := func(what, content string, want ...string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				err := w.read(path)
				if want == nil {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					return
				}
				wantMistake(t, what, err, append(want, path)...)
			}
			first, _, _ := strings.Cut(w.good, "\n")
			key, _, _ := strings.Cut(strings.TrimLeft(first, "- "), ":")
			f("good", w.good)
			f("misspelt key", w.typo, ":1: ", "; did you mean "+w.meant+"?")
			f("wrong type", w.wrong, "file.yml:", w.key)
			f("tab", key+":\n\tx: 1\n", ":2: ", "tab")
			f("duplicate key", strings.TrimLeft(first, "- ")+"\n"+strings.TrimLeft(first, "- ")+"\n", "file.yml:")
			f("list for a mapping, or the other way", flip(w.good), "file.yml:1: ", "is expected")
			f("binary", "\x7fELF\x02\x01\x00\x00", ":1: is not text")
			f("wrong encoding", w.good+"# \xe4\xf6\xfc\n", "is not text in UTF-8")
			f("open bracket", key+": [", "file.yml:", "is not YAML")
			f("two documents", w.good+"---\n"+w.good, "a second document begins here")
			if w.empty {
				f("empty", "")
				f("comments", "# nothing\n")
			} else {
				f("empty", "", "file.yml")
				f("comments", "# nothing\n", "file.yml")
			}
			wantMistake(t, "directory", w.read(dir), dir, "is a directory")
			wantMistake(t, "missing", w.read(path+".none"), path+".none", "there is no such file")
			if os.Getuid() != 0 {
				if err := os.Chmod(path, 0o200); err != nil {
					t.Fatal(err)
				}
				wantMistake(t, "unreadable", w.read(path), path, "may not read it")
			}
		})
	}
}

// flip makes a list of a mapping and a mapping of a list.
func flip(content string) string {
	if strings.HasPrefix(content, "- ") {
		return "a: 1\n"
	}
	return "- a\n"
}

func wantMistake(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: is accepted", what)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v\nwant %q in it", what, err, w)
		}
	}
	if word := goWords.FindString(err.Error()); word != "" {
		t.Errorf("%s: %q is in\n%v", what, word, err)
	}
}

// TestMistakesInFlags: a value that no flag can have is refused with the flag's name, its variable or its line, and
// plain words.
func TestMistakesInFlags(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		app, _ := commands()
		exited := false
		app.Terminate(func(int) { exited = true })
		_, err := parse(app, args, &exited)
		wantMistake(t, strings.Join(args, " "), err, want)
	}
	f("--query.timeout: \"soon\" is not a duration", "query", "--query.timeout=soon")
	f("--query.timeout: \"5\" is not a duration", "query", "--query.timeout=5")
	f("--query.max-samples: \"many\" is not a whole number", "query", "--query.max-samples=many")
	f("--query.max-samples: \"1.5\" is not a whole number", "query", "--query.max-samples=1.5")
	f("--query.max-samples: \"99999999999999999999\" is not a whole number", "query",
		"--query.max-samples=99999999999999999999")
	f("--query.max-memory: \"lots\": want a number of bytes", "query", "--query.max-memory=lots")
	f("--auto-gomemlimit.ratio: \"2\": want a number above 0", "query", "--auto-gomemlimit.ratio=2")
	f("--log.level: ", "query", "--log.level=loud")
	f("--http-address: \"localhost\": want host:port", "query", "--http-address=localhost")
	f("--http-address: \"localhost:http:1\": want host:port", "query", "--http-address=localhost:http:1")
	f("--http-address: \"localhost:99999\": the port", "query", "--http-address=localhost:99999")
	f("--grpc-address: ", "query", "--grpc-address=nowhere")
	f("--endpoint: ", "query", "--endpoint=store")
	for _, name := range []string{"store", "store-strict", "rule", "target", "metadata", "exemplar", "endpoint-strict"} {
		f("--"+name+": \"store\": want host:port", "query", "--"+name+"=store")
	}
	f("--endpoint-group: \"store\": want host:port", "query", "--endpoint-group=store")
	f("--endpoint-group-strict: \"dnssrv+\": want host:port", "query", "--endpoint-group-strict=dnssrv+")
	f("--gossip.join: ", "query", "--gossip.join=dns+hearth")
	f("--label: \"zone\": want name=\"value\"", "receive", "--label=zone")
	f("the quote is not closed", "receive", `--label=zone="a`)
	f("label zone is given twice", "receive", "--label=zone=a", "--label=zone=b")
	f("--query.timout: there is no such flag; did you mean --query.timeout?", "query", "--query.timout=1m")
	f("--tsdb.path: this command has no such flag; it is one of hearth receive", "query", "--tsdb.path=x")
	f(`unexpected argument "qurey": neither a command nor a flag; did you mean query?`, "qurey")

	path := filepath.Join(t.TempDir(), "hearth.yml")
	if err := os.WriteFile(path, []byte("log.level: info\nquery.timeout: soon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f("--config.file: "+path+":2: query.timeout: \"soon\" is not a duration", "query", "--config.file="+path)
	t.Setenv("HEARTH_QUERY_TIMEOUT", "soon")
	f("HEARTH_QUERY_TIMEOUT (--query.timeout): \"soon\" is not a duration", "query")
}
