package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newPlainNode is a process that does not gossip, on ports and in a directory of its own, with the arguments that say
// so.
func newPlainNode(t *testing.T, name, role string, more ...string) *node {
	ports := freePorts(t, 3)
	n := &node{t: t, name: name, http: addr(ports[0]), grpc: addr(ports[1]), write: addr(ports[2]),
		dir: filepath.Join(t.TempDir(), name)}
	n.args = []string{role, "--http-address=" + n.http, "--grpc-address=" + n.grpc}
	if role == "receive" || role == "distributor" || role == "all" {
		n.args = append(n.args, "--remote-write.address="+n.write)
	}
	switch role {
	case "receive":
		n.args = append(n.args, "--tsdb.path="+n.dir)
	case "all", "store", "rule":
		n.args = append(n.args, "--data-dir="+n.dir)
	}
	n.args = append(n.args, more...)
	return n
}

// url is path on the node's HTTP port.
func (n *node) url(path string) string { return "http://" + n.http + path }

// waitFor waits until the process printed text.
func (p *process) waitFor(text string, deadline time.Duration) {
	p.t.Helper()
	eventually(p.t, deadline, func() error {
		if !strings.Contains(p.output(), text) {
			return fmt.Errorf("%s did not print %q", p.name, text)
		}
		return nil
	})
}

// signal sends sig. After SIGSTOP it waits until the process has stopped: the system stops its threads a moment later,
// and one of them may answer meanwhile.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	if sig != syscall.SIGSTOP {
		return
	}
	eventually(p.t, 10*time.Second, func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if !strings.HasPrefix(rest, "T") {
			return fmt.Errorf("%s has not stopped: %.20s", p.name, rest)
		}
		return nil
	})
}

// wait waits for the process to end of itself and returns its exit status, -1 when a signal ended it.
func (p *process) wait(deadline time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(deadline):
		p.t.Fatalf("%s did not end within %s", p.name, deadline)
	}
	return p.cmd.ProcessState.ExitCode()
}

// refuses runs hearth, which must end of itself, soon, with an error that holds all of want.
func refuses(t *testing.T, env, args []string, want ...string) {
	t.Helper()
	p := start(t, "refused", hearthBinary, env, args...)
	code := p.wait(20 * time.Second)
	out := p.output()
	if code != 1 && code != 2 {
		t.Errorf("%q: exit status %d, want 1 or 2", args, code)
	}
	last := strings.Split(strings.TrimSpace(out), "\n")
	if len(last) > 60 || strings.Contains(out, "goroutine ") {
		t.Errorf("%q: the error is not a few lines:\n%s", args, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%q: %q is not in\n%s", args, w, out)
		}
	}
}

// prints runs hearth to its end, which must be status 0, and returns what it wrote to standard output.
func prints(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(hearthBinary, args...).Output()
	if err != nil {
		t.Errorf("hearth %q: %v", args, err)
	}
	return string(out)
}
