package httpx

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Health is what a process says of its parts. The process is ready when all checks are, except advisory ones. The zero
// value has no checks and is ready.
type Health struct {
	mu     sync.Mutex // guards checks
	checks []check
}

type check struct {
	name     string
	ready    func() error
	advisory bool
}

// State is the result of one check.
type State struct {
	// Name of the part.
	Name string
	// Err says what keeps the part from doing its work; nil = ready.
	Err error
	// Advisory says that the process is ready even if this part is not.
	Advisory bool
}

// AddCheck adds a named check. ready is called for each probe, also concurrently, so it must return at once, from
// memory.
func (h *Health) AddCheck(name string, ready func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, check{name: name, ready: ready})
}

// AddAdvice adds a check that is shown and does not make the process unready. It is for parts that the process can work
// without.
func (h *Health) AddAdvice(name string, ready func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, check{name: name, ready: ready, advisory: true})
}

// States runs every check, in the order in which they were added.
func (h *Health) States() []State {
	h.mu.Lock()
	checks := h.checks[:len(h.checks):len(h.checks)]
	h.mu.Unlock()
	states := make([]State, len(checks))
	for i, c := range checks {
		states[i] = State{Name: c.name, Err: c.ready(), Advisory: c.advisory}
	}
	return states
}

// withoutReasons hides the reasons of states from users who are no operators, since a reason may name a tenant.
func withoutReasons(states []State) []State {
	for i := range states {
		if states[i].Err != nil {
			states[i].Err = errHidden
		}
	}
	return states
}

var errHidden = errors.New("operators see why")

// StatesFor is States as the sender of r may see them.
func (h *Health) StatesFor(r *http.Request) []State {
	states := h.States()
	if tenant.GrantFrom(r.Context()).Operator() {
		return states
	}
	return withoutReasons(states)
}

// serveReady answers /-/ready: 200 or 503, and why. ?verbose lists every check, ?format=json does so for programs.
func (h *Health) serveReady(w http.ResponseWriter, r *http.Request) {
	states, ready := h.StatesFor(r), true
	for _, s := range states {
		ready = ready && (s.Err == nil || s.Advisory)
	}
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	q := r.URL.Query()
	if q.Get("format") == "json" {
		writeReadyJSON(w, status, states)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		fmt.Fprint(w, readyText(states, ready, q.Has("verbose")))
	}
}

func readyText(states []State, ready, verbose bool) string {
	var b strings.Builder
	if ready {
		b.WriteString("ready\n")
	} else {
		b.WriteString("not ready\n")
	}
	for _, s := range states {
		switch {
		case s.Err != nil && s.Advisory:
			fmt.Fprintf(&b, "[!] %s: %s\n", s.Name, s.Err)
		case s.Err != nil:
			fmt.Fprintf(&b, "[-] %s: %s\n", s.Name, s.Err)
		case verbose:
			fmt.Fprintf(&b, "[+] %s\n", s.Name)
		}
	}
	return b.String()
}

func writeReadyJSON(w http.ResponseWriter, status int, states []State) {
	type checkJSON struct {
		Name     string `json:"name"`
		Ready    bool   `json:"ready"`
		Advisory bool   `json:"advisory,omitempty"`
		Error    string `json:"error,omitempty"`
	}
	answer := struct {
		Ready  bool        `json:"ready"`
		Checks []checkJSON `json:"checks"`
	}{status == http.StatusOK, []checkJSON{}}
	for _, s := range states {
		c := checkJSON{Name: s.Name, Ready: s.Err == nil, Advisory: s.Advisory}
		if s.Err != nil {
			c.Error = s.Err.Error()
		}
		answer.Checks = append(answer.Checks, c)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // an error means that the client is gone
}
