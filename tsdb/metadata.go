package tsdb

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

const (
	metadataName = "metadata.json"

	// Texts are cut to these lengths in bytes; a longer family name is refused.
	maxFamily, maxHelp, maxUnit = 512, 1024, 64
)

// metadataStore is what senders said of a tenant's metric families: the newest statement wins. It is kept in memory
// while the tenant is open, and in a file that is replaced as a whole.
type metadataStore struct {
	path string
	max  int

	mu       sync.Mutex // guards what follows
	families map[string]familyMetadata
	loaded   bool
	dirty    bool
	saving   sync.Mutex // one writer of the file; taken before mu
}

type familyMetadata struct {
	Type string `json:"type,omitempty"`
	Help string `json:"help,omitempty"`
	Unit string `json:"unit,omitempty"`
}

type metadataFile struct {
	Version  int                       `json:"version"`
	Families map[string]familyMetadata `json:"families"`
}

func newMetadataStore(dir string, limit int) *metadataStore {
	return &metadataStore{path: filepath.Join(dir, metadataName), max: limit}
}

// load reads the file unless it has been read. An unreadable file is reported once and left to be replaced.
func (m *metadataStore) load() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loaded {
		return nil
	}
	m.families, m.loaded = map[string]familyMetadata{}, true
	b, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f metadataFile
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	maps.Copy(m.families, f.Families)
	return nil
}

// put stores ms and returns how many were dropped for lack of room.
func (m *metadataStore) put(ms []wire.Metadata, idx []int32) (dropped int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range idx {
		md := &ms[i]
		old, known := m.families[md.Family]
		if !known && len(m.families) >= m.max || md.Family == "" || len(md.Family) > maxFamily {
			dropped++
			continue
		}
		if f := (familyMetadata{md.Type, shorten(md.Help, maxHelp), shorten(md.Unit, maxUnit)}); !known || f != old {
			m.families[strings.Clone(md.Family)] = familyMetadata{strings.Clone(f.Type), strings.Clone(f.Help), strings.Clone(f.Unit)}
			m.dirty = true
		}
	}
	return dropped
}

// shorten cuts s to at most n bytes, not inside a character.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// save writes the file if something changed since.
func (m *metadataStore) save() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	if !m.dirty {
		m.mu.Unlock()
		return nil
	}
	m.dirty = false
	f := metadataFile{Version: 1, Families: maps.Clone(m.families)}
	m.mu.Unlock()
	if err := writeJSON(m.path, f); err != nil {
		m.mu.Lock()
		m.dirty = true
		m.mu.Unlock()
		return errs.E(errs.Internal, "write %s: %w", metadataName, err)
	}
	return nil
}

// forget frees the memory of a tenant that has been closed; load brings it back.
func (m *metadataStore) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		m.families, m.loaded = nil, false
	}
}

func (m *metadataStore) get(family string, limit int) map[string][]metadata.Metadata {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]metadata.Metadata{}
	if family != "" {
		if f, ok := m.families[family]; ok {
			out[family] = []metadata.Metadata{f.public()}
		}
		return out
	}
	names := slices.SortedFunc(maps.Keys(m.families), cmp.Compare[string])
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	for _, name := range names {
		out[name] = []metadata.Metadata{m.families[name].public()}
	}
	return out
}

func (f familyMetadata) public() metadata.Metadata {
	return metadata.Metadata{Type: model.MetricType(f.Type), Help: f.Help, Unit: f.Unit}
}

// Metadata returns what senders said of tenant id's metric families. It works in every state of the tenant.
func (d *DB) Metadata(_ context.Context, id tenant.ID, family string, limit int) (map[string][]metadata.Metadata, series.Warnings, error) {
	t := d.lookup(id)
	if t == nil {
		return map[string][]metadata.Metadata{}, nil, nil
	}
	if err := t.meta.load(); err != nil {
		return nil, nil, errs.E(errs.Internal, "metadata of tenant %q: %w", id, err)
	}
	return t.meta.get(family, limit), nil, nil
}
