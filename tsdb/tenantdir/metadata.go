package tenantdir

import (
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
	"github.com/hearth-metrics/hearth/internal/wire"
)

const (
	metadataName = "metadata.json"

	// Texts are cut to these lengths in bytes. A longer family name is refused.
	maxFamily, maxHelp, maxUnit = 512, 1024, 64
)

// Metadata is what senders said of a tenant's metric families: the newest statement wins. It is kept in memory while
// the tenant is open, and in a file that is replaced as a whole. It is safe for concurrent use.
type Metadata struct {
	path string
	max  int

	saving sync.Mutex // one writer of the file at a time; taken before mu

	mu       sync.Mutex // guards what follows
	families map[string]family
	loaded   bool
	dirty    bool // the file lacks something
}

type family struct {
	Type string `json:"type,omitempty"`
	Help string `json:"help,omitempty"`
	Unit string `json:"unit,omitempty"`
}

type metadataFile struct {
	Version  int               `json:"version"`
	Families map[string]family `json:"families"`
}

// NewMetadata is the metadata in tenant directory dir, of at most limit families. Load reads it.
func NewMetadata(dir string, limit int) *Metadata {
	return &Metadata{path: filepath.Join(dir, metadataName), max: limit}
}

// Load reads the file unless it has been read. A file that cannot be read is an error once; the next Save replaces it.
func (m *Metadata) Load() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loaded {
		return nil
	}
	m.families, m.loaded = map[string]family{}, true
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

// Put keeps those of ms that idx names. It returns how many were not kept: the tenant has too many families already,
// or the name is too long. It keeps no reference to ms. Load must have been called.
func (m *Metadata) Put(ms []wire.Metadata, idx []int32) (dropped int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range idx {
		md := &ms[i]
		old, known := m.families[md.Family]
		if !known && len(m.families) >= m.max || md.Family == "" || len(md.Family) > maxFamily {
			dropped++
			continue
		}
		f := family{md.Type, shorten(md.Help, maxHelp), shorten(md.Unit, maxUnit)}
		if known && f == old {
			continue
		}
		f = family{strings.Clone(f.Type), strings.Clone(f.Help), strings.Clone(f.Unit)}
		m.families[strings.Clone(md.Family)] = f
		m.dirty = true
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

// Save writes the file if something changed since it was written.
func (m *Metadata) Save() error {
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

// Forget frees the memory of a tenant that has been closed, unless there is something to save. Load brings it back.
func (m *Metadata) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		m.families, m.loaded = nil, false
	}
}

// Drop forgets everything, also what was not saved: the tenant is gone, and another one may get its directory.
func (m *Metadata) Drop() {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.families, m.loaded, m.dirty = nil, false, false
}

// Get returns the metadata of one family, or of the first limit families by name if the name is "" (limit 0 = all).
func (m *Metadata) Get(name string, limit int) map[string][]metadata.Metadata {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]metadata.Metadata{}
	if name != "" {
		if f, ok := m.families[name]; ok {
			out[name] = []metadata.Metadata{f.public()}
		}
		return out
	}
	for _, name := range series.SortedUnique(slices.Collect(maps.Keys(m.families)), limit) {
		out[name] = []metadata.Metadata{m.families[name].public()}
	}
	return out
}

func (f family) public() metadata.Metadata {
	return metadata.Metadata{Type: model.MetricType(f.Type), Help: f.Help, Unit: f.Unit}
}
