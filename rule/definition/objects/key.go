package objects

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Directories of the bucket.
const (
	ownDir   = "hearth/rules/"
	mimirDir = "rules/"
)

// MaxNameBytes bounds the names of namespaces and groups, in bytes. A part of an object's name may have 255 bytes where
// objects are files.
const MaxNameBytes = 180

// id names a group.
type id struct {
	tenant          tenant.ID
	namespace, name string
}

// checkNames reports a name that no group in a bucket can have, as an error of kind Invalid.
func checkNames(namespace, name string) error {
	for what, s := range map[string]string{"namespace": namespace, "group": name} {
		switch {
		case s == "":
			return errs.E(errs.Invalid, "the name of the %s is empty", what)
		case len(s) > MaxNameBytes:
			return errs.E(errs.Invalid, "the name of the %s has %d bytes, and may have %d", what, len(s), MaxNameBytes)
		case !utf8.ValidString(s):
			return errs.E(errs.Invalid, "the name of the %s, %q, is not text in UTF-8", what, s)
		}
	}
	return nil
}

// object is an object that holds a group.
type object struct {
	id
	key     string
	version ulid.ULID // zero = Mimir's
	updated time.Time // when it changed last; zero = not known
}

// mimir reports whether the object is as Mimir and Cortex write it.
func (o *object) mimir() bool { return o.version == ulid.ULID{} }

// ownPrefix begins the names of all versions of a group. An empty name stands for all groups of the namespace, and an
// empty namespace for all of the tenant.
func (g id) ownPrefix() string {
	return ownDir + g.below(base64.RawURLEncoding)
}

// mimirPrefix is ownPrefix for Mimir's objects, without a name: a group is one object there.
func (g id) mimirPrefix() string {
	g.name = ""
	return mimirDir + g.below(base64.URLEncoding)
}

func (g id) below(enc *base64.Encoding) string {
	path := string(g.tenant) + "/"
	for _, s := range []string{g.namespace, g.name} {
		if s == "" {
			break
		}
		path += enc.EncodeToString([]byte(s)) + "/"
	}
	return path
}

const extension = ".yaml"

// newObject is a new version of a group.
func newObject(g id, version ulid.ULID) object {
	return object{id: g, key: g.ownPrefix() + version.String() + extension, version: version}
}

// parseKey reads the name of an object. It is false for other objects.
func parseKey(key string) (o object, ok bool) {
	o.key = key
	enc := base64.URLEncoding
	rest, mimir := strings.CutPrefix(key, mimirDir)
	parts := strings.Split(rest, "/")
	if !mimir {
		if rest, ok = strings.CutPrefix(key, ownDir); !ok {
			return o, false
		}
		enc = base64.RawURLEncoding
		parts = strings.Split(rest, "/")
		name, isText := strings.CutSuffix(parts[len(parts)-1], extension)
		version, err := ulid.ParseStrict(name)
		if len(parts) != 4 || !isText || err != nil || version == (ulid.ULID{}) {
			return o, false
		}
		o.version, parts = version, parts[:3]
	}
	if len(parts) != 3 {
		return o, false
	}
	var err error
	if o.tenant, err = tenant.Parse(parts[0]); err != nil {
		return o, false
	}
	for i, to := range []*string{&o.namespace, &o.name} {
		text, err := enc.DecodeString(parts[i+1])
		if err != nil || len(text) == 0 {
			return o, false
		}
		*to = string(text)
	}
	return o, true
}

// newest chooses the object that counts for each group: the newest version, or else Mimir's.
func newest(all []object) map[id]object {
	best := map[id]object{}
	for _, o := range all {
		if have, known := best[o.id]; !known || o.version.Compare(have.version) > 0 {
			best[o.id] = o
		}
	}
	return best
}

// next is a version that is newer than those of all, and at least as new as now.
func next(all []object, now time.Time) (ulid.ULID, error) {
	ms := ulid.Timestamp(now)
	for _, o := range all {
		if !o.mimir() {
			ms = max(ms, o.version.Time()+1)
		}
	}
	version, err := ulid.New(ms, ulid.DefaultEntropy())
	return version, errs.Wrap(errs.Internal, err)
}

// inOrder sorts objects so that what counts comes last.
func inOrder(all []object) {
	slices.SortFunc(all, func(a, b object) int { return a.version.Compare(b.version) })
}
