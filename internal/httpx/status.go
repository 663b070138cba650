package httpx

import (
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Status is what a process tells of itself in Prometheus's status answers.
type Status struct {
	// Version, Revision, Branch, BuildUser and BuildDate are set when the binary is linked.
	Version, Revision, Branch, BuildUser, BuildDate string
	// FlagValues are all flags by name, without dashes, as they were set. Flags hides secrets in them.
	FlagValues map[string]string
	// Start is when the process began.
	Start time.Time
	// Retention is the storage retention for people, "" when the role stores nothing.
	Retention string
	// Reloaded tells whether the last reading of the configuration succeeded and when that was; nil = at Start.
	Reloaded func() (ok bool, at time.Time)
}

// BuildInfo is Prometheus's answer of /api/v1/status/buildinfo.
type BuildInfo struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	Branch    string `json:"branch"`
	BuildUser string `json:"buildUser"`
	BuildDate string `json:"buildDate"`
	GoVersion string `json:"goVersion"`
}

// RuntimeInfo is Prometheus's answer of /api/v1/status/runtimeinfo.
type RuntimeInfo struct {
	StartTime           time.Time `json:"startTime"`
	CWD                 string    `json:"CWD"`
	Hostname            string    `json:"hostname"`
	ServerTime          time.Time `json:"serverTime"`
	ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
	LastConfigTime      time.Time `json:"lastConfigTime"`
	CorruptionCount     int64     `json:"corruptionCount"`
	GoroutineCount      int       `json:"goroutineCount"`
	GOMAXPROCS          int       `json:"GOMAXPROCS"`
	GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
	GOGC                string    `json:"GOGC"`
	GODEBUG             string    `json:"GODEBUG"`
	StorageRetention    string    `json:"storageRetention"`
}

// Build describes the binary.
func (s *Status) Build() BuildInfo {
	return BuildInfo{s.Version, s.Revision, s.Branch, s.BuildUser, s.BuildDate, runtime.Version()}
}

// Runtime describes the process now.
func (s *Status) Runtime() RuntimeInfo {
	info := RuntimeInfo{
		StartTime: s.Start.UTC(), ServerTime: time.Now().UTC(), ReloadConfigSuccess: true, LastConfigTime: s.Start.UTC(),
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0), GOMEMLIMIT: debug.SetMemoryLimit(-1),
		GOGC: os.Getenv("GOGC"), GODEBUG: os.Getenv("GODEBUG"), StorageRetention: s.Retention,
	}
	info.CWD, _ = os.Getwd()         // "" when it is not known
	info.Hostname, _ = os.Hostname() // likewise
	if s.Reloaded != nil {
		info.ReloadConfigSuccess, info.LastConfigTime = s.Reloaded()
		info.LastConfigTime = info.LastConfigTime.UTC()
	}
	return info
}

// Flags are the flag values with secrets hidden.
func (s *Status) Flags() map[string]string {
	out := make(map[string]string, len(s.FlagValues))
	for name, value := range s.FlagValues {
		out[name] = Redact(name, value)
	}
	return out
}

const hidden = "<secret>"

var (
	secretWord = regexp.MustCompile(`(?i)pass(word|phrase)?\b|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|sas[-_]|connection_string`)
	userInfo   = regexp.MustCompile(`://[^/\s@]+@`)
)

// Redact is value as it may be shown: hidden when the flag's name means a secret (and not a file that holds one) or when
// the value is configuration text that has one; user and password in URLs are hidden too.
func Redact(name, value string) string {
	isFile := strings.HasSuffix(name, "file") || strings.HasSuffix(name, "path") || strings.HasSuffix(name, "dir")
	inline := strings.ContainsAny(value, "\n:{") && secretWord.MatchString(value)
	if value != "" && !isFile && (secretWord.MatchString(name) || inline) {
		return hidden
	}
	return userInfo.ReplaceAllString(value, "://"+hidden+"@")
}
