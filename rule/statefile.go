package rule

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// stateVersion is that of the form of state files. A file of another version is not read.
const stateVersion = 1

// stateForm is a state file, as JSON: the progress of a group.
type stateForm struct {
	Version   int             `json:"version"`
	Tenant    string          `json:"tenant"`
	Namespace string          `json:"namespace"`
	Group     string          `json:"group"`
	Slot      int64           `json:"slot"` // Unix ns
	Rules     []ruleForm      `json:"rules"`
	Stale     []labels.Labels `json:"stale,omitempty"`
}

type ruleForm struct {
	Text     string          `json:"text"`
	Name     string          `json:"name"`
	Restored bool            `json:"restored"`
	Evals    int             `json:"evals"`
	Alerts   []alertForm     `json:"alerts,omitempty"`
	Series   []labels.Labels `json:"series,omitempty"`
}

// alertForm is an alert. Times are Unix ns, 0 = none. The value is text, since JSON has no infinities.
type alertForm struct {
	State           string        `json:"state"`
	Labels          labels.Labels `json:"labels"`
	Annotations     labels.Labels `json:"annotations"`
	Value           string        `json:"value"`
	ActiveAt        int64         `json:"activeAt,omitempty"`
	FiredAt         int64         `json:"firedAt,omitempty"`
	ResolvedAt      int64         `json:"resolvedAt,omitempty"`
	LastSentAt      int64         `json:"lastSentAt,omitempty"`
	ValidUntil      int64         `json:"validUntil,omitempty"`
	KeepFiringSince int64         `json:"keepFiringSince,omitempty"`
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func ofNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

var alertStates = map[string]rules.AlertState{
	"inactive": rules.StateInactive, "pending": rules.StatePending, "firing": rules.StateFiring,
}

// encode writes p as a state file.
func (p *progress) encode() ([]byte, error) {
	f := stateForm{
		Version: stateVersion, Tenant: string(p.id.tenant), Namespace: p.id.namespace, Group: p.id.name,
		Slot: nanos(p.slot), Stale: p.stale,
	}
	for _, r := range p.rules {
		of := ruleForm{Text: r.text, Name: r.nameAndLabels, Restored: r.restored, Evals: r.evals, Series: r.series}
		for _, a := range r.alerts {
			of.Alerts = append(of.Alerts, alertForm{
				State: a.State.String(), Labels: a.Labels, Annotations: a.Annotations,
				Value:    strconv.FormatFloat(a.Value, 'g', -1, 64),
				ActiveAt: nanos(a.ActiveAt), FiredAt: nanos(a.FiredAt), ResolvedAt: nanos(a.ResolvedAt),
				LastSentAt: nanos(a.LastSentAt), ValidUntil: nanos(a.ValidUntil), KeepFiringSince: nanos(a.KeepFiringSince),
			})
		}
		f.Rules = append(f.Rules, of)
	}
	return json.Marshal(f)
}

// decodeProgress reads a state file.
func decodeProgress(content []byte) (*progress, error) {
	var f stateForm
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(content, &version); err != nil {
		return nil, err
	}
	if version.Version != stateVersion {
		return nil, fmt.Errorf("has version %d, and this build reads version %d", version.Version, stateVersion)
	}
	if err := json.Unmarshal(content, &f); err != nil {
		return nil, err
	}
	id, err := tenant.Parse(f.Tenant)
	if err != nil {
		return nil, err
	}
	p := &progress{id: groupID{id, f.Namespace, f.Group}, slot: ofNanos(f.Slot), stale: f.Stale}
	for _, r := range f.Rules {
		of := ruleProgress{text: r.Text, nameAndLabels: r.Name, restored: r.Restored, evals: r.Evals, series: r.Series}
		if r.Text == "" || r.Name == "" {
			return nil, errors.New("a rule has no text or no name")
		}
		for _, a := range r.Alerts {
			state, ok := alertStates[a.State]
			if !ok {
				return nil, fmt.Errorf("alert %s: state %q is not known", a.Labels, a.State)
			}
			value, err := strconv.ParseFloat(a.Value, 64)
			if err != nil {
				return nil, fmt.Errorf("alert %s: value: %w", a.Labels, err)
			}
			of.alerts = append(of.alerts, rules.Alert{
				State: state, Labels: a.Labels, Annotations: a.Annotations, Value: value,
				ActiveAt: ofNanos(a.ActiveAt), FiredAt: ofNanos(a.FiredAt), ResolvedAt: ofNanos(a.ResolvedAt),
				LastSentAt: ofNanos(a.LastSentAt), ValidUntil: ofNanos(a.ValidUntil),
				KeepFiringSince: ofNanos(a.KeepFiringSince),
			})
		}
		p.rules = append(p.rules, of)
	}
	return p, nil
}

// states keeps the progress of groups in a directory, a file for each group. Nothing is kept where dir is "".
type states struct {
	dir string
	log *slog.Logger
}

const stateSuffix = ".json"

// path is the file of a group. It is named by a hash, since names of groups are people's and never become paths.
func (s states) path(id groupID) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", id.tenant, id.namespace, id.name))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+stateSuffix)
}

// read reads all files that are no older than since. A file that cannot be read is left out, and named in the log.
func (s states) read(since time.Time) ([]*progress, error) {
	if s.dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var out []*progress
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), stateSuffix) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		content, err := os.ReadFile(path)
		var p *progress
		if err == nil {
			p, err = decodeProgress(content)
		}
		switch {
		case err != nil:
			s.log.Error("state of a group is not valid; its alerts are looked for in stored series", "file", path, "err", err)
		case path != s.path(p.id):
			s.log.Error("state of a group has the name of another group, and is not used", "file", path)
		case p.slot.Before(since):
			_ = os.Remove(path) // its alerts are forgotten; the group writes a new one
		default:
			out = append(out, p)
		}
	}
	return out, nil
}

// write keeps p.
func (s states) write(p *progress) error {
	if s.dir == "" {
		return nil
	}
	content, err := p.encode()
	if err != nil {
		return err
	}
	return s.writeBytes(p.id, content)
}

// writeBytes keeps the state of a group that is encoded already.
func (s states) writeBytes(id groupID, content []byte) error {
	if s.dir == "" {
		return nil
	}
	return atomicfile.Write(s.path(id), content, 0o666)
}

// remove forgets a group.
func (s states) remove(id groupID) {
	if s.dir == "" {
		return
	}
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("state of a group that is gone not removed", "group", id.name, "file", s.path(id), "err", err)
	}
}
