package gossip

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang/snappy"
	dring "github.com/grafana/dskit/ring"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring/election"
)

// These bounds limit what one member can make all others hold in memory. They are checked when a value arrives. An
// entry over a bound is left out and counted; a whole value is refused only if it cannot be read. The bounds on the
// number of entries are far above what any cluster needs. Beyond them members would hold different entries.
const (
	maxText         = 300      // bytes of an address or a bucket
	maxZone         = 150      // bytes of a zone
	maxTokens       = 512      // of one member
	maxRoles        = 16       // of one process
	maxMembers      = 2000     // of one ring, tombstones included
	maxProcesses    = 10_000   // tombstones included
	maxIncarnations = 20_000   // in the history
	maxShardings    = 10_000   // versions of shard sizes
	maxPairs        = 50_000   // HA pairs of one tenant
	maxRing         = 32 << 20 // bytes of a decoded ring
	// maxAhead is how far a time that orders entries may be in the future. A wrong clock is off by years at most. If a
	// larger time were taken, no newer one could replace it.
	maxAhead = 100 * 365 * 24 * time.Hour
)

// decodeSnappy decodes b to at most limit bytes. The length that b claims must be possible for its own length, so
// that memory is taken for what came and not for what is claimed.
func decodeSnappy(what string, b []byte, limit int) ([]byte, error) {
	const ratio = 64 // snappy makes at most 64 bytes of every 3
	n, err := snappy.DecodedLen(b)
	switch {
	case err != nil:
		return nil, errs.E(errs.Invalid, "%s: %w", what, err)
	case n > limit:
		return nil, errs.E(errs.TooLarge, "%s of %d bytes: at most %d", what, n, limit)
	case n > ratio*len(b):
		return nil, errs.E(errs.Invalid, "%s claims %d bytes in %d", what, n, len(b))
	}
	out, err := snappy.Decode(nil, b)
	if err != nil {
		return nil, errs.E(errs.Invalid, "%s: %w", what, err)
	}
	return out, nil
}

// validText reports whether s is plain text of at most most bytes.
func validText(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// validAddr reports whether s is a host:port, or empty.
func validAddr(s string) bool {
	if s == "" {
		return true
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || !validText(s, maxText) || strings.ContainsAny(host, " /\\\"'<>?#@&") {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// validTime reports whether t is a time that a clock can show. t and now are Unix seconds; t = 0 means no time and is
// valid.
func validTime(t, now int64) bool { return t >= 0 && t <= now+int64(maxAhead/time.Second) }

// validVersion is validTime for milliseconds.
func validVersion(t, now int64) bool { return t >= 0 && validTime(t/1000, now) }

// validEntry reports whether e, whose key is id, is an entry that a member may write. now is Unix seconds.
func validEntry(id string, e *dring.InstanceDesc, now int64) bool {
	_, state := dring.InstanceState_name[int32(e.State)]
	return validID.MatchString(id) && validAddr(e.Addr) && validText(e.Zone, maxZone) && state &&
		len(e.Tokens) <= maxTokens && e.Timestamp > 0 && validTime(e.Timestamp, now) &&
		validTime(e.RegisteredTimestamp, now) && validTime(e.ReadOnlyUpdatedTimestamp, now)
}

func (p *process) valid(now int64) bool {
	if len(p.Roles) > maxRoles || slices.ContainsFunc(p.Roles, func(r string) bool { return !validText(r, maxZone) }) {
		return false
	}
	return validID.MatchString(p.ID) && validAddr(p.Addr) && validAddr(p.HTTPAddr) && validText(p.Zone, maxZone) &&
		validText(p.Bucket, maxText) && validText(p.Contents, maxText) && p.RF >= 0 && p.RF <= maxRF && p.Broken >= 0 &&
		validTime(p.Since, now) && validTime(p.ReadOnly, now) && validVersion(p.Updated, now)
}

func (i *incarnation) valid(now int64) bool {
	for _, t := range []int64{i.Since, i.Until, i.Placed, i.ReadOnly, i.Expires} {
		if !validTime(t, now) {
			return false
		}
	}
	return validID.MatchString(i.ID) && validAddr(i.Addr) && validText(i.Zone, maxZone) && validVersion(i.Updated, now)
}

func (a usage) valid(now int64) bool {
	return validTime(a.First, now) && validTime(a.Last, now) && validTime(a.Expires, now)
}

func validElection(cluster string, s election.State, now int64) bool {
	return len(cluster) <= election.MaxName && len(s.Replica) <= election.MaxName &&
		validVersion(s.Elected, now) && validVersion(s.Received, now) &&
		validVersion(s.Deleted, now) && validVersion(s.Sample, now)
}

// take copies the valid entries of from into to, until to has most entries, and returns the number of entries that it
// left out.
func take[V any](to, from map[string]V, most int, valid func(string, V) bool) (refused int) {
	for key, v := range from {
		if !valid(key, v) || len(to) >= most {
			refused++
			continue
		}
		to[key] = v
	}
	return refused
}

// full reports whether key is new and m already has most entries.
func full[V any](m map[string]V, key string, most int) bool {
	_, known := m[key]
	return !known && len(m) >= most
}
