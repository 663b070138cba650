package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Options adjust a Cache.
type Options struct {
	// MaxBytes bounds the memory of the cache; 0 keeps nothing in memory.
	MaxBytes int64
	// MaxItemBytes is the largest value to keep in memory; 0 = any that is small beside MaxBytes.
	MaxItemBytes int64
	// Index and Chunks are the shared servers for what is made of indexes and for pages of chunks; nil = none. Whoever
	// made them opens and closes them.
	Index, Chunks *Server
	// Disabled are kinds that are not kept.
	Disabled []Kind
}

// Cache is both tiers. It is safe for concurrent use.
type Cache struct {
	opts    Options
	memory  *memory
	metrics *metrics
	prefix  atomic.Pointer[string] // of keys on a server; nil until the bucket's uuid is known
	enabled [numKinds]bool
	servers [numKinds]*Server

	flightsMu sync.Mutex // guards flights
	flights   map[key]*flight
}

// New makes a cache. reg may be nil.
func New(opts Options, reg prometheus.Registerer) *Cache {
	m := newMetrics(reg, opts.MaxBytes)
	c := &Cache{opts: opts, metrics: m, memory: newMemory(opts.MaxBytes, opts.MaxItemBytes, m), flights: map[key]*flight{}}
	for k := range numKinds {
		c.enabled[k] = true
		c.servers[k] = opts.Index
	}
	c.servers[Chunks] = opts.Chunks
	for _, k := range opts.Disabled {
		c.enabled[k] = false
	}
	return c
}

// formatVersion is part of each key on a server. It changes when the form of keys or values does, PageSize included
// (docs/format/cache-keys.md).
const formatVersion = "hearth1"

// uuid is the form of the uuids that Hearth gives buckets. Others would bring bytes of somebody else into keys.
var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// SetBucket says which bucket the blocks are in. Until then, and for an id that is no uuid, only memory is used: two
// buckets on one server would mix. It reports whether a shared server may be used.
func (c *Cache) SetBucket(id string) bool {
	if !uuid.MatchString(id) {
		c.prefix.Store(nil)
		return false
	}
	prefix := formatVersion + ":" + id + ":"
	c.prefix.Store(&prefix)
	return true
}

// The kinds of keys, as keys on a server name them.
const (
	pageKey     = 'p' // a page of a file: the number of the file (0 = index), that of the page
	expandedKey = 'e' // expanded postings: a hash of the matchers
)

// onServer is k in the form that servers know.
func (k key) onServer(prefix string) string {
	b := make([]byte, 0, 128)
	b = append(b, prefix...)
	b = append(b, k.block.String()...)
	b = append(b, ':', k.what, ':')
	b = strconv.AppendUint(b, k.a, 36)
	b = append(b, ':')
	return string(strconv.AppendUint(b, k.b, 36))
}

// digest is a key of kind what for a text that may be long, and that others may choose: two texts with one digest
// cannot be found.
func digest(block ulid.ULID, what byte, text []byte) key {
	sum := sha256.Sum256(text)
	return key{block, what, binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])}
}

// server returns the shared server for values of kind k, and the beginning of its keys; nil when there is none.
func (c *Cache) server(k Kind) (*Server, string) {
	s, prefix := c.servers[k], c.prefix.Load()
	if s == nil || prefix == nil {
		return nil, ""
	}
	return s, *prefix
}

// A value on a server is its length (4 bytes), its content, and a checksum of its key and content (8 bytes).
const (
	sealLead = 4
	sealSize = sealLead + 8
)

// seal is content as a server keeps it under k.
func seal(k string, content []byte) []byte {
	b := make([]byte, 0, len(content)+sealSize)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	b = append(b, content...)
	return binary.BigEndian.AppendUint64(b, checksum(k, content))
}

// unseal is the content of what a server had under k, nil if it had nothing. A value that seal did not make for k is
// nothing, too. It counts the lookup.
func (c *Cache) unseal(k string, value []byte) []byte {
	content := unseal(k, value)
	c.metrics.sharedLookups.Inc()
	switch {
	case content != nil:
		c.metrics.sharedHits.Inc()
	case value != nil:
		c.metrics.sharedUnusable.Inc()
	}
	return content
}

// unseal is the content of what a server had under k, nil if the server's value is not one that seal made for k.
func unseal(k string, b []byte) []byte {
	if len(b) < sealSize || uint64(binary.BigEndian.Uint32(b)) != uint64(len(b)-sealSize) {
		return nil
	}
	content := b[sealLead : len(b)-8 : len(b)-8]
	if binary.BigEndian.Uint64(b[len(b)-8:]) != checksum(k, content) {
		return nil
	}
	return content
}

func checksum(k string, content []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(k) // it never fails
	_, _ = d.Write(content)
	return d.Sum64()
}
