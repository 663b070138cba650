package rulestate

import (
	"context"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// GroupName names a group of a tenant.
type GroupName struct {
	Tenant          tenant.ID
	Namespace, Name string
}

// Keeper is a ruler, as those see it that share groups with it. Its methods may be called by several goroutines.
type Keeper interface {
	// Groups says which groups it has. version is that of the last answer, 0 = there was none.
	Groups(ctx context.Context, version uint64) (Known, error)
	// Take asks for the state of a group that the caller is about to evaluate. Unless the answer says Keeps or Busy, the
	// ruler does not evaluate the group any more.
	Take(ctx context.Context, g GroupName) (Taken, error)
	// Hold gives it the state of a group behind a slot.
	Hold(ctx context.Context, h Held) (HoldAnswer, error)
}

// Known are the groups that a ruler has.
type Known struct {
	// Version changes with the groups. It is never 0.
	Version uint64
	// Groups are hashes of their keys; nil if the caller knows those of Version.
	Groups []uint64
	// Leaves says that the ruler is about to stop: it evaluates its groups until others take them.
	Leaves bool
}

// Taken is what a ruler knows of a group.
type Taken struct {
	// Keeps: it goes on to evaluate the group, as its owner, as far as it knows.
	Keeps bool
	// Busy: it evaluates a slot, and begins no other one for a moment. The caller asks again.
	Busy bool
	// State is its state, in the form of docs/format/rulestate.md; empty if it knows none.
	State []byte
}

// Held is the state of a group behind a slot.
type Held struct {
	Group GroupName
	// Slot is the slot; Base is the one whose state the receiver of this is known to hold, zero = none.
	Slot, Base time.Time
	// State lacks the series of recording rules. Series has those of the rules whose series differ from those at Base.
	State, Series []byte
}

// HoldAnswer says what a ruler did with a state. The zero value says that it holds it.
type HoldAnswer struct {
	// Evaluates: it evaluates the group itself, and has kept nothing.
	Evaluates bool
	// Lacks: it does not have the state at Base, and has kept nothing.
	Lacks bool
}
