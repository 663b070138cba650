package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/block/verify"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// repairConfig is the configuration of the steps of a repair, which has none.
const repairConfig = "repair"

// runRepair makes the command one that repairs the blocks that --id names.
func (f *verifyFlags) runRepair(b *builder, bkt objstore.Bucket) {
	if len(f.ids) == 0 && f.changes.planIn == "" {
		b.check(errors.New("--repair needs --id: it says which block is repaired"))
	}
	f.changes.dryByDefault()
	f.changes.rewrite = func(ctx context.Context, s change.Step) (string, error) { return "", f.apply(ctx, b, bkt, s) }
	b.runChangingTool(bkt, func(ctx context.Context) error {
		held := 0
		err := f.changes.run(ctx, b, bkt, "verify", func(ctx context.Context) (change.Plan, error) {
			p, err := f.plan(ctx, b, bkt)
			held = len(p.Held)
			return p, err
		})
		if err == nil && held > 0 {
			err = errs.E(errs.Conflict, "%d blocks are not repaired", held)
		}
		return err
	})
}

// plan looks at the blocks, and plans to repair those with which something is wrong.
func (f *verifyFlags) plan(ctx context.Context, b *builder, bkt objstore.Bucket) (change.Plan, error) {
	v, err := listToolBlocks(ctx, b, bkt, block.FetcherOptions{})
	if err != nil {
		return change.Plan{}, err
	}
	p := change.NewPlan("verify", v, time.Now())
	hold := func(id ulid.ULID, format string, args ...any) {
		p.Held = append(p.Held, change.Held{Block: id, Reason: fmt.Sprintf(format, args...)})
	}
	replaced, planned := block.Replaced(v.Select()), map[ulid.ULID]bool{}
	var chosen []*block.Meta
	for _, id := range slices.Compact(slices.SortedFunc(slices.Values(f.ids), ulid.ULID.Compare)) {
		m, partial := v.Metas[id], v.Partial[id]
		switch _, marked := v.Deletions[id]; {
		case m == nil && partial == nil:
			return p, errs.E(errs.NotFound, "there is no block %s in the bucket", id)
		case m == nil:
			hold(id, "%v", partial)
		case marked:
			hold(id, "it is marked for deletion")
		case len(replaced[id].By) > 0 && !f.repaired(replaced[id].By[0]):
			hold(id, "block %s replaces it", replaced[id].By[0].ULID)
		default:
			chosen = append(chosen, m)
		}
	}
	slices.SortFunc(chosen, block.ByTime)
	if slices.Contains(f.issues, verify.DuplicatedCompaction) {
		for _, found := range verify.Duplicates(v.Select(block.Unmarked)) {
			if slices.ContainsFunc(chosen, func(m *block.Meta) bool { return m.ULID == found.Block }) {
				planned[found.Block] = true
				p.Steps = append(p.Steps, change.Step{Action: change.Mark, Block: found.Block, Mark: block.DeletionMarkName,
					Bytes: v.Metas[found.Block].Bytes(), Details: fmt.Sprintf("made twice, as %s", found.Others[0])})
			}
		}
	}
	for _, group := range f.groups(chosen, planned) {
		s, reason, err := f.step(ctx, bkt, group)
		switch {
		case err != nil:
			return p, err
		case reason != "":
			for _, m := range group {
				hold(m.ULID, "%s", reason)
			}
		default:
			p.Steps = append(p.Steps, s)
		}
	}
	return p, nil
}

// repaired reports whether m is what the repair of chosen blocks made, in a run that was broken off before it marked
// them.
func (f *verifyFlags) repaired(m *block.Meta) bool {
	return m.Thanos.Source == block.SourceRepair && m.Origin != nil &&
		!slices.ContainsFunc(m.Origin.Replaces, func(id ulid.ULID) bool { return !slices.Contains(f.ids, id) })
}

// groups are the blocks that are repaired together: those that overlap, if that is an issue, and else each one alone.
func (f *verifyFlags) groups(chosen []*block.Meta, planned map[ulid.ULID]bool) (groups [][]*block.Meta) {
	chosen = slices.DeleteFunc(slices.Clone(chosen), func(m *block.Meta) bool { return planned[m.ULID] })
	in := map[ulid.ULID]int{}
	overlaps := map[ulid.ULID][]ulid.ULID{}
	if slices.Contains(f.issues, verify.OverlappedBlocks) {
		for _, found := range verify.Overlaps(chosen) {
			overlaps[found.Block] = found.Others
		}
	}
	for _, m := range chosen {
		at := len(groups)
		if others := overlaps[m.ULID]; len(others) > 0 {
			at = in[others[0]]
		} else {
			groups = append(groups, nil)
		}
		groups[at], in[m.ULID] = append(groups[at], m), at
	}
	return groups
}

// step is what repairs blocks that are to become one. reason is why they are not repaired.
func (f *verifyFlags) step(ctx context.Context, bkt objstore.Bucket, group []*block.Meta) (s change.Step, reason string,
	err error) {
	var texts []string
	s = change.Step{Action: change.Rewrite, Config: repairConfig, Mark: block.DeletionMarkName, Block: group[0].ULID}
	var full []*block.Meta
	for _, m := range group {
		m, err := block.FetchMeta(ctx, bkt, m.ULID)
		if err != nil {
			return s, "", err
		}
		full = append(full, m)
		s.Bytes += m.Bytes()
		if slices.Contains(f.issues, verify.IndexKnownIssues) {
			found, err := verify.Scan(ctx, bkt, m, os.TempDir(), f.deep)
			if err != nil {
				return s, "", err
			}
			for _, one := range found {
				texts = append(texts, one.Text)
			}
		}
	}
	for _, m := range group[1:] {
		s.With = append(s.With, m.ULID)
	}
	if len(group) > 1 {
		texts = append(texts, fmt.Sprintf("it overlaps with %d other blocks", len(group)-1))
	}
	if len(texts) == 0 {
		return s, "nothing is wrong with it", nil
	}
	s.Into, s.Details = rewrite.RepairID(full).String(), strings.Join(texts, "; ")
	err = rewrite.Repairable(ctx, bkt, full, rewrite.Options{Dir: f.dir})
	switch errs.KindOf(err) {
	case errs.Invalid, errs.NotFound, errs.Conflict, errs.TooLarge:
		return s, fmt.Sprintf("it cannot be repaired: %v", err), nil
	}
	return s, "", err
}

// apply makes a step.
func (f *verifyFlags) apply(ctx context.Context, b *builder, bkt objstore.Bucket, s change.Step) error {
	if s.Config != repairConfig {
		return errs.E(errs.Conflict, "the step is none of a repair")
	}
	var metas []*block.Meta
	for _, id := range append([]ulid.ULID{s.Block}, s.With...) {
		m, err := block.FetchMeta(ctx, bkt, id)
		if errs.KindOf(err) == errs.NotFound {
			err = errs.Wrap(errs.Conflict, err)
		}
		if err != nil {
			return err
		}
		metas = append(metas, m)
	}
	if into := rewrite.RepairID(metas); into.String() != s.Into {
		return errs.E(errs.Conflict, "the blocks become %s, and the plan says %s", into, s.Into)
	}
	made, err := rewrite.Repair(ctx, bkt, metas, rewrite.Options{Dir: f.dir,
		Check: func(ctx context.Context, m *block.Meta) error {
			found, err := verify.Scan(ctx, bkt, m, f.dir, true)
			if err == nil && len(found) > 0 {
				err = errs.E(errs.Internal, "BUG: the repaired block %s is faulty: %s", m.ULID, found[0].Text)
			}
			return err
		}})
	if err != nil {
		return err
	}
	b.log.Info("blocks are repaired", "into", made.ULID, "blocks", len(metas), "series", made.Stats.NumSeries)
	for _, m := range metas {
		if err := block.MarkDeletion(ctx, bkt, m.ULID, "repaired as "+made.ULID.String(), time.Now()); err != nil {
			return err
		}
	}
	return nil
}
