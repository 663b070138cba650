package change

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Action is what a step does with its block.
type Action string

// The actions.
const (
	Mark   Action = "mark"   // write the mark called Step.Mark
	Unmark Action = "unmark" // remove it
	Delete Action = "delete" // remove all objects of the block
	// Rewrite makes a block anew without some of its samples (Options.Rewrite), and then writes Step.Mark, if it is set.
	Rewrite Action = "rewrite"
)

// Step is one change of one block.
type Step struct {
	Action Action    `json:"action"`
	Block  ulid.ULID `json:"block"`
	// Mark is the name of the mark: block.DeletionMarkName, ... A block that is deleted must have it; without one the
	// block must have no meta.json.
	Mark string `json:"mark,omitempty"`
	// Details go into a mark; of a deletion they say why.
	Details string `json:"details,omitempty"`
	// Bytes is how large the block is, as far as its meta.json says.
	Bytes int64 `json:"bytes,omitempty"`
	// With are further blocks that a rewrite makes one with Block. They get the mark, too.
	With []ulid.ULID `json:"with,omitempty"`
	// Into is the id of the block that a rewrite makes, and Config a hash of what it changes.
	Into   string `json:"into,omitempty"`
	Config string `json:"config,omitempty"`
	// Objects is the state of the block when the plan was written to a file: a hash of the names of its objects. Without
	// it the block may have changed.
	Objects string `json:"objects,omitempty"`
}

// planVersion is the version of the form of a Plan.
const planVersion = 1

// maxPlan bounds a plan that is read, in bytes: about two million steps.
const maxPlan = 512 << 20

// Plan is what is to be changed.
type Plan struct {
	Version int `json:"version"`
	// Tool is the command that made it; only that applies it.
	Tool string `json:"tool"`
	// Made is when. View is the number of the index of the bucket that it was made from, 0 = without one.
	Made time.Time `json:"made"`
	View uint64    `json:"view,omitempty"`
	// Timed says that the age of something decided, so that the clock must be right.
	Timed bool   `json:"timed,omitempty"`
	Steps []Step `json:"steps"`
	// Held are blocks that would be changed by what was asked for, and are not.
	Held []Held `json:"held,omitempty"`
}

// Held is a block that is left alone, and why.
type Held struct {
	Block  ulid.ULID `json:"block"`
	Reason string    `json:"reason"`
}

// NewPlan is a plan without steps.
func NewPlan(tool string, v block.View, now time.Time) Plan {
	return Plan{Version: planVersion, Tool: tool, Made: now.UTC(), View: v.Number, Steps: []Step{}}
}

// Fix notes the state of each block in p, so that Apply changes only what has not changed since. It lists each block.
// Errors are of kind Unavailable.
func (p *Plan) Fix(ctx context.Context, bkt objstore.BucketReader, progress func(done, of int)) error {
	for i := range p.Steps {
		names, err := block.ObjectsOf(ctx, bkt, p.Steps[i].Block)
		if err != nil {
			return err
		}
		p.Steps[i].Objects = state(names)
		progress(i+1, len(p.Steps))
	}
	return nil
}

// state is a hash of the names of a block's objects.
func state(names []string) string {
	names = slices.Sorted(slices.Values(names))
	sum := sha256.Sum256([]byte(strings.Join(names, "\n")))
	return hex.EncodeToString(sum[:16])
}

// Read reads a plan that tool made. Errors are of kind Invalid, except those of r.
func Read(r io.Reader, tool string) (Plan, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxPlan+1))
	if err != nil {
		return Plan{}, err
	}
	if len(raw) > maxPlan {
		return Plan{}, errs.E(errs.Invalid, "a plan is larger than %d bytes", maxPlan)
	}
	var p Plan
	if err := json.Unmarshal(raw, &p); err != nil {
		return Plan{}, errs.E(errs.Invalid, "plan: %w", err)
	}
	if p.Version != planVersion || p.Tool != tool {
		return Plan{}, errs.E(errs.Invalid, "plan of version %d for %q: want version %d for %q", p.Version, p.Tool,
			planVersion, tool)
	}
	for i, s := range p.Steps {
		switch {
		case s.Action == Delete && (s.Mark == "" || s.Mark == block.DeletionMarkName):
		case (s.Action == Mark || s.Action == Unmark) && block.IsMark(s.Mark):
		case s.Action == Rewrite && s.Config != "" && (s.Mark == "" || s.Mark == block.DeletionMarkName):
		default:
			return Plan{}, errs.E(errs.Invalid, "plan: step %d: action %q with mark %q", i+1, s.Action, s.Mark)
		}
	}
	return p, nil
}
