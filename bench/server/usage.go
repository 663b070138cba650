package server

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticksPerSecond is Linux's USER_HZ, which is 100 on every architecture that Go runs on.
const ticksPerSecond = 100

// Usage of a process so far.
type Usage struct {
	Command  string
	CPU      float64 // seconds, user and system, with children it has waited for
	Peak     int64   // bytes: the largest resident set since the process began
	Resident int64   // bytes, now
}

// ReadUsage reads /proc. It fails when there is no such process or it has ended.
func ReadUsage(pid string) (Usage, error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return Usage{}, err
	}
	u, err := parseStat(string(stat))
	if err != nil {
		return u, fmt.Errorf("process %s: %w", pid, err)
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return u, err
	}
	if u.Peak, err = parseSize(status, "VmHWM:"); err != nil {
		return u, err
	}
	u.Resident, err = parseSize(status, "VmRSS:")
	return u, err
}

// parseStat reads command and CPU time of /proc/PID/stat. The command is in parentheses and may hold any character.
func parseStat(stat string) (Usage, error) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Usage{}, fmt.Errorf("stat %q: no command", stat)
	}
	u, fields := Usage{Command: stat[open+1 : end]}, strings.Fields(stat[end+1:])
	if len(fields) < 15 {
		return u, fmt.Errorf("stat %q: too short", stat)
	}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.CPU += float64(ticks) / ticksPerSecond
	}
	return u, nil
}

// parseSize reads one line of /proc/PID/status, in bytes.
func parseSize(status []byte, name string) (int64, error) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			var kb int64
			_, err := fmt.Sscanf(string(rest), "%d kB", &kb)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no %s the process has ended", name)
}
