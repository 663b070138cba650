package tenant

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/secret"
)

// Users says which tenants each user may use. It never changes: a reload makes a new one.
type Users struct {
	byName  map[string]*Grant
	byToken map[[sha256.Size]byte]*Grant
}

// Grant is what one user may do. A nil Grant allows everything: users are not told apart.
type Grant struct {
	// User is the user's name, "" for somebody who is not known.
	User     string
	patterns []string // names of tenants, with * for any characters
	exact    []ID     // names of tenants, in which * is a character
	operator bool
}

// Stranger is the grant of somebody who is not known, where users are told apart: nothing.
var Stranger = &Grant{}

// Exactly is the grant of a user of the tenants ids, who is no operator.
func Exactly(user string, ids ...ID) *Grant { return &Grant{User: user, exact: ids} }

// usersFile is what a file of users says.
type usersFile struct {
	Users map[string]*struct {
		Tenants     []string   `yaml:"tenants"`
		Operator    *bool      `yaml:"operator"`
		TokenSHA256 stringList `yaml:"token_sha256"`
	} `yaml:"users"`
}

// stringList is a list of strings, or one.
type stringList []string

// UnmarshalYAML reads either.
func (l *stringList) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*l = []string{n.Value}
		return nil
	}
	return n.Decode((*[]string)(l))
}

// ParseUsers reads a file of users; name is what errors call it. The error, of kind Invalid, tells all faults and no token.
//
//	users:
//	  alice: {tenants: [acme, "team-*"]}
//	  robot: {tenants: ["*"], operator: false, token_sha256: 9f86d0...}
func ParseUsers(name string, raw []byte) (*Users, error) {
	var f usersFile
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.E(errs.Invalid, "%s: %w", name, secret.Scrub(raw, err))
	}
	u := &Users{byName: map[string]*Grant{}, byToken: map[[sha256.Size]byte]*Grant{}}
	var faults []error
	fault := func(user, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: user %q: %w", name, user, fmt.Errorf(format, args...)))
	}
	if len(f.Users) == 0 {
		faults = append(faults, fmt.Errorf("%s: there are no users", name))
	}
	for _, user := range slices.Sorted(maps.Keys(f.Users)) {
		entry := f.Users[user]
		if user == "" || strings.Contains(user, ":") {
			fault(user, "not a name that basic authentication can send")
			continue
		}
		if entry == nil || len(entry.Tenants) == 0 && (entry.Operator == nil || !*entry.Operator) {
			fault(user, "has no tenants, and is no operator")
			continue
		}
		g := &Grant{User: user, patterns: entry.Tenants, operator: slices.Contains(entry.Tenants, "*")}
		if entry.Operator != nil {
			g.operator = *entry.Operator
		}
		for _, p := range g.patterns {
			if _, err := Parse(p); err != nil { // * is a character of names too
				fault(user, "%w", err)
			}
		}
		for i, text := range entry.TokenSHA256 {
			hash, err := hex.DecodeString(text)
			if err != nil || len(hash) != sha256.Size {
				fault(user, "token_sha256 %d is not the SHA-256 of a token as 64 hexadecimal digits", i+1)
				continue
			}
			if other := u.byToken[[sha256.Size]byte(hash)]; other != nil {
				fault(user, "token_sha256 %d is that of user %q too", i+1, other.User)
			}
			u.byToken[[sha256.Size]byte(hash)] = g
		}
		u.byName[user] = g
	}
	if err := errors.Join(faults...); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return u, nil
}

// Named is what a user may use, nil for a user that is not listed.
func (u *Users) Named(name string) *Grant { return u.byName[name] }

// Bearer is what the user of a token may use, nil when it is nobody's.
func (u *Users) Bearer(token string) *Grant { return u.byToken[sha256.Sum256([]byte(token))] }

// Len is how many users and how many tokens there are.
func (u *Users) Len() (users, tokens int) { return len(u.byName), len(u.byToken) }

// Allows reports whether the user may use tenant id.
func (g *Grant) Allows(id ID) bool {
	if g == nil {
		return true
	}
	if slices.Contains(g.exact, id) {
		return true
	}
	for _, p := range g.patterns {
		if p == string(id) {
			return true
		}
		if ok, _ := path.Match(p, string(id)); ok { // names have neither / nor anything else that is special to Match
			return true
		}
	}
	return false
}

// Operator reports whether the user may do what concerns the process or all tenants.
func (g *Grant) Operator() bool { return g == nil || g.operator }

// Sees reports whether the user may know that tenant id exists.
func (g *Grant) Sees(id ID) bool { return g.Operator() || g.Allows(id) }

// Only is the one tenant that the user may use, if it is one.
func (g *Grant) Only() (ID, bool) {
	if g != nil && len(g.patterns) == 0 && len(g.exact) == 1 {
		return g.exact[0], true
	}
	if g == nil || len(g.patterns) != 1 || strings.Contains(g.patterns[0], "*") {
		return "", false
	}
	return ID(g.patterns[0]), true
}

// Check is an error of kind Forbidden when the user may not use tenant id.
func (g *Grant) Check(id ID) error {
	if g.Allows(id) {
		return nil
	}
	if g.User == "" {
		return errs.E(errs.Forbidden, "a sender who is not known may not use tenant %q", id)
	}
	return errs.E(errs.Forbidden, "user %q may not use tenant %q", g.User, id)
}

type grantKey struct{}

// WithGrant returns a context that carries what the sender of a request may use.
func WithGrant(ctx context.Context, g *Grant) context.Context {
	return context.WithValue(ctx, grantKey{}, g)
}

// GrantFrom is what WithGrant stored; nil, which allows all, where users are not told apart.
func GrantFrom(ctx context.Context) *Grant {
	g, _ := ctx.Value(grantKey{}).(*Grant)
	return g
}
