package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

var roles = []string{"all", "receive", "distributor", "store", "query"}

// TestHelp: every role explains itself, and says so with success.
func TestHelp(t *testing.T) {
	f := func(want []string, args ...string) {
		t.Helper()
		out := prints(t, args...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("hearth %q: %q is not in\n%s", args, w, out)
			}
		}
	}
	f(append(roles, "The best place to keep Prometheus metrics", "--config.file", "--log.level"), "--help")
	f(roles, "help")
	f(roles, "-h")
	f([]string{"hearth", "go version"}, "--version")
	for _, r := range roles {
		for _, args := range [][]string{{r, "--help"}, {"help", r}} {
			f(
				[]string{"usage: hearth " + r, "--http-address", "--grpc-address", "--gossip.join", "--log.level",
					"HEARTH_HTTP_ADDRESS"},
				args...)
		}
	}
	f([]string{"--tsdb.retention=15d", "--receive.replication-factor=1", "--objstore.config"}, "receive", "--help")
}

// TestMistakes: what is wrong on the command line ends the process at once, with words that name the flag.
func TestMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("- not\n- a mapping\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "hearth.yml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "--config.file=" + path
	}
	here := "--tsdb.path=" + dir
	f := func(want string, args ...string) {
		t.Helper()
		refuses(t, nil, args, want)
	}
	f("--nope", "receive", "--nope")
	f(`"foo"`, "foo")
	f("goes first", "--log.level=debug", "--http-address=127.0.0.1:0", "receive")
	f("--tsdb.retention: \"soon\" is not a duration", "receive", "--tsdb.retention=soon")
	f("--label: ", "receive", "--label=nothing")
	f("--receive.replication-factor: ", "receive", "--receive.replication-factor=many")
	f("--receive.replication-factor 0", "receive", here, "--receive.replication-factor=0")
	f("needs other members", "all", "--data-dir="+dir, "--receive.replication-factor=3")
	f("differ", "receive", here, "--tsdb.min-block-duration=1h", "--tsdb.max-block-duration=4h")
	f("--receive.grpc-service-config", "receive", here, "--receive.grpc-service-config="+file+".none")
	f("nobody to route to", "distributor")
	f("--objstore.config", "store")
	f("--objstore.config:1: is not YAML", "receive", here, "--objstore.config={{")
	f("--objstore.config:2: config: endpont: there is no such key here; did you mean endpoint?", "receive", here,
		"--objstore.config=type: S3\nconfig: {bucket: b, endpont: e}")
	f("--objstore.config-file", "receive", here, "--objstore.config-file="+file+".none")
	f("use one", "receive", here, "--objstore.config=type: S3", "--objstore.config-file="+file)
	f("--log.level", "query", "--log.level=loud")
	f("--http-address", "query", "--http-address=nowhere")
	f("--store-api.tenants", "query", "--store-api.tenants=../x")
	f("a mapping (key: value) is expected", "query", "--config.file="+file)
	f("--config.file", "query", "--config.file="+file+".none")
	f("hearth.yml:1: nope: no command has such a flag", "query", config("nope: 1\n"))
	f("hearth.yml:2: tsdb.pat: no command has such a flag; did you mean tsdb.path?", "query",
		config("tsdb.path: x\ntsdb.pat: y\n")) // the first is of other commands
	f("neither true nor false", "query", config("query.partial-response: perhaps\n"))
	f("data directory", "all", "--data-dir="+file)
	f("instance id", "receive", "--tsdb.path="+t.TempDir(), "--gossip.instance-id=a b")
	f("hashrings", "receive", here, "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--receive.hashrings=[{]")
	refuses(t, []string{"HEARTH_TSDB_RETENTION=soon"}, []string{"receive", here}, "HEARTH_TSDB_RETENTION")
}

// TestPortInUse: whichever port is taken, the error names the flag and the address.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for _, flag := range []string{"--http-address", "--grpc-address", "--remote-write.address", "--gossip.address"} {
		n := newPlainNode(t, "busy", "receive")
		args := []string{n.args[0], flag + "=" + taken}
		for _, a := range n.args[1:] {
			if !strings.HasPrefix(a, flag+"=") {
				args = append(args, a)
			}
		}
		// What is left open by a start that fails would keep the process alive.
		refuses(t, nil, args, flag, taken, "address already in use")
	}
}

// TestDataDirectory: one that cannot be written, one that is in use, one that is another's.
func TestDataDirectory(t *testing.T) {
	t.Parallel()
	n := newPlainNode(t, "proc", "receive")
	refuses(t, nil, append(n.args, "--tsdb.path=/proc/hearth"), "cannot be repeated")
	n.args = append([]string{"receive", "--tsdb.path=/proc/hearth"}, n.args[1:4]...)
	refuses(t, nil, n.args, "/proc/hearth")

	for _, role := range []string{"receive", "all", "store"} {
		first := newRole(t, role)
		first.start()
		first.waitReady()
		second := newRole(t, role)
		second.args = swap(second.args, second.dir, first.dir)
		refuses(t, nil, second.args, first.dir, "another process")
		if _, err := get(first.url("/-/ready"), nil); err != nil {
			t.Errorf("%s: the first process suffers from the second: %v", role, err)
		}
		first.stop(20 * time.Second)
		refuses(t, nil, append(second.args, "--gossip.instance-id=somebody-else"), first.dir, "somebody-else")
	}
}

// swap replaces a directory in arguments.
func swap(args []string, dir, by string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = strings.Replace(a, dir, by, 1)
	}
	return out
}

// TestSettings: a flag wins over HEARTH_*, which wins over --config.file; lists, booleans and YAML values in the file.
func TestSettings(t *testing.T) {
	t.Parallel()
	bucket := t.TempDir()
	file := filepath.Join(t.TempDir(), "hearth.yml")
	text := fmt.Sprintf(`# settings of a test
tsdb.retention: 1d
tsdb.block-duration: 1h
log.level: debug
tsdb.max-exemplars: 7
label: [region="eu", 'rack=7']
query.partial-response: false
disable-admin-operations: true
objstore.config:
  type: FILESYSTEM
  config:
    directory: %s
`, bucket)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newPlainNode(t, "settings", "all", "--tsdb.retention=3d")
	env := []string{"HEARTH_TSDB_RETENTION=2d", "HEARTH_TSDB_BLOCK_DURATION=30m", "HEARTH_CONFIG_FILE=" + file,
		"HEARTH_LOG_LEVEL=", "HEARTH_VERSION=1.2.3", "HEARTH_SERVICE_HOST=10.0.0.1",
		"HEARTH_PORT=tcp://10.0.0.1:80"} // as Kubernetes and images set
	n.process = start(t, "settings", hearthBinary, env, n.args...)
	n.waitReady()
	flags := flagsOf(t, n)
	for name, want := range map[string]string{
		"tsdb.retention": "3d", "tsdb.block-duration": "30m", "log.level": "debug", "tsdb.max-exemplars": "7",
		"query.partial-response": "false", "disable-admin-operations": "true",
	} {
		if flags[name] != want {
			t.Errorf("--%s is %q, want %q", name, flags[name], want)
		}
	}
	for _, want := range []string{`region="eu"`, `rack="7"`} {
		if !strings.Contains(flags["label"], want) {
			t.Errorf("labels are %s, want %s", flags["label"], want)
		}
	}
	if _, err := do(http.MethodPost, n.url("/api/v1/admin/flush"), nil, nil); err == nil {
		t.Error("admin operations are disabled, and one works")
	}
	eventually(t, 10*time.Second, func() error { // the bucket that the file names is the one in use
		_, err := os.Stat(filepath.Join(bucket, "hearth", "bucket.json"))
		return err
	})
}

// TestInterrupt: Ctrl-C ends any role with status 0, a second one at once.
func TestInterrupt(t *testing.T) {
	for _, role := range roles {
		n := newRole(t, role)
		n.start()
		n.waitReady()
		n.signal(syscall.SIGINT)
		if code := n.wait(20 * time.Second); code != 0 {
			t.Errorf("%s: status %d after SIGINT:\n%s", role, code, tail(n.log, 5))
		}
		if !strings.Contains(n.output(), "msg=stopped") {
			t.Errorf("%s does not say that it stopped", role)
		}
	}

	n := newPlainNode(t, "busy", "receive")
	n.start()
	n.waitReady()
	body, feed := io.Pipe() // a request that never ends holds up the stop
	defer feed.Close()
	go func() {
		resp, err := http.Post(n.url("/api/v1/receive"), "application/x-protobuf", body)
		if err == nil {
			resp.Body.Close()
		}
	}()
	if _, err := feed.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error { // the handler has it
		return metricIs(n, `hearth_http_inflight_requests{.*receive.*}`, 1)
	})
	n.signal(syscall.SIGINT)
	n.waitFor("msg=stopping", 10*time.Second)
	eventually(t, 5*time.Second, func() error {
		_ = n.cmd.Process.Signal(syscall.SIGINT) // it may be gone
		select {
		case <-n.done:
			return nil
		default:
			return fmt.Errorf("still there")
		}
	})
	if code := n.cmd.ProcessState.ExitCode(); code == 0 {
		t.Error("a stop that was cut short says that all is well")
	}
}

// TestDarkBucket: object storage that does not answer keeps nobody from taking and serving data; a store gateway,
// which has nothing else, says why it is not ready. Ctrl-C works meanwhile.
func TestDarkBucket(t *testing.T) {
	t.Parallel()
	dark, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer dark.Close()
	nobody := freePorts(t, 1)[0]
	s3 := func(endpoint string) string {
		return fmt.Sprintf("--objstore.config=type: S3\nconfig: {bucket: metrics, endpoint: %q, access_key: thekey, secret_key: %s, insecure: true, region: us-east-1}",
			endpoint, s3Secret)
	}
	for _, endpoint := range []string{addr(nobody), dark.Addr().String()} {
		all := newPlainNode(t, "receive", "all", s3(endpoint))
		store := newPlainNode(t, "store", "store", s3(endpoint))
		all.start()
		store.start()
		eventually(t, 20*time.Second, func() error {
			body, err := get(all.url("/-/healthy"), nil)
			if err != nil {
				return fmt.Errorf("%s %w", body, err)
			}
			return nil
		})
		all.waitReady()
		eventually(t, 20*time.Second, func() error {
			body, err := get(all.url("/-/ready?verbose"), nil)
			if err != nil || !strings.Contains(string(body), "[!] blocks: ") || !strings.Contains(string(body), "[!] bucket: ") {
				return fmt.Errorf("the process does not say what it lacks: %s %w", body, err)
			}
			return nil
		})
		now := time.Now()
		eventually(t, 20*time.Second, func() error {
			body := encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(now.UnixMilli(), 5, "__name__", "dark")}})
			_, err := do(http.MethodPost, all.url("/api/v1/receive"), writeHeader(nil), body)
			return err
		})
		ans, err := all.api("default-tenant").query("dark", now)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := scalarOf(ans); err != nil || v != 5 {
			t.Errorf("local data: %v %v", v, err)
		}
		old, err := all.api("default-tenant").query("dark[300d]", now)
		if err != nil || len(old.Warnings) == 0 {
			t.Errorf("what may be in the bucket is missing from an answer silently: %s %q %v", old.Data, old.Warnings, err)
		}
		eventually(t, 20*time.Second, func() error {
			_, err := get(store.url("/-/ready"), nil)
			if status(err) != 503 || !strings.Contains(err.Error(), "[-] store: ") {
				return fmt.Errorf("store: %w", err)
			}
			if endpoint != dark.Addr().String() && !strings.Contains(err.Error(), endpoint) {
				return fmt.Errorf("store does not say what does not answer: %w", err)
			}
			return nil
		})
		for _, n := range []*node{all, store} {
			n.signal(syscall.SIGINT)
			if code := n.wait(15 * time.Second); code != 0 {
				t.Errorf("%s: status %d after SIGINT:\n%s", n.name, code, tail(n.log, 5))
			}
			if strings.Contains(n.output(), s3Secret) {
				t.Errorf("%s prints the secret key", n.name)
			}
		}
	}
	starting := newPlainNode(t, "starting", "receive", s3(dark.Addr().String()),
		"--gossip.address="+addr(freePorts(t, 1)[0]))
	starting.start()
	starting.waitFor("msg=starting", 10*time.Second)
	eventually(t, 10*time.Second, func() error { _, err := get(starting.url("/-/healthy"), nil); return err })
	starting.signal(syscall.SIGINT)
	if code := starting.wait(10 * time.Second); code != 0 {
		t.Errorf("status %d after SIGINT while starting", code)
	}
}
