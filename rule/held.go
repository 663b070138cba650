package rule

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
)

// maxHeld bounds the memory of the states of groups that other rulers evaluate, in bytes.
const maxHeld = 256 << 20

// heldStates are the states of groups that this ruler does not evaluate at present.
type heldStates struct {
	files states

	mu    sync.Mutex // guards what follows, and is held while a file is written: a later state may not be overtaken
	all   map[groupID]*heldState
	bytes int
}

// heldState is the state of a group behind a slot, as bytes.
type heldState struct {
	slot   time.Time
	state  []byte                  // in the form of a state file
	series map[int]json.RawMessage // of recording rules, by their place in the group
	empty  bool                    // the file of the group says that there are no alerts
}

func (h *heldState) size() int {
	n := len(h.state)
	for _, s := range h.series {
		n += len(s)
	}
	return n
}

// seriesForm is what rulerHeld.Series is made of, as JSON.
type seriesForm struct {
	Rules []ruleSeriesForm `json:"rules"`
}

type ruleSeriesForm struct {
	Index  int             `json:"index"`
	Series json.RawMessage `json:"series"` // a list of labels
}

// put keeps a state. It is false when it builds on one that is not here.
func (h *heldStates) put(in rulestate.Held) (ok bool, _ error) {
	p, err := decodeProgress(in.State)
	if err != nil {
		return false, errs.E(errs.Invalid, "state of a group: %w", err)
	}
	id := idOfName(in.Group)
	if p.id != id || !p.slot.Equal(in.Slot) {
		return false, errs.E(errs.Invalid, "state of group %q of %s: is that of another group or slot", id.name, id.namespace)
	}
	var changed seriesForm
	if len(in.Series) > 0 {
		if err := json.Unmarshal(in.Series, &changed); err != nil {
			return false, errs.E(errs.Invalid, "series of group %q of %s: %w", id.name, id.namespace, err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.all[id]
	next := &heldState{slot: p.slot, state: in.State, series: map[int]json.RawMessage{}}
	if !in.Base.IsZero() {
		if old == nil || !old.slot.Equal(in.Base) {
			return false, nil
		}
		for i, s := range old.series {
			next.series[i] = s
		}
	}
	for _, r := range changed.Rules {
		if r.Index < 0 || r.Index >= len(p.rules) {
			return false, errs.E(errs.Invalid, "series of group %q of %s: of rule %d of %d", id.name, id.namespace, r.Index,
				len(p.rules))
		}
		next.series[r.Index] = r.Series
	}
	size := next.size()
	if old != nil {
		size -= old.size()
		next.empty = old.empty
	}
	if h.bytes+size > maxHeld {
		return false, errs.E(errs.Exhausted, "states of groups of other rulers take more than %d bytes here", maxHeld)
	}
	h.bytes += size
	h.all[id] = next
	empty := !p.hasAlerts()
	if !empty || !next.empty {
		if err := h.files.writeBytes(id, in.State); err == nil {
			next.empty = empty
		}
	}
	return true, nil
}

// keep keeps the state of a group that this ruler has just given away.
func (h *heldStates) keep(p *progress) {
	state, err := p.encode()
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(p.id)
	of := &heldState{slot: p.slot, state: state}
	if h.bytes += of.size(); h.bytes > maxHeld {
		h.bytes -= of.size()
		return
	}
	h.all[p.id] = of
}

// drop forgets a group. mu is held.
func (h *heldStates) drop(id groupID) {
	if old := h.all[id]; old != nil {
		h.bytes -= old.size()
		delete(h.all, id)
	}
}

// get is the state of a group, whole, in the form of a state file; nil = there is none.
func (h *heldStates) get(id groupID) []byte {
	h.mu.Lock()
	of := h.all[id]
	h.mu.Unlock()
	if of == nil {
		return nil
	}
	if len(of.series) == 0 {
		return of.state
	}
	p, err := decodeProgress(of.state)
	if err != nil {
		return nil
	}
	for i, raw := range of.series {
		var list []labels.Labels
		if i < len(p.rules) && json.Unmarshal(raw, &list) == nil {
			p.rules[i].series = list
		}
	}
	whole, err := p.encode()
	if err != nil {
		return nil
	}
	return whole
}

// forget drops the groups that run here from now on.
func (h *heldStates) forget(id groupID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(id)
}

// forgetOld drops states of slots before since, with their files.
func (h *heldStates) forgetOld(since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, of := range h.all {
		if of.slot.Before(since) {
			h.drop(id)
			h.files.remove(id)
		}
	}
}

// count is how many groups' states are here.
func (h *heldStates) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all)
}

// sent is what another ruler is known to hold of a group.
type sent struct {
	slot   time.Time
	series []uint64 // a hash of the series of each recording rule
}

// seriesHash is that of the series of a rule, whatever their order.
func (r *rule) seriesHash() (h uint64) {
	if r.alert != nil {
		return 0
	}
	for _, ls := range r.previous {
		h ^= ls.Hash()
	}
	return h*31 + uint64(len(r.previous))
}

// changes are the series of the recording rules that differ from what was sent, as seriesForm; and what was sent then.
func (g *group) changes(was *sent) ([]byte, *sent, error) {
	now := &sent{slot: g.last, series: make([]uint64, len(g.rules))}
	var f seriesForm
	for i, r := range g.rules {
		now.series[i] = r.seriesHash()
		if r.alert != nil || was != nil && i < len(was.series) && was.series[i] == now.series[i] {
			continue
		}
		list := make([]labels.Labels, 0, len(r.previous))
		for _, ls := range r.previous {
			list = append(list, ls)
		}
		raw, err := json.Marshal(list)
		if err != nil {
			return nil, nil, err
		}
		f.Rules = append(f.Rules, ruleSeriesForm{i, raw})
	}
	if len(f.Rules) == 0 {
		return nil, now, nil
	}
	out, err := json.Marshal(f)
	return out, now, err
}

func idOfName(n rulestate.GroupName) groupID { return groupID{n.Tenant, n.Namespace, n.Name} }

func (id groupID) groupName() rulestate.GroupName {
	return rulestate.GroupName{Tenant: id.tenant, Namespace: id.namespace, Name: id.name}
}

// errStale is the error of a state that is too old to be used.
var errStale = errors.New("is older than the outage tolerance")

// decodeState reads a state of a group that another ruler or a file has, no older than since.
func decodeState(id groupID, content []byte, since time.Time) (*progress, error) {
	p, err := decodeProgress(content)
	switch {
	case err != nil:
		return nil, err
	case p.id != id:
		return nil, fmt.Errorf("is that of group %q of %s", p.id.name, p.id.namespace)
	case p.slot.Before(since):
		return nil, errStale
	}
	return p, nil
}
