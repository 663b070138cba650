package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Users says which tenants each user may use. It never changes: a reload makes a new one.
type Users struct {
	byName  map[string]*Grant
	byToken map[[sha256.Size]byte]*Grant
	lines   map[string]int // of each user in the file
}

// Grant is what one user may do. A nil Grant allows everything: users are not told apart.
type Grant struct {
	// User is the user's name, "" for somebody who is not known.
	User     string
	patterns []string // names of tenants, with * for any characters
	exact    []ID     // names of tenants, in which * is a character
	operator bool
}

// Stranger is the grant of a sender that is not known, where there is a list of users. It allows nothing.
var Stranger = &Grant{}

// Exactly is the grant of a user that may use the tenants ids and is no operator.
func Exactly(user string, ids ...ID) *Grant { return &Grant{User: user, exact: ids} }

// userEntry is what a file says of one user.
type userEntry struct {
	Tenants     []string   `yaml:"tenants"`
	Operator    *bool      `yaml:"operator"`
	TokenSHA256 stringList `yaml:"token_sha256"`
}

// stringList is a list of strings, or one.
type stringList []string

// UnmarshalYAML reads either.
func (l *stringList) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*l = []string{n.Value}
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return errors.New("a text or a list of texts is expected")
	}
	return n.Decode((*[]string)(l))
}

// ParseUsers reads a file of users; name is what errors call it. The error, of kind Invalid, tells all faults as
// name:line: user: what is wrong, and no token.
//
//	users:
//	  alice: {tenants: [acme, "team-*"]}
//	  robot: {tenants: ["*"], operator: false, token_sha256: 9f86d0...}
func ParseUsers(name string, raw []byte) (*Users, error) {
	p := userParser{
		Parser: conf.Parser{Name: name},
		users:  &Users{byName: map[string]*Grant{}, byToken: map[[sha256.Size]byte]*Grant{}, lines: map[string]int{}},
	}
	p.Mapping(p.Document(raw), "", map[string]func(*yaml.Node){
		"users": func(n *yaml.Node) { p.Pairs(n, "users: ", p.user) },
	})
	err := p.Err()
	if err == nil && len(p.users.byName) == 0 {
		err = fmt.Errorf("%s: there are no users: list them below the key users", name)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return p.users, nil
}

// userParser reads users.
type userParser struct {
	conf.Parser
	users *Users
}

// user reads one user.
func (p *userParser) user(key, n *yaml.Node) {
	name, where := key.Value, fmt.Sprintf("user %q: ", key.Value)
	if name == "" || strings.Contains(name, ":") {
		p.Fault(key, "%snot a name that basic authentication can send: it must not be empty or hold a colon", where)
		return
	}
	var entry userEntry
	if !p.Check(n, where, entry) {
		return
	}
	if err := n.Decode(&entry); err != nil {
		p.Fault(n, "%scannot be read", where)
		return
	}
	operator := entry.Operator != nil && *entry.Operator
	if len(entry.Tenants) == 0 && !operator {
		p.Fault(key, `%shas no tenants, and is no operator: give it tenants: [NAME] or operator: true`, where)
		return
	}
	g := &Grant{User: name, patterns: entry.Tenants, operator: slices.Contains(entry.Tenants, "*")}
	if entry.Operator != nil {
		g.operator = operator
	}
	for _, pattern := range g.patterns {
		if _, err := Parse(pattern); err != nil { // * is a character of names too
			p.Fault(key, "%stenants: %w", where, err)
		}
	}
	p.tokens(key, where, g, entry.TokenSHA256)
	p.users.byName[name], p.users.lines[name] = g, key.Line
}

// tokens adds the tokens of a user.
func (p *userParser) tokens(key *yaml.Node, where string, g *Grant, hashes []string) {
	for i, text := range hashes {
		hash, err := hex.DecodeString(text)
		if err != nil || len(hash) != sha256.Size {
			p.Fault(key, "%stoken_sha256 %d is not the SHA-256 of a token as 64 hexadecimal digits", where, i+1)
			continue
		}
		if other := p.users.byToken[[sha256.Size]byte(hash)]; other != nil {
			p.Fault(key, "%stoken_sha256 %d is that of user %q too", where, i+1, other.User)
		}
		p.users.byToken[[sha256.Size]byte(hash)] = g
	}
}

// Unprovable is the error, of kind Invalid, that names the users that cannot prove who they are: they have no
// token_sha256, and no password by hasPassword. file is the name of the file of users, and passwords says where
// passwords belong.
func (u *Users) Unprovable(file, passwords string, hasPassword func(user string) bool) error {
	withToken := map[string]bool{}
	for _, g := range u.byToken {
		withToken[g.User] = true
	}
	var faults []error
	for _, user := range slices.Sorted(maps.Keys(u.byName)) {
		if !withToken[user] && !hasPassword(user) {
			faults = append(faults, fmt.Errorf("%s:%d: user %q: has neither a token nor a password: add token_sha256 here, "+
				"or a password in %s",
				file, u.lines[user], user, passwords))
		}
	}
	return errs.Wrap(errs.Invalid, errors.Join(faults...))
}

// Named is the grant of a user, nil for a user that is not listed.
func (u *Users) Named(name string) *Grant { return u.byName[name] }

// Bearer is the grant of the user that has a token, nil when no user has it.
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

// Operator reports whether the user may do things that concern the process or all tenants.
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

// WithGrant returns a context that carries the grant of a request's sender.
func WithGrant(ctx context.Context, g *Grant) context.Context {
	return context.WithValue(ctx, grantKey{}, g)
}

// GrantFrom is the grant that WithGrant stored. It is nil, which allows everything, where users are not told apart.
func GrantFrom(ctx context.Context) *Grant {
	g, _ := ctx.Value(grantKey{}).(*Grant)
	return g
}
