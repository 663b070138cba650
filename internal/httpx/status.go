package httpx

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// Status is what a process shows of itself in the answers of Prometheus's status API.
type Status struct {
	// Version, Revision, Branch, BuildUser and BuildDate are set when the binary is linked.
	Version, Revision, Branch, BuildUser, BuildDate string
	// FlagValues are all flags by name, without dashes, as they were set. They are shown, so they must hold no secret.
	FlagValues map[string]string
	// Start is when the process began.
	Start time.Time
	// Retention is the storage retention for people, "" when the role stores nothing.
	Retention string
	// Features are what clients may ask for beyond Prometheus's API, in Mimir's words; nil = nothing.
	Features map[string]string
	// Reloaded says whether the last reading of the configuration succeeded, and when one last did; nil = at Start.
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
	// Application and Features are Mimir's. Grafana looks for them.
	Application string            `json:"application,omitempty"`
	Features    map[string]string `json:"features,omitempty"`
}

// RulerConfigAPI are the Features of a process whose API changes rules.
func RulerConfigAPI() map[string]string { return map[string]string{"ruler_config_api": "true"} }

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
	info := BuildInfo{
		Version: s.Version, Revision: s.Revision, Branch: s.Branch, BuildUser: s.BuildUser, BuildDate: s.BuildDate,
		GoVersion: runtime.Version(), Features: s.Features,
	}
	if s.Features != nil {
		info.Application = "Hearth"
	}
	return info
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
