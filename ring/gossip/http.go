package gossip

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

//go:embed ring.html
var ringHTML string

var ringPage = template.Must(template.New("ring").Parse(ringHTML))

// HandleRing shows the rings as a page, or as JSON with ?format=json or an Accept header that asks for it. A POST with
// the form value forget=<instance id> forgets a member that is down.
func (g *Gossip) HandleRing(w http.ResponseWriter, r *http.Request) {
	if !g.serves(w) {
		return
	}
	asJSON := r.FormValue("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		if !g.handleForget(w, r) {
			return
		}
		if !asJSON {
			http.Redirect(w, r, r.URL.Path, http.StatusSeeOther)
			return
		}
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	s := g.status()
	w.Header().Set("Cache-Control", "no-store")
	if asJSON {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the client is gone: nobody to tell
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = ringPage.Execute(w, s)
}

// handleForget reports whether it forgot; else it answered.
func (g *Gossip) handleForget(w http.ResponseWriter, r *http.Request) bool {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return false
	}
	id := r.PostFormValue("forget")
	if id == "" {
		http.Error(w, "want the form value forget=<instance id>", http.StatusBadRequest)
		return false
	}
	if err := g.Forget(r.Context(), id); err != nil {
		http.Error(w, err.Error(), errs.KindOf(err).HTTPStatus())
		return false
	}
	return true
}

// HandleMemberlist shows what memberlist knows: its nodes and the gossiped values.
func (g *Gossip) HandleMemberlist(w http.ResponseWriter, r *http.Request) {
	if g.serves(w) {
		g.kvs.ServeHTTP(w, r)
	}
}

// serves reports whether there is something to show; else it answered.
func (g *Gossip) serves(w http.ResponseWriter) bool {
	err := g.available()
	if err != nil {
		http.Error(w, err.Error(), errs.KindOf(err).HTTPStatus())
	}
	return err == nil
}

// ringStatus is the JSON answer and the page's data.
type ringStatus struct {
	Instance          string              `json:"instance"`
	Gossip            string              `json:"gossip"`
	ReplicationFactor int                 `json:"replication_factor"`
	Conflict          string              `json:"conflict,omitempty"`
	Rings             []ringTable         `json:"rings"`
	History           []incarnationStatus `json:"history"`
}

type ringTable struct {
	Role    string         `json:"role"`
	Members []memberStatus `json:"members"`
}

type memberStatus struct {
	ID        string    `json:"id"`
	Addr      string    `json:"addr"`
	HTTPAddr  string    `json:"http_addr,omitempty"`
	Zone      string    `json:"zone,omitempty"`
	State     string    `json:"state"`
	Heartbeat time.Time `json:"heartbeat"`
	// Age is that of the heartbeat, in seconds.
	Age   int64     `json:"heartbeat_age_seconds"`
	Since time.Time `json:"since"`
	// Share is the part of the series it is primary of, in percent.
	Share float64 `json:"share_percent"`
	Down  bool    `json:"-"`
}

type incarnationStatus struct {
	ID      string     `json:"id"`
	Addr    string     `json:"addr"`
	Zone    string     `json:"zone,omitempty"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
	Drained bool       `json:"drained,omitempty"`
}

func (g *Gossip) status() ringStatus {
	s := ringStatus{Instance: g.opts.Instance.ID, Gossip: g.Address(), ReplicationFactor: g.ReplicationFactor(), History: []incarnationStatus{}}
	if why := g.conflict.Load(); why != nil {
		s.Conflict = *why
	}
	now := g.opts.Now()
	for _, role := range roles {
		t := ringTable{Role: role, Members: []memberStatus{}}
		for _, m := range g.Members(role) {
			t.Members = append(t.Members, memberStatus{
				ID: m.ID, Addr: m.Addr, HTTPAddr: m.HTTPAddr, Zone: m.Zone, State: m.State.String(),
				Heartbeat: m.Heartbeat.UTC(), Age: max(0, int64(now.Sub(m.Heartbeat).Seconds())), Since: m.Since.UTC(),
				Share: m.Share * 100, Down: m.State == ring.Down,
			})
		}
		s.Rings = append(s.Rings, t)
	}
	for _, i := range g.History() {
		h := incarnationStatus{ID: i.ID, Addr: i.Addr, Zone: i.Zone, Since: i.Since.UTC(), Drained: i.Drained}
		if !i.Until.IsZero() {
			until := i.Until.UTC()
			h.Until = &until
		}
		s.History = append(s.History, h)
	}
	return s
}
