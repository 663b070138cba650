package httpx

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// AuthOptions configure an Auth.
type AuthOptions struct {
	// UsersFile says which tenants each user may use, which users are operators, and which bearer tokens each user has
	// (tenant.ParseUsers). "" = there are no users: every sender with a password may do everything.
	UsersFile string
	// WebConfigFile is the exporter-toolkit web configuration whose basic_auth_users are the users' passwords; "" = there
	// are no passwords.
	WebConfigFile string
	// CertificateFields are the fields of a client certificate that name a tenant (tenant.CertificateFields). Without a
	// UsersFile, on a port that demands client certificates, the holder of a certificate is a user of that tenant. Empty,
	// or all "" = every sender with a certificate may do everything.
	CertificateFields []string
	// Interval is the time between two readings of the files. They come into force together, when all are valid.
	Interval time.Duration
}

// Auth identifies the sender of a request by password, bearer token or certificate, and knows what that user may do. A
// nil Auth lets every sender do everything.
type Auth struct {
	log      *slog.Logger
	opts     AuthOptions
	failures *prometheus.CounterVec // by reason
	valid    prometheus.Gauge
	verifier *verifier
	state    atomic.Pointer[authState] // nil before Open

	mu    sync.Mutex // held while files are read
	fault errs.Last  // of the last read

	stop context.CancelFunc // nil until opened
	done sync.WaitGroup
}

// authState is the content of the files.
type authState struct {
	usersRaw []byte
	users    *tenant.Users // nil without a UsersFile
	web      *webConfig    // nil without a WebConfigFile
}

// passwords are the bcrypt hashes by user.
func (s *authState) passwords() map[string]string {
	if s.web == nil {
		return nil
	}
	return s.web.passwords
}

// lock is what a listener demands of all its requests, in addition to what a route demands.
type lock struct {
	password    func() bool // every request needs a password or token; nil = no
	certificate func() bool // clients need a certificate, which the TLS handshake has verified; nil = no
}

func (l lock) wantsPassword() bool    { return l.password != nil && l.password() }
func (l lock) wantsCertificate() bool { return l.certificate != nil && l.certificate() }

// NewAuth makes an Auth. No file is read before Open. reg may be nil.
func NewAuth(log *slog.Logger, reg prometheus.Registerer, opts AuthOptions) *Auth {
	f := promauto.With(reg)
	a := &Auth{log: log, opts: opts, verifier: newVerifier()}
	a.failures = f.NewCounterVec(prometheus.CounterOpts{
		Name: "hearth_http_auth_failures_total",
		Help: "Requests that were refused since their sender is unknown or may not do that, by reason.",
	}, []string{"reason"})
	a.valid = f.NewGauge(prometheus.GaugeOpts{
		Name: "hearth_http_auth_files_valid",
		Help: "1 when the files of users and passwords were valid when they were last read, else 0.",
	})
	return a
}

// Open reads the files, and then again every Interval. It fails if they are not valid.
func (a *Auth) Open(context.Context, func(error)) error {
	if err := a.Reload(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	a.done.Go(func() { a.follow(ctx) })
	return nil
}

// Close stops reading the files.
func (a *Auth) Close() error {
	if a.stop != nil {
		a.stop()
	}
	a.done.Wait()
	return nil
}

// TellsApart reports whether there is a file of users.
func (a *Auth) TellsApart() bool { return a != nil && a.opts.UsersFile != "" }

// follow reads the files every Interval. The same fault is logged once.
func (a *Auth) follow(ctx context.Context) {
	tick := time.NewTicker(a.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := a.Fault()
		err := a.Reload()
		if err != nil && (before == nil || err.Error() != before.Error()) {
			a.log.Error("files of users are not valid; the last good ones stay in force", "err", err)
		}
	}
}

// Reload reads the files now. If they are not valid, the last valid ones stay in force, and the error says what is
// wrong.
func (a *Auth) Reload() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(); err != nil {
		a.fault.Set(err)
		a.valid.Set(0)
		return err
	}
	a.fault.Set(nil)
	a.valid.Set(1)
	return nil
}

// Fault is the error of the last reading of the files; nil = they are valid.
func (a *Auth) Fault() error { return a.fault.Get() }

func (a *Auth) load() error {
	old := a.state.Load()
	if old == nil {
		old = &authState{}
	}
	next := &authState{}
	var err error
	if a.opts.UsersFile != "" {
		if next.usersRaw, err = conf.ReadFile(a.opts.UsersFile); err != nil {
			return errs.Wrap(errs.Invalid, err)
		}
		next.users = old.users
		if next.users == nil || !bytes.Equal(old.usersRaw, next.usersRaw) {
			if next.users, err = tenant.ParseUsers(a.opts.UsersFile, next.usersRaw); err != nil {
				return err
			}
		}
	}
	if a.opts.WebConfigFile != "" {
		if next.web, err = loadWebConfig(a.opts.WebConfigFile, old.web); err != nil {
			return err
		}
	}
	changed := next.users != old.users || next.web != old.web
	if changed && next.users != nil {
		passwords := next.passwords()
		known := func(user string) bool { _, ok := passwords[user]; return ok }
		if err := next.users.Unprovable(a.opts.UsersFile, "basic_auth_users of --http.config", known); err != nil {
			return err
		}
	}
	a.state.Store(next)
	if !changed {
		return nil
	}
	a.verifier.keepOnly(next.passwords())
	users, tokens := 0, 0
	if next.users != nil {
		users, tokens = next.users.Len()
	}
	a.log.Info("users in force", "file", a.opts.UsersFile, "users", users, "tokens", tokens,
		"passwords", len(next.passwords()))
	return nil
}

// webConfig is the web configuration in force, nil without one and before Open.
func (a *Auth) webConfig() *webConfig {
	if a == nil {
		return nil
	}
	if s := a.state.Load(); s != nil {
		return s.web
	}
	return nil
}

// admit identifies the sender of r, and returns an error if that sender may not use a route of this class. A nil Grant
// without an error may do everything.
func (a *Auth) admit(r *http.Request, class Class, l lock) (*tenant.Grant, error) {
	if a == nil {
		return nil, nil
	}
	state := a.state.Load()
	if state == nil {
		return nil, errs.E(errs.Unavailable, "hearth is starting")
	}
	g, err := a.sender(state, r, class, l)
	if err != nil {
		return nil, err
	}
	if class == Operator && !g.Operator() {
		if g == tenant.Stranger {
			return nil, a.refuse("not_operator", errs.Forbidden, "only operators may do this")
		}
		return nil, a.refuse("not_operator", errs.Forbidden, "user %q may not do this: it concerns all tenants", g.User)
	}
	return g, nil
}

// sender returns what the sender of r may do. It is an error if the sender must be known and is not.
func (a *Auth) sender(state *authState, r *http.Request, class Class, l lock) (*tenant.Grant, error) {
	switch {
	case state.users != nil:
		if class == Open && !l.wantsPassword() && r.Header.Get("Authorization") == "" {
			return tenant.Stranger, nil
		}
		g, known, err := a.identify(state, r)
		switch {
		case err == nil:
			return g, nil
		// A user without tenants has a right password. It opens the port, as every right password does, but shows no tenant.
		case class == Open && (known || !l.wantsPassword()):
			return tenant.Stranger, nil
		}
		return nil, err
	case l.wantsPassword():
		if _, _, err := a.identify(state, r); err != nil {
			return nil, err
		}
	}
	if l.wantsCertificate() && strings.Join(a.opts.CertificateFields, "") != "" {
		return tenant.CertificateGrant(r, a.opts.CertificateFields...), nil
	}
	return nil, nil
}

// identify finds the user that sends r. Without a file of users its Grant is nil. known together with an error says
// that the credentials were right, but that the user has no tenants.
func (a *Auth) identify(state *authState, r *http.Request) (g *tenant.Grant, known bool, err error) {
	missing := func() error {
		return a.refuse("missing", errs.Unauthenticated, "authentication is needed: a user's password or bearer token")
	}
	header := r.Header.Values("Authorization")
	if len(header) != 1 {
		return nil, false, missing()
	}
	scheme, rest, _ := strings.Cut(header[0], " ")
	if strings.EqualFold(scheme, "bearer") {
		if state.users != nil {
			if g := state.users.Bearer(strings.TrimSpace(rest)); g != nil {
				return g, true, nil
			}
		}
		return nil, false, a.refuse("token", errs.Unauthenticated, "the bearer token is not known")
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return nil, false, missing()
	}
	hash, exists := state.passwords()[user]
	right, err := a.verifier.verify(r.Context(), ClientNetwork(r.RemoteAddr), user, hash, exists, password)
	if err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return nil, false, errs.E(errs.Unavailable, "the request ended before its password was checked")
		}
		a.failures.WithLabelValues("busy").Inc()
		return nil, false, err
	}
	if !right {
		return nil, false, a.refuse("password", errs.Unauthenticated, "user or password is wrong")
	}
	if state.users == nil {
		return nil, true, nil
	}
	if g := state.users.Named(user); g != nil {
		return g, true, nil
	}
	return nil, true, a.refuse("no_tenants", errs.Forbidden, "user %q may use no tenant", user)
}

// refuse counts a refusal and makes its error.
func (a *Auth) refuse(reason string, kind errs.Kind, format string, args ...any) error {
	a.failures.WithLabelValues(reason).Inc()
	return errs.E(kind, format, args...)
}

// ClientNetwork is the network by which limits count the sender at remote (host:port): the address of IPv4, and the
// first 64 bits of IPv6, since one site has all addresses behind those. It is "" if remote is no address.
func ClientNetwork(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	p, err := addr.Prefix(64)
	if err != nil {
		return addr.String()
	}
	return p.String()
}
