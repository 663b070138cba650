package server

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Machine is what a page says about where its figures come from.
type Machine struct {
	CPU    string
	Cores  int
	Memory int64 // bytes
	Kernel string
	Load   float64 // of the minute before
}

// ThisMachine reads /proc; what it cannot read stays empty.
func ThisMachine() Machine {
	m := Machine{CPU: "unknown CPU", Cores: runtime.NumCPU()}
	read := func(path string) string {
		b, _ := os.ReadFile(path) // the page can do without
		return string(b)
	}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	m.Memory, _ = parseSize([]byte(read("/proc/meminfo")), "MemTotal:")
	m.Kernel = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	if load, _, ok := strings.Cut(read("/proc/loadavg"), " "); ok {
		m.Load, _ = strconv.ParseFloat(load, 64)
	}
	return m
}

// Busy tells that other work had more than a quarter of the machine.
func (m Machine) Busy() bool { return m.Load > float64(m.Cores)/4 }

// String is one phrase for a page.
func (m Machine) String() string {
	return fmt.Sprintf("%d cores (%s), %.0f GiB, Linux %s, %s, load average before %.2f", m.Cores, m.CPU,
		float64(m.Memory)/(1<<30), m.Kernel, runtime.Version(), m.Load)
}

// Arguments are the flags that were set, without those that name files of this machine.
func Arguments(fs *flag.FlagSet, files ...string) string {
	said := ""
	fs.Visit(func(f *flag.Flag) {
		if !slices.Contains(files, f.Name) {
			said += fmt.Sprintf(" -%s=%s", f.Name, f.Value)
		}
	})
	if said == "" {
		return " none"
	}
	return " `" + said[1:] + "`"
}

const (
	beginGenerated = "<!-- generated: begin -->\n"
	endGenerated   = "<!-- generated: end -->\n"
)

// WriteGenerated replaces what stands between the marks in a Markdown file by text, and keeps what people wrote around
// them. A file without marks gets them at its end.
func WriteGenerated(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(replaceGenerated(string(old), text)), 0o644)
}

func replaceGenerated(page, text string) string {
	before, rest, marked := strings.Cut(page, beginGenerated)
	_, after, ended := strings.Cut(rest, endGenerated)
	if !marked || !ended {
		if page != "" {
			page = strings.TrimRight(page, "\n") + "\n\n"
		}
		before, after = page, ""
	}
	return before + beginGenerated + "\n" + strings.Trim(text, "\n") + "\n\n" + endGenerated + after
}

var loopback = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// HidePorts replaces the addresses of a command line, which differ from run to run.
func HidePorts(line string) string { return loopback.ReplaceAllString(line, "ADDRESS") }

// Cell is the first line of a text, in a form that a cell of a Markdown table can hold.
func Cell(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.ReplaceAll(line, "|", "/")
}
