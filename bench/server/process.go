package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a running program. Its output goes to a file.
type Process struct {
	Name string
	Path string
	Args []string

	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the program has ended
}

// Start starts a program in dir, with its output in dir/NAME.log. It dies with this process.
func Start(name, path, dir string, args ...string) (*Process, error) {
	p := &Process{Name: name, Path: path, Args: args, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	output, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close() // the child has its own
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, output, output
	// an interrupt is for the benchmark alone
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	return p, nil
}

// Usage of the process so far.
func (p *Process) Usage() (Usage, error) {
	u, err := ReadUsage(strconv.Itoa(p.cmd.Process.Pid))
	if err != nil {
		return u, fmt.Errorf("%s: %w\n%s", p.Name, err, p.Tail(20))
	}
	return u, nil
}

// Signal sends s. A process that has ended takes it without an error.
func (p *Process) Signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic("BUG: own child not signalled: " + err.Error())
	}
}

// Stop asks the process to end, kills it after the deadline, and waits.
func (p *Process) Stop(deadline time.Duration) error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(deadline):
		p.Kill()
		return fmt.Errorf("%s did not stop within %s", p.Name, deadline)
	}
}

// Kill ends the process at once and waits.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Tail is the last lines of the output.
func (p *Process) Tail(lines int) string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// CommandLine is how the process was started, with the directory cut out.
func (p *Process) CommandLine(dir string) string {
	line := filepath.Base(p.Path) + " " + strings.Join(p.Args, " ")
	return strings.ReplaceAll(line, dir+"/", "")
}

// Ports are n distinct free loopback ports. They come from below the ephemeral range, so that no outgoing connection
// takes one before the process that is to listen there.
func Ports(n int) ([]int, error) {
	ports.Lock()
	defer ports.Unlock()
	var out []int
	for tried := 0; len(out) < n; tried++ {
		port := ports.step()
		l, err := net.Listen("tcp", Address(port))
		if err != nil {
			if tried > lastPort-firstPort {
				return nil, fmt.Errorf("free ports: %w", err)
			}
			continue
		}
		l.Close()
		out = append(out, port)
	}
	return out, nil
}

const firstPort, lastPort = 20000, 29000

// Tests that run side by side have neighbouring process identifiers: their first ports lie far apart.
var ports = struct {
	sync.Mutex // guards the range
	portRange
}{portRange: portRange{next: firstPort + os.Getpid()*499%(lastPort-firstPort)}}

// portRange goes through all ports from firstPort to lastPort in a circle.
type portRange struct{ next int }

func (p *portRange) step() int {
	port := p.next
	if p.next++; p.next > lastPort {
		p.next = firstPort
	}
	return port
}

// Address of a port on loopback.
func Address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// Poll calls cond every 50 ms until it returns nil, and gives its last error when ctx or the deadline ends first.
func Poll(ctx context.Context, deadline time.Duration, cond func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not so within %s: %w", deadline, err)
		}
	}
}

// Pause waits for d, or until ctx ends, which is an error.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
