package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/bench/server"
)

// pass is one pass of one program over one bucket.
type pass struct {
	testCase string
	program  string
	took     time.Duration
	cpu      float64 // seconds
	peak     int64   // bytes: largest resident set
	scratch  int64   // bytes: largest sum of the files in its data directory
	read     int64   // bytes that it read by system calls, from disk and network
	written  int64
	requests gateway.Counts // over S3
	content  content
	fault    error
}

// watch runs a program to its end, and measures it.
func (p *pass) watch(ctx context.Context, binary, dir string, args []string) error {
	log, err := os.Create(filepath.Join(dir, p.program+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.CommandContext(ctx, binary, args...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := c.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err = <-done:
			running = false
		case <-tick.C:
			p.scratch = max(p.scratch, sizeOf(filepath.Join(dir, "data")))
			p.look(c.Process.Pid)
		}
	}
	p.took = time.Since(began)
	if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		// not Maxrss: it begins with what this process had before exec
		p.cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	}
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w\n%s", p.program, err, tail(string(said), 15))
	}
	return nil
}

// look reads what the process has read and written until now, and its peak. What it did in its last tenth of a second
// is lost.
func (p *pass) look(pid int) {
	if u, err := server.ReadUsage(strconv.Itoa(pid)); err == nil {
		p.peak = u.Peak
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/io")
	if err != nil {
		return // it has ended
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "rchar":
			p.read = n
		case "wchar":
			p.written = n
		}
	}
}

// sizeOf is the sum of the sizes of the files in dir, those left out that vanish meanwhile.
func sizeOf(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (p pass) String() string {
	if p.fault != nil {
		return fmt.Sprintf("%s: %s: %v", p.testCase, p.program, p.fault)
	}
	return fmt.Sprintf("%s: %s: %.1f s, %.2f CPU s, peak %d MiB, scratch %d MiB, read %d MiB, wrote %d MiB; %s",
		p.testCase, p.program, p.took.Seconds(), p.cpu, p.peak>>20, p.scratch>>20, p.read>>20, p.written>>20, p.content)
}
