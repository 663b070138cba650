package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticksPerSecond is Linux's USER_HZ, which is 100 on every architecture that Go runs on.
const ticksPerSecond = 100

// usage of a process so far.
type usage struct {
	command string
	cpu     float64 // seconds, with children it has waited for
	peak    int64   // bytes: the largest resident set since the process began
}

func readUsage(pid string) (usage, error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return usage{}, err
	}
	u, err := parseStat(string(stat))
	if err != nil {
		return u, fmt.Errorf("process %s: %w", pid, err)
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return u, err
	}
	u.peak, err = parsePeak(status)
	return u, err
}

// parseStat reads command and CPU time of /proc/PID/stat. The command is in parentheses and may hold any character.
func parseStat(stat string) (usage, error) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return usage{}, fmt.Errorf("stat %q: no command", stat)
	}
	u, fields := usage{command: stat[open+1 : end]}, strings.Fields(stat[end+1:])
	if len(fields) < 15 {
		return u, fmt.Errorf("stat %q: too short", stat)
	}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += float64(ticks) / ticksPerSecond
	}
	return u, nil
}

// parsePeak reads VmHWM of /proc/PID/status.
func parsePeak(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			var kb int64
			_, err := fmt.Sscanf(string(rest), "%d kB", &kb)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM: the process has ended")
}
