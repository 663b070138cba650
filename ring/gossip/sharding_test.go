package gossip

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// sizes gives all tenants but "big" one size, which may change.
type sizes struct{ n atomic.Int64 }

func (s *sizes) Size(id tenant.ID) int {
	if id == "big" {
		return 0
	}
	return int(s.n.Load())
}

func (s *sizes) Version() string {
	if n := s.n.Load(); n > 0 {
		return fmt.Sprint("v", n)
	}
	return ""
}

func TestShardedSince(t *testing.T) {
	at := func(minutes int) time.Time { return time.Unix(int64(60*minutes), 0) }
	c := newCluster()
	f := func(version string, now, want int) {
		t.Helper()
		since, ok := c.shardedSince(version, at(now))
		if ok != (want >= 0) || ok && !since.Equal(at(want)) {
			t.Errorf("%s at %d min: since %s, %t, want %d min", version, now, since, ok, want)
		}
	}
	say := func(version string, minutes ...int) {
		for _, m := range minutes {
			recordUsage(c.Shardings, version, at(m), time.Hour)
		}
	}
	f("a", 100, -1)
	say("a", 100, 105, 110)
	f("a", 110, 100)
	f("a", 125, 100)
	f("a", 131, -1) // nobody says it any more
	say("a", 130)
	say("b", 130) // one process has other sizes
	f("a", 131, 150)
	f("b", 131, 150)
	say("b", 140, 150)
	f("b", 151, 150)
	say("a", 140) // and is late
	f("b", 151, 160)
	if recordUsage(c.Shardings, "b", at(155), time.Hour) || !recordUsage(c.Shardings, "b", at(161), time.Hour) {
		t.Error("a version must be said again after ten minutes, not before")
	}
	if _, removed := c.RemoveTombstones(at(140 + 60 + 20 + 1)); removed != 1 || c.Shardings["b"].First != at(130).Unix() {
		t.Errorf("%d removed, %+v", removed, c.Shardings)
	}
}

func TestShuffledCluster(t *testing.T) {
	t.Parallel()
	c, mine := new(clock), new(sizes)
	mine.n.Store(2)
	gs := trio(t, c, func(i int, o *Options) { o.Sharding, o.ReplicationFactor = mine, 1 })
	watcher := receiverOptions(c, instance(9), 0, gs[0].Address())
	watcher.Roles, watcher.ReplicationFactor, watcher.Sharding = nil, 0, mine
	q := open(t, watcher)
	ids := func(g *Gossip, id tenant.ID) string {
		var out []string
		for _, i := range ring.MembersFor(g.Placement(), id) {
			out = append(out, g.Placement().Members()[i].ID)
		}
		return strings.Join(out, " ")
	}
	eventually(t, func() string {
		for _, g := range append(gs, q) {
			if small, big := ids(g, "small"), ids(g, "big"); len(strings.Fields(small)) != 2 || small != ids(gs[0], "small") ||
				big != "r1 r2 r3" {
				return fmt.Sprintf("small is on %s, big on %s", small, big)
			}
		}
		return ""
	})
	eventually(t, func() string {
		if s := q.Shards("small"); s.Size != 2 || s.Since.After(c.now()) || s.Since.Before(c.now().Add(-time.Minute)) {
			return fmt.Sprintf("shards: %+v", s)
		}
		return ""
	})
	if s := q.Shards("big"); s.Size != 0 {
		t.Errorf("big: %+v", s)
	}
	mine.n.Store(3) // from now on nothing is sure for a while
	if s := q.Shards("small"); s.Size != 0 {
		t.Errorf("of a version that nobody says: %+v", s)
	}
	eventually(t, func() string {
		if s := q.Shards("small"); s.Size != 3 || !s.Since.After(c.now()) {
			return fmt.Sprintf("shards: %+v", s)
		}
		return ""
	})
	if h := q.History(); len(h) != 3 || h[0].Placed.IsZero() || !h[0].ReadOnly.IsZero() {
		t.Errorf("history %+v", h)
	}
	if err := gs[1].SetReadOnly(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		for _, i := range q.History() {
			if i.ReadOnly.IsZero() == (i.ID == "r2") {
				return fmt.Sprintf("%s is read-only since %s", i.ID, i.ReadOnly)
			}
		}
		return ""
	})
}

func TestTenantPageAndForget(t *testing.T) {
	t.Parallel()
	c, mine := new(clock), new(sizes)
	mine.n.Store(2)
	var broken atomic.Bool
	gs := trio(t, c, func(i int, o *Options) {
		o.Sharding, o.ReplicationFactor = mine, 2
		o.RefuseForget = o.Instance.ID == "r1"
		o.Quarantined = func() []Quarantine {
			if broken.Load() {
				return []Quarantine{{"acme", "its log is damaged"}, {"blue", "and so is this"}}
			}
			return nil
		}
	})
	broken.Store(true)
	status := func(g *Gossip, query string) (s ringStatus, code int) {
		w := httptest.NewRecorder()
		g.HandleRing(w, httptest.NewRequest("GET", "/ring?format=json"+query, nil))
		_ = json.Unmarshal(w.Body.Bytes(), &s)
		return s, w.Code
	}
	if s, _ := status(gs[0], ""); s.Tenant != nil {
		t.Errorf("nobody asked for %+v", s.Tenant)
	}
	s, _ := status(gs[0], "&tenant=acme")
	if s.Tenant == nil || s.Tenant.ID != "acme" || s.Tenant.ShardSize != 2 || len(s.Tenant.Members) != 2 ||
		s.Tenant.Members[0].Share != 100 ||
		s.Tenant.Members[0].Zone == "" {
		t.Errorf("tenant: %+v", s.Tenant)
	}
	if s, _ := status(gs[0], "&tenant=big"); s.Tenant == nil || s.Tenant.ShardSize != 0 || len(s.Tenant.Members) != 3 {
		t.Errorf("tenant: %+v", s.Tenant)
	}
	if _, code := status(gs[0], "&tenant=../x"); code != 400 {
		t.Errorf("a tenant that is none: %d", code)
	}
	eventually(t, func() string {
		s, _ := status(gs[2], "")
		if m := s.Rings[0].Members[1]; len(s.Quarantined) != 2 || s.Quarantined[0].Tenant != "acme" || m.ID != "r2" ||
			m.Quarantined != 2 {
			return fmt.Sprintf("quarantined: %+v, of r2 %d", s.Quarantined, m.Quarantined)
		}
		return ""
	})
	w := httptest.NewRecorder()
	gs[0].HandleRing(w, httptest.NewRequest("GET", "/ring?tenant=acme", nil))
	for _, want := range []string{"Shard of 2 receivers", "its log is damaged", "Tenant acme"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, w.Body)
		}
	}

	forget := func(g *Gossip, method, query string) int {
		w := httptest.NewRecorder()
		g.HandleForget(w, httptest.NewRequest(method, "/ring/forget"+query, nil))
		return w.Code
	}
	kill(t, gs[1])
	c.advance(3 * time.Second)
	wantStates(t, RoleReceive, "r1=active r2=down r3=active", gs[0], gs[2])
	for _, try := range []struct {
		g             *Gossip
		method, query string
		want          int
	}{
		{gs[0], "POST", "?instance=r2", http.StatusForbidden},
		{gs[2], "GET", "?instance=r2", http.StatusMethodNotAllowed},
		{gs[2], "POST", "", http.StatusBadRequest},
		{gs[2], "POST", "?instance=r1", http.StatusConflict},
		{gs[2], "POST", "?instance=r9", http.StatusNotFound},
		{gs[2], "POST", "?instance=r2", http.StatusNoContent},
	} {
		if got := forget(try.g, try.method, try.query); got != try.want {
			t.Errorf("%s %s: %d, want %d", try.method, try.query, got, try.want)
		}
	}
	wantStates(t, RoleReceive, "r1=active r3=active", gs[0], gs[2])
}

// pki writes a CA and a certificate of it for 127.0.0.1 into a directory.
func pki(t *testing.T) TLSOptions {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	template := func(n int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: fmt.Sprint("test ", n)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := template(1)
	ca.IsCA, ca.BasicConstraintsValid = true, true
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := template(2)
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(err)
	return TLSOptions{Enabled: true, CertFile: write("cert.pem", "CERTIFICATE", der),
		KeyFile: write("key.pem", "EC PRIVATE KEY", keyDER), CAFile: write("ca.pem", "CERTIFICATE", caDER)}
}

func TestGossipTLS(t *testing.T) {
	t.Parallel()
	c, files := new(clock), pki(t)
	gs := trio(t, c, func(_ int, o *Options) { o.TLS = files })
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", gs...)

	conn, err := net.DialTimeout("tcp", gs[0].Address(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(bytes.Repeat([]byte{7}, 64)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 16)
	if n, _ := conn.Read(answer); n > 0 && answer[0] != 21 { // 21 is a TLS alert
		t.Errorf("plain text is answered: %v", answer[:n])
	}
	stranger := receiverOptions(c, instance(4), 4, gs[0].Address())
	stranger.TLS = pki(t) // of another authority
	if x := open(t, stranger); len(x.Members(RoleReceive)) != 1 {
		t.Errorf("a member of another authority met %s", states(x, RoleReceive))
	}
	if got := states(gs[0], RoleReceive); strings.Contains(got, "r4") {
		t.Errorf("a member of another authority was met: %s", got)
	}
}

// said is a log that is read while it is written.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// TestGossipTLSFaults: both sides say what to do when one of them has no TLS, or another authority.
func TestGossipTLSFaults(t *testing.T) {
	t.Parallel()
	files, other := pki(t), pki(t)
	f := func(what string, there, here TLSOptions, joiner, member string) {
		t.Helper()
		c, log := new(clock), new(said)
		o := receiverOptions(c, instance(1), 1)
		o.TLS = there
		g, err := New(slog.New(slog.NewTextHandler(log, nil)), nil, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = g.Close() }()
		o = receiverOptions(c, instance(2), 2, g.Address())
		o.TLS = here
		x := open(t, o)
		faults := x.join(t.Context()).faults
		if len(faults) != 1 || !strings.Contains(faults[0], joiner) {
			t.Errorf("%s: the joiner says %q, want %q", what, faults, joiner)
		}
		eventually(t, func() string {
			if text := log.String(); strings.Contains(text, member) {
				return ""
			} else {
				return what + ": the member logs " + text + ", want " + member
			}
		})
	}
	f("TLS at the joiner only", TLSOptions{}, files, "--gossip.tls-enabled", "is set there and not here")
	f("TLS at the member only", files, TLSOptions{}, "--gossip.tls-enabled", "is set here and not there")
	f("two authorities", files, other, "--gossip.tls-ca", "--gossip.tls-ca")
}

// TestJoinFaults: a member to join that cannot be meant is refused at the start, with an example.
func TestJoinFaults(t *testing.T) {
	f := func(j, want string) {
		t.Helper()
		err := ValidJoin(j)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", j, err, want)
		}
	}
	f("10.0.0.1:7946", "")
	f("hearth-0", "") // the usual port
	f("[::1]:7946", "")
	f("::1", "")
	f("dns+hearth:7946", "")
	f("dnssrv+_gossip._tcp.hearth", "")
	f("dns+hearth", "such as dns+hearth:7946")
	f("dns+:7946", "such as dns+hearth-0:7946")
	f("dnssrv+hearth:7946", "want dnssrv+name")
	f("srv+hearth", "want host:port, dns+name:port or dnssrv+name")
	f("hearth:http", "such as hearth:7946")
	f("hearth:99999", "such as hearth:7946")
	f("", "want host:port")
	f(":7946", "want host:port")
}

func TestGossipTLSOptions(t *testing.T) {
	f := func(o TLSOptions, ok bool) {
		t.Helper()
		if err := o.validate(); (err == nil) != ok {
			t.Errorf("%+v: %v", o, err)
		}
	}
	f(TLSOptions{}, true)
	f(TLSOptions{Enabled: true, CertFile: "c", KeyFile: "k"}, true)
	f(TLSOptions{Enabled: true, CertFile: "c"}, false)
	f(TLSOptions{Enabled: true}, false)
	f(TLSOptions{CAFile: "c"}, false)
	o := receiverOptions(new(clock), instance(1), 1)
	o.TLS = TLSOptions{Enabled: true, CertFile: "absent.pem", KeyFile: "absent.pem"}
	if _, err := tryOpen(t, o); err == nil || !strings.Contains(err.Error(), "absent.pem") {
		t.Errorf("absent files: %v", err)
	}
}

// TestAnotherReplicationFactorBefore: as long as samples may be asked for that were acknowledged by another replication
// factor, answers are judged by the strictest.
func TestAnotherReplicationFactorBefore(t *testing.T) {
	t.Parallel()
	c, dir := new(clock), t.TempDir()
	in, err := LoadInstance(dir, "r1")
	if err != nil {
		t.Fatal(err)
	}
	o := receiverOptions(c, in, 1)
	o.ReplicationFactor = 1
	o.HistoryRetention = time.Hour
	a := open(t, o)
	eventually(t, func() string {
		kept, _ := os.ReadFile(filepath.Join(dir, HistoryFile))
		if !strings.Contains(string(kept), `"factors":{"1":`) {
			return fmt.Sprintf("kept %s", kept)
		}
		return ""
	})
	if got := a.JudgedFactor(); got != 1 {
		t.Fatalf("judged by %d", got)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if o.Instance, err = LoadInstance(dir, ""); err != nil {
		t.Fatal(err)
	}
	o.ReplicationFactor = 3
	b := open(t, o)
	watcher := open(t, func() Options {
		o := receiverOptions(c, instance(9), 9, b.Address())
		o.Roles, o.ReplicationFactor, o.HistoryRetention = nil, 0, time.Hour
		return o
	}())
	for _, g := range []*Gossip{b, watcher} {
		eventually(t, func() string {
			if rf, judged := g.ReplicationFactor(), g.JudgedFactor(); rf != 3 || judged != 1 {
				return fmt.Sprintf("%s: replication factor %d, judged by %d", g.opts.Instance.ID, rf, judged)
			}
			return ""
		})
	}
	c.advance(time.Hour + usageHolds + time.Minute)
	for _, g := range []*Gossip{b, watcher} {
		if judged := g.JudgedFactor(); judged != 3 {
			t.Fatalf("%s: after the retention period judged by %d", g.opts.Instance.ID, judged)
		}
	}
}
