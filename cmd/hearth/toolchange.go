package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/internal/atomicfile"
)

// changeFlags are those of tools that change blocks.
type changeFlags struct {
	output          string
	dryRun          bool
	dryGiven        bool
	planOut, planIn string
	// rewrite makes the steps of a rewrite, for the tool that plans some.
	rewrite func(context.Context, change.Step) (already string, err error)
}

// changeSubject are the names of the flags, for the help.
var changeSubject = []string{"output", "dry-run", "plan-out", "plan-in"}

func (f *changeFlags) bind(c *kingpin.CmdClause, dryRunHelp string) {
	bindOutput(c, &f.output, "text, or json: a line for each step")
	f.bindDryRun(c, dryRunHelp)
}

func (f *changeFlags) bindDryRun(c *kingpin.CmdClause, dryRunHelp string) {
	c.Flag("dry-run", "Only say what would be done. "+dryRunHelp).IsSetByUser(&f.dryGiven).BoolVar(&f.dryRun)
}

// bindPlans adds the flags for plans in files.
func (f *changeFlags) bindPlans(c *kingpin.CmdClause) {
	c.Flag("plan-out", "Only make a plan, and write it to this file.").PlaceHolder("FILE").StringVar(&f.planOut)
	c.Flag("plan-in", "Do what the plan in this file says, which --plan-out made. A block that has changed since is left "+
		"alone.").PlaceHolder("FILE").StringVar(&f.planIn)
}

// dryByDefault makes it a dry run, unless the flags say otherwise or a plan is to be done.
func (f *changeFlags) dryByDefault() {
	if !f.dryGiven && f.planIn == "" {
		f.dryRun = true
	}
}

// run makes a plan and does what it says, as far as the flags ask for that.
func (f *changeFlags) run(ctx context.Context, b *builder, bkt objstore.Bucket, tool string,
	plan func(context.Context) (change.Plan, error)) error {
	p, err := f.plan(ctx, tool, plan)
	if err != nil {
		return err
	}
	for _, h := range p.Held {
		b.log.Warn("a block is left alone", "block", h.Block, "reason", h.Reason)
	}
	if f.planOut != "" {
		if err := p.Fix(ctx, bkt, b.progress("listing the blocks of the plan")); err != nil {
			return err
		}
		if err := writePlan(f.planOut, p); err != nil {
			return err
		}
	}
	if f.dryRun || f.planOut != "" {
		b.log.Info("nothing was changed: this is only a plan", "steps", len(p.Steps))
		return f.write(b.stdout, p.Outcomes())
	}
	r, err := change.Apply(ctx, bkt, p, change.Options{By: whoAmI(), Progress: b.progress(tool), Rewrite: f.rewrite})
	for _, o := range r.Steps {
		if o.Why != "" {
			b.log.Warn("a step was not made", "block", o.Block, "action", o.Action, "result", o.Result, "reason", o.Why)
		}
	}
	b.log.Info("the steps are made", "tool", tool, "steps", len(r.Steps), "steps_done", r.Count(change.Done),
		"steps_refused", r.Count(change.Refused), "steps_failed", r.Count(change.Failed), "audit", r.Audit)
	return cmp.Or(err, f.write(b.stdout, r.Steps))
}

// plan is the plan of the file, or a new one.
func (f *changeFlags) plan(ctx context.Context, tool string,
	plan func(context.Context) (change.Plan, error)) (change.Plan, error) {
	if f.planIn == "" {
		return plan(ctx)
	}
	file, err := os.Open(f.planIn)
	if err != nil {
		return change.Plan{}, fmt.Errorf("--plan-in: %w", err)
	}
	defer file.Close()
	p, err := change.Read(file, tool)
	if err != nil {
		return change.Plan{}, fmt.Errorf("--plan-in: %s: %w", f.planIn, err)
	}
	return p, nil
}

func writePlan(path string, p change.Plan) error {
	raw, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = atomicfile.Write(path, append(raw, '\n'), 0o666)
	}
	if err != nil {
		return fmt.Errorf("--plan-out: %w", err)
	}
	return nil
}

// write writes steps to w, a line for each.
func (f *changeFlags) write(w io.Writer, steps []change.Outcome) error {
	out := json.NewEncoder(w)
	for _, o := range steps {
		var err error
		if f.output == "json" {
			err = out.Encode(o)
		} else {
			_, err = fmt.Fprintf(w, "%s %s %s%s\n", o.Result, o.Action, o.Block, details(o))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// details are the rest of the line of a step.
func details(o change.Outcome) (text string) {
	if o.Mark != "" {
		text += " " + o.Mark
	}
	if o.Bytes > 0 {
		text += fmt.Sprintf(" (%d bytes)", o.Bytes)
	}
	if why := cmp.Or(o.Why, o.Details); why != "" {
		text += fmt.Sprintf(": %q", why)
	}
	return text
}

// whoAmI is who uses a tool, for the audit.
func whoAmI() string {
	host, _ := os.Hostname()
	return cmp.Or(os.Getenv("USER"), "unknown") + "@" + cmp.Or(host, "unknown")
}

// markTimeout is how long marking may take, as in Thanos.
const markTimeout = 2 * time.Minute
