package httpx

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// AuthOptions configure an Auth.
type AuthOptions struct {
	// UsersFile says which tenants each user may use, and which bearer tokens are whose (tenant.ParseUsers).
	UsersFile string
	// PasswordsFile is the exporter-toolkit web configuration whose basic_auth_users are the users' passwords; "" = nobody
	// has a password.
	PasswordsFile string
	// Interval is how often both are looked at; they are put in force together, when both are valid.
	Interval time.Duration
}

// Auth finds out who sends a request, by password or bearer token, and what tenants that user may use. A nil Auth lets
// everybody use everything.
type Auth struct {
	log      *slog.Logger
	opts     AuthOptions
	failures *prometheus.CounterVec // by reason
	valid    prometheus.Gauge
	state    atomic.Pointer[authState] // nil before Open

	mu    sync.Mutex // guards fault; held while files are read
	fault string     // of the last read, "" = none

	bcrypt sync.Mutex // one comparison at a time: each takes a processor for a while
	cacheM sync.Mutex // guards cache
	cache  map[[sha256.Size]byte]bool

	stop context.CancelFunc // nil until opened
	done sync.WaitGroup
}

// authState is the content of both files.
type authState struct {
	usersRaw, passwordsRaw []byte
	users                  *tenant.Users
	passwords              map[string]string // bcrypt hashes
}

const (
	// maxVerified is how many passwords are remembered to be right or wrong, by hash.
	maxVerified = 1000
	// noHash is compared with the password of a user that does not exist, so that it takes as long as with one that does.
	noHash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
)

// NewAuth makes an Auth. No file is read before Open. reg may be nil.
func NewAuth(log *slog.Logger, reg prometheus.Registerer, opts AuthOptions) *Auth {
	f := promauto.With(reg)
	a := &Auth{log: log, opts: opts, cache: map[[sha256.Size]byte]bool{}}
	a.failures = f.NewCounterVec(prometheus.CounterOpts{
		Name: "hearth_http_auth_failures_total", Help: "Requests that were refused since their sender is unknown or may not do that, by reason.",
	}, []string{"reason"})
	a.valid = f.NewGauge(prometheus.GaugeOpts{
		Name: "hearth_http_auth_files_valid", Help: "1 when the files of users and passwords were valid when they were last read, else 0.",
	})
	return a
}

// Open reads the files, and again when they change. They must be valid.
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

func (a *Auth) follow(ctx context.Context) {
	tick := time.NewTicker(a.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.mu.Lock()
		before := a.fault
		err := a.reload()
		a.mu.Unlock()
		if err != nil && err.Error() != before {
			a.log.Error("files of users are not valid; the last good ones stay in force", "err", err)
		}
	}
}

// Reload reads the files now. When they are not valid the last good ones stay in force, and the error says why.
func (a *Auth) Reload() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reload()
}

// reload is called with a.mu held.
func (a *Auth) reload() error {
	if err := a.load(); err != nil {
		a.fault = err.Error()
		a.valid.Set(0)
		return err
	}
	a.fault = ""
	a.valid.Set(1)
	return nil
}

func (a *Auth) load() error {
	next := &authState{}
	var err error
	if next.usersRaw, err = os.ReadFile(a.opts.UsersFile); err != nil {
		return errs.E(errs.Invalid, "users: %w", err)
	}
	if a.opts.PasswordsFile != "" {
		if next.passwordsRaw, err = os.ReadFile(a.opts.PasswordsFile); err != nil {
			return errs.E(errs.Invalid, "passwords: %w", err)
		}
	}
	old := a.state.Load()
	if old != nil && bytes.Equal(old.usersRaw, next.usersRaw) && bytes.Equal(old.passwordsRaw, next.passwordsRaw) {
		return nil
	}
	if next.users, err = tenant.ParseUsers(a.opts.UsersFile, next.usersRaw); err != nil {
		return err
	}
	var web struct {
		Users map[string]string `yaml:"basic_auth_users"`
	}
	if yaml.Unmarshal(next.passwordsRaw, &web) != nil { // its text might show what is secret
		return errs.E(errs.Invalid, "%s: basic_auth_users is not a list of users and passwords", a.opts.PasswordsFile)
	}
	next.passwords = web.Users
	a.state.Store(next)
	users, tokens := next.users.Len()
	a.log.Info("users in force", "file", a.opts.UsersFile, "users", users, "tokens", tokens, "passwords", len(next.passwords))
	return nil
}

// Tenants lets known users pass to next, with what they may use in the request's context (tenant.GrantFrom).
func (a *Auth) Tenants(next http.Handler) http.Handler {
	if a == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, err := a.identify(r)
		if err != nil {
			if errs.KindOf(err) == errs.Unauthenticated {
				w.Header()["Www-Authenticate"] = []string{`Basic realm="hearth"`, `Bearer realm="hearth"`}
			}
			WriteError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(tenant.WithGrant(r.Context(), g)))
	})
}

// Operators lets users pass to next that may use all tenants.
func (a *Auth) Operators(next http.Handler) http.Handler {
	if a == nil {
		return next
	}
	return a.Tenants(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g := tenant.GrantFrom(r.Context()); !g.Everything() {
			WriteError(w, r, a.refuse("not_operator", errs.Forbidden, "user %q may not do this: it concerns all tenants", g.User))
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// identify finds the user that sends r. It never gives a nil Grant without an error.
func (a *Auth) identify(r *http.Request) (*tenant.Grant, error) {
	state := a.state.Load()
	if state == nil {
		return nil, errs.E(errs.Unavailable, "hearth is starting")
	}
	header := r.Header.Values("Authorization")
	if len(header) != 1 {
		return nil, a.refuse("missing", errs.Unauthenticated, "authentication is needed: a user's password or bearer token")
	}
	scheme, rest, _ := strings.Cut(header[0], " ")
	if strings.EqualFold(scheme, "bearer") {
		if g := state.users.Bearer(strings.TrimSpace(rest)); g != nil {
			return g, nil
		}
		return nil, a.refuse("token", errs.Unauthenticated, "the bearer token is not known")
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return nil, a.refuse("missing", errs.Unauthenticated, "authentication is needed: a user's password or bearer token")
	}
	if !a.verify(state, user, password) {
		return nil, a.refuse("password", errs.Unauthenticated, "user or password is wrong")
	}
	if g := state.users.Named(user); g != nil {
		return g, nil
	}
	return nil, a.refuse("no_tenants", errs.Forbidden, "user %q may use no tenant", user)
}

func (a *Auth) refuse(reason string, kind errs.Kind, format string, args ...any) error {
	a.failures.WithLabelValues(reason).Inc()
	return errs.E(kind, format, args...)
}

// verify reports whether password is user's.
func (a *Auth) verify(state *authState, user, password string) bool {
	hash, known := state.passwords[user]
	if !known {
		hash = noHash
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", user, hash, password))
	a.cacheM.Lock()
	right, seen := a.cache[key]
	a.cacheM.Unlock()
	if seen {
		return right
	}
	a.bcrypt.Lock()
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	a.bcrypt.Unlock()
	right = known && err == nil
	if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false // nothing about the password
	}
	a.cacheM.Lock()
	defer a.cacheM.Unlock()
	for old := range a.cache {
		if len(a.cache) < maxVerified {
			break
		}
		delete(a.cache, old)
	}
	a.cache[key] = right
	return right
}
