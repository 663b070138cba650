package gossip

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

//go:embed ring.html
var ringHTML string

var ringPage = template.Must(template.New("ring").Parse(ringHTML))

// HandleRing shows the rings as a page, or as JSON with ?format=json or an Accept header that asks for it. With
// ?tenant= it also shows where that tenant's new series go. A POST with the form value forget=<instance id> forgets a
// member that is down.
func (g *Gossip) HandleRing(w http.ResponseWriter, r *http.Request) {
	if !g.serves(w) {
		return
	}
	asJSON := r.FormValue("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		if !g.handleForget(w, r, "forget") {
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
	s, err := g.status(r.FormValue("tenant"))
	if err != nil {
		http.Error(w, err.Error(), errs.KindOf(err).HTTPStatus())
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if asJSON {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // it fails only if the client is gone
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = ringPage.Execute(w, s)
}

// HandleForget forgets the member that a POST names in the form value instance, if it is down, and answers 204.
func (g *Gossip) HandleForget(w http.ResponseWriter, r *http.Request) {
	switch {
	case !g.serves(w):
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case g.handleForget(w, r, "instance"):
		w.WriteHeader(http.StatusNoContent)
	}
}

// handleForget forgets the member that the form value field names. If that fails it writes the answer and returns
// false.
func (g *Gossip) handleForget(w http.ResponseWriter, r *http.Request, field string) bool {
	if g.opts.RefuseForget {
		http.Error(w, "admin operations are disabled here", http.StatusForbidden)
		return false
	}
	if err := httpx.SameOrigin(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return false
	}
	id := r.FormValue(field)
	if id == "" {
		http.Error(w, "want the form value "+field+"=<instance id>", http.StatusBadRequest)
		return false
	}
	if err := g.Forget(r.Context(), id); err != nil {
		http.Error(w, err.Error(), errs.KindOf(err).HTTPStatus())
		return false
	}
	return true
}

// HandleMemberlist shows the page of memberlist: its nodes and the gossiped values.
func (g *Gossip) HandleMemberlist(w http.ResponseWriter, r *http.Request) {
	if g.serves(w) {
		g.kvs.ServeHTTP(w, r)
	}
}

// serves reports whether gossip is open. If it is not, it writes the answer.
func (g *Gossip) serves(w http.ResponseWriter) bool {
	err := g.available()
	if err != nil {
		http.Error(w, err.Error(), errs.KindOf(err).HTTPStatus())
	}
	return err == nil
}

// ringStatus is the JSON answer and the data of the page.
type ringStatus struct {
	Instance          string              `json:"instance"`
	Gossip            string              `json:"gossip"`
	ReplicationFactor int                 `json:"replication_factor"`
	Conflict          string              `json:"conflict,omitempty"`
	Rings             []ringTable         `json:"rings"`
	History           []incarnationStatus `json:"history"`
	// Quarantined are the tenants whose data this process cannot use.
	Quarantined []Quarantine `json:"quarantined"`
	// Tenant is the one that ?tenant= names.
	Tenant    *tenantStatus `json:"tenant,omitempty"`
	MayForget bool          `json:"-"`
}

// tenantStatus says where a tenant's new series go.
type tenantStatus struct {
	ID tenant.ID `json:"id"`
	// ShardSize is the number of receivers that its series are spread over, 0 for all. Samples from before Since may be
	// on others.
	ShardSize int           `json:"shard_size"`
	Since     *time.Time    `json:"since,omitempty"`
	Members   []shareStatus `json:"members"`
}

// shareStatus is a member with the part of the tenant's series that it has a copy of, in percent.
type shareStatus struct {
	ID    string  `json:"id"`
	Zone  string  `json:"zone,omitempty"`
	Share float64 `json:"share_percent"`
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
	// Share is the part of all series that it has a copy of, in percent.
	Share float64 `json:"share_percent"`
	// Quarantined is the number of tenants whose data it cannot use.
	Quarantined int  `json:"quarantined_tenants,omitempty"`
	Down        bool `json:"-"`
}

type incarnationStatus struct {
	ID      string     `json:"id"`
	Addr    string     `json:"addr"`
	Zone    string     `json:"zone,omitempty"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
	Drained bool       `json:"drained,omitempty"`
}

func (g *Gossip) status(id string) (ringStatus, error) {
	s := ringStatus{
		Instance: g.opts.Instance.ID, Gossip: g.Address(), ReplicationFactor: g.ReplicationFactor(),
		History: []incarnationStatus{}, Quarantined: []Quarantine{}, MayForget: !g.opts.RefuseForget,
	}
	if id != "" {
		of, err := g.tenantStatus(id)
		if err != nil {
			return s, err
		}
		s.Tenant = of
	}
	if g.opts.Quarantined != nil {
		s.Quarantined = append(s.Quarantined, g.opts.Quarantined()...)
	}
	if why := g.conflict.Load(); why != nil {
		s.Conflict = *why
	}
	now, processes := g.opts.Now(), g.snapshot.Load().cluster.Processes
	for _, role := range roles {
		t := ringTable{Role: role, Members: []memberStatus{}}
		for _, m := range g.Members(role) {
			t.Members = append(t.Members, memberStatus{
				ID: m.ID, Addr: m.Addr, HTTPAddr: m.HTTPAddr, Zone: m.Zone, State: m.State.String(),
				Heartbeat: m.Heartbeat.UTC(), Age: max(0, int64(now.Sub(m.Heartbeat).Seconds())), Since: m.Since.UTC(),
				Share: m.Share * 100, Down: m.State == ring.Down, Quarantined: quarantined(role, processes[m.ID]),
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
	return s, nil
}

// quarantined is the number to show for a member of a role. Only receivers have data that can be quarantined.
func quarantined(role string, p process) int {
	if role != RoleReceive {
		return 0
	}
	return p.Broken
}

func (g *Gossip) tenantStatus(name string) (*tenantStatus, error) {
	id, err := tenant.Parse(name)
	if err != nil {
		return nil, err
	}
	placement := g.Placement()
	s := &tenantStatus{ID: id, Members: []shareStatus{}}
	if g.opts.Sharding != nil {
		s.ShardSize = ring.ShardSize(g.opts.Sharding.Size(id), g.ReplicationFactor())
	}
	if known := g.Shards(id); known.Size > 0 {
		since := known.Since.UTC()
		s.Since = &since
	}
	for _, i := range ring.MembersFor(placement, id) {
		m := placement.Members()[i]
		share := ring.Share(placement, id, func(o ring.Member) bool { return o.ID == m.ID })
		s.Members = append(s.Members, shareStatus{m.ID, m.Zone, share * 100})
	}
	return s, nil
}
