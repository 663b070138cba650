package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// hearthBinary is built once by TestMain.
var hearthBinary string

func TestMain(m *testing.M) {
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hearth-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	hearthBinary = filepath.Join(dir, "hearth")
	args := []string{"build", "-o", hearthBinary}
	if os.Getenv("HEARTH_TEST_RACE") != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/hearth")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build ../cmd/hearth:", err)
		return 1
	}
	return m.Run()
}

// tool is the path of a program that `make tools` installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", ".tools", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not installed: run `make tools` (%v)", name, err)
	}
	return path
}

// freePorts are n distinct free loopback ports.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports, err := server.Ports(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

func addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// process is a running program. Its output goes to a file that is printed when the test fails.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the program ended
	err  error         // how; valid after done

	quiet bool // the log is not printed when the test fails: it is kept elsewhere
}

// start runs a program; it is killed at the end of the test.
func start(t *testing.T, name, path string, env []string, args ...string) *process {
	t.Helper()
	logFile, err := os.CreateTemp(t.TempDir(), name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &process{t: t, name: name, cmd: cmd, log: logFile.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		logFile.Close()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() && !p.quiet {
			t.Logf("---- log of %s %s ----\n%s", name, strings.Join(args, " "), tail(p.log, 60))
		}
	})
	return p
}

// hearth starts the binary under test.
func hearth(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return start(t, name, hearthBinary, nil, args...)
}

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// kill ends the process at once, as a crash would, and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end and waits; anything but exit status 0 within the deadline fails the test.
func (p *process) stop(deadline time.Duration) {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			p.t.Errorf("%s ended with %v", p.name, p.err)
		}
	case <-time.After(deadline):
		p.t.Errorf("%s did not stop within %s", p.name, deadline)
		p.kill()
	}
}

// output is everything the process printed so far.
func (p *process) output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// ready waits until the process answers 200 on url.
func (p *process) ready(url string, deadline time.Duration) {
	p.t.Helper()
	eventually(p.t, deadline, func() error {
		select {
		case <-p.done:
			p.t.Fatalf("%s ended before it was ready: %v\n%s", p.name, p.err, tail(p.log, 40))
		default:
		}
		_, err := get(url, nil)
		return err
	})
}

// pollInterval is how often eventually looks.
const pollInterval = 50 * time.Millisecond

// eventually polls cond until it returns nil, and returns at once then.
func eventually(t *testing.T, deadline time.Duration, cond func() error) {
	t.Helper()
	end := time.Now().Add(deadline)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not so within %s: %v", deadline, err)
		}
		<-tick.C
	}
}

var httpClient = &http.Client{Timeout: 30 * time.Second}

func get(url string, header http.Header) ([]byte, error) {
	return do(http.MethodGet, url, header, nil)
}

// do returns the body of a 2xx answer, and a *statusError for any other.
func do(method, url string, header http.Header, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, &statusError{code: resp.StatusCode, header: resp.Header, body: string(b)}
	}
	return b, nil
}

type statusError struct {
	code   int
	header http.Header
	body   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d: %s", e.code, strings.TrimSpace(e.body))
}

// status is the HTTP status of err: 200 for nil, 0 when there was no answer.
func status(err error) int {
	var s *statusError
	switch {
	case err == nil:
		return 200
	case errors.As(err, &s):
		return s.code
	}
	return 0
}

func tenantHeader(id string) http.Header {
	return http.Header{"X-Scope-Orgid": {id}}
}
