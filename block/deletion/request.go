package deletion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	version = 1
	// KindTenant is the kind of a request for all data of a tenant.
	KindTenant = "tenant"
	// KindSeries is the kind of a request for samples of some series of a tenant.
	KindSeries = "series"
	// DefaultDelay is how long a deletion waits unless somebody says otherwise.
	DefaultDelay = 24 * time.Hour
	// MaxSkew is how far a clock may be from that of the bucket where the time decides that something is deleted.
	MaxSkew = 5 * time.Minute
	// maxObject bounds one object, in bytes: about 250,000 confirmed blocks.
	maxObject = 16 << 20
	// maxText bounds a text that people wrote, in bytes.
	maxText = 1000
	// maxDelay is the longest time between a request and its effect.
	maxDelay = 366 * 24 * time.Hour
	// latest is the latest time that an object may name, in Unix ms: the year 9999.
	latest = 253402300799000
)

// Request asks for the deletion of a tenant, or of samples of one. Times are in Unix ms.
type Request struct {
	Version int       `json:"version"`
	ID      ulid.ULID `json:"id"`
	Kind    string    `json:"kind"`
	Tenant  tenant.ID `json:"tenant"`
	// Asked is when it was made: from then on the tenant takes no writes, or reads do not find the samples. An undo counts
	// that was made up to UndoUntil. At Due the data goes.
	Asked     int64 `json:"asked"`
	UndoUntil int64 `json:"undo_until"`
	Due       int64 `json:"due"`
	// By and Tool say who asked, and Reason why.
	By     string `json:"by"`
	Tool   string `json:"tool"`
	Reason string `json:"reason,omitempty"`
	// Confirmed are the blocks that somebody has looked at. With it no others are deleted, except those that receivers
	// made after the request. The default tenant's requests must have it.
	Confirmed *Confirmed `json:"confirmed,omitempty"`
	// Series says which samples, in a request of KindSeries.
	Series *Series `json:"series,omitempty"`
}

// Confirmed are blocks, and the blocks that those were made of.
type Confirmed struct {
	Blocks  []ulid.ULID `json:"blocks"`
	Sources []ulid.ULID `json:"sources"`
}

// Change is an undo, or what lets a deleted tenant be made anew.
type Change struct {
	Version int       `json:"version"`
	ID      ulid.ULID `json:"id"` // of the request
	At      int64     `json:"at"` // Unix ms
	By      string    `json:"by"`
	Tool    string    `json:"tool"`
	Reason  string    `json:"reason,omitempty"`
}

// New is a request that takes effect delay after at. Until a quarter of the delay before that, or 10 minutes if that is
// less, it can be undone: the rest is for clocks that differ, and for an undo that is on its way.
func New(id tenant.ID, at time.Time, delay time.Duration) Request {
	return newRequest(KindTenant, id, at, delay)
}

func newRequest(kind string, id tenant.ID, at time.Time, delay time.Duration) Request {
	due := at.Add(delay)
	return Request{Version: version, ID: ulid.MustNew(ulid.Timestamp(at), ulid.DefaultEntropy()), Kind: kind,
		Tenant: id, Asked: at.UnixMilli(), UndoUntil: due.Add(-min(delay/4, 10*time.Minute)).UnixMilli(),
		Due: due.UnixMilli()}
}

// NewChange is an undo of a request, or its end, made at the time at.
func NewChange(request ulid.ULID, at time.Time) Change {
	return Change{Version: version, ID: request, At: at.UnixMilli()}
}

// Validate is the error of a request that cannot be followed, of kind Invalid, TooLarge or Unsupported.
func (r *Request) Validate() error {
	name, err := tenant.Parse(string(r.Tenant))
	switch {
	case r.Version != version:
		return errs.E(errs.Unsupported, "version %d, want %d", r.Version, version)
	case r.Kind != KindTenant && r.Kind != KindSeries:
		return errs.E(errs.Unsupported, "kind %q is not known", clip(r.Kind))
	case err != nil || name != r.Tenant:
		return errs.E(errs.Invalid, "tenant %q: %w", clip(string(r.Tenant)), err)
	case r.Asked <= 0 || r.UndoUntil < r.Asked || r.Due < r.UndoUntil || r.Due > latest ||
		r.Due-r.Asked > maxDelay.Milliseconds():
		return errs.E(errs.Invalid, "asked %d, undo until %d, due %d: they must follow each other within %s", r.Asked,
			r.UndoUntil, r.Due, maxDelay)
	case r.Kind == KindSeries && (r.Series == nil || r.Confirmed != nil), r.Kind == KindTenant && r.Series != nil:
		return errs.E(errs.Invalid, "a request of kind %s has not the fields of one", r.Kind)
	case r.Kind == KindTenant && r.Tenant == tenant.Default && r.Confirmed == nil:
		return errs.E(errs.Invalid, "the blocks of the tenant %q are not confirmed", r.Tenant)
	}
	if r.Series != nil {
		if err := r.Series.validate(r.Asked); err != nil {
			return err
		}
	}
	if c := r.Confirmed; c != nil && (!ascending(c.Blocks) || !ascending(c.Sources)) {
		return errs.E(errs.Invalid, "the confirmed blocks are not in order")
	}
	return texts(r.By, r.Tool, r.Reason)
}

// Validate is the error of a change that cannot be followed, of kind Invalid.
func (c *Change) Validate() error {
	switch {
	case c.Version != version:
		return errs.E(errs.Unsupported, "version %d, want %d", c.Version, version)
	case c.At <= 0 || c.At > latest:
		return errs.E(errs.Invalid, "at %d", c.At)
	}
	return texts(c.By, c.Tool, c.Reason)
}

func ascending(ids []ulid.ULID) bool {
	return slices.IsSortedFunc(ids, ulid.ULID.Compare) && len(slices.Compact(slices.Clone(ids))) == len(ids)
}

func texts(all ...string) error {
	for _, text := range all {
		if len(text) > maxText {
			return errs.E(errs.Invalid, "a text of %d bytes: at most %d are allowed", len(text), maxText)
		}
	}
	return nil
}

// clip is a text that is short enough for an error.
func clip(s string) string { return s[:min(len(s), 100)] }

// parseRequest decodes the request of that id. Errors are of kind Invalid, TooLarge or Unsupported.
func parseRequest(b []byte, id ulid.ULID) (Request, error) {
	var r Request
	if err := decode(b, &r); err != nil {
		return Request{}, err
	}
	if r.ID != id {
		return Request{}, errs.E(errs.Invalid, "it is the request %s", r.ID)
	}
	return r, r.Validate()
}

// parseChange decodes a change of the request of that id. Errors are of kind Invalid or Unsupported.
func parseChange(b []byte, id ulid.ULID) (Change, error) {
	var c Change
	if err := decode(b, &c); err != nil {
		return Change{}, err
	}
	if c.ID != id {
		return Change{}, errs.E(errs.Invalid, "it is of the request %s", c.ID)
	}
	return c, c.Validate()
}

// decode reads one JSON object strictly: a field that is not known may be what limits a deletion, and of a field that
// is there twice nobody knows which one was meant. Errors are of kind Invalid.
func decode(b []byte, v any) error {
	if len(b) > maxObject {
		return errs.E(errs.Invalid, "it is larger than %d bytes", maxObject)
	}
	if err := plainKeys(b); err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	return nil
}

// maxDepth bounds how deep an object may be nested.
const maxDepth = 4

// plainKeys is the error of b unless it is one JSON object, in which no key is there twice or has other characters than
// a to z and underscores. (The decoder takes keys that differ in case for one, and the last of several.)
func plainKeys(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	var open []map[string]bool // of each level; nil = an array
	key := false               // the next token is a key or the end of an object
	for first := true; ; first = false {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && len(open) == 0 && !first {
			return nil
		}
		if err != nil {
			return err
		}
		delim, isDelim := token.(json.Delim)
		switch {
		case len(open) == 0 && (!first || !isDelim || delim != '{'):
			return errors.New("it is not one JSON object")
		case isDelim && (delim == '{' || delim == '['):
			if len(open) == maxDepth {
				return errors.New("it is nested too deep")
			}
			var keys map[string]bool
			if delim == '{' {
				keys = map[string]bool{}
			}
			open = append(open, keys)
		case isDelim:
			open = open[:len(open)-1]
		case key:
			name := token.(string)
			keys := open[len(open)-1]
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" || keys[name] {
				return fmt.Errorf("the field %q is not known, or is there twice", clip(name))
			}
			keys[name] = true
			key = false
			continue
		}
		key = len(open) > 0 && open[len(open)-1] != nil
	}
}
