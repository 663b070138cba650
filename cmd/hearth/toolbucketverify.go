package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/verify"
	"github.com/hearth-metrics/hearth/internal/errs"
)

func bucketVerifyCommand() command {
	return command{
		name: "tools bucket verify",
		help: "Look for what is wrong with the blocks of a bucket. Blocks that are marked for deletion are left out. " +
			"Nothing is changed without --repair, which makes the blocks that --id names anew.",
		first: []string{"objstore.config-file", "issues", "repair"},
		subject: subject{"What to look for", append([]string{"issues", "id", "deep", "repair", "tmp.dir"},
			changeSubject...)},
		idle: idleTable{never: verifyIdle},
		bind: bindBucketVerify,
	}
}

const keptBackup = "a repaired block is only marked, so its objects are there until marked blocks are removed"

// verifyIdle are the flags of Thanos's repair that are idle here.
var verifyIdle = []idleFlag{
	{"objstore-backup.config", idleSecret, keptBackup},
	{"objstore-backup.config-file", idleText, keptBackup},
	{"delete-delay", idleText, keptBackup},
}

// verifyFlags say what to look for.
type verifyFlags struct {
	issues []string
	ids    []ulid.ULID
	deep   bool
	repair bool
	dir    string // for repaired blocks

	changes changeFlags
}

func bindBucketVerify(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket toolBucketFlags
		f      verifyFlags
	)
	bucket.bind(c)
	issues := []string{verify.IndexKnownIssues, verify.OverlappedBlocks, verify.DuplicatedCompaction}
	c.Flag("issues", verify.IndexKnownIssues+": each block is read as a whole, every checksum and the order of series "+
		"and chunks checked. "+verify.OverlappedBlocks+" and "+verify.DuplicatedCompaction+" look at meta.json files alone. "+
		"May be given several times.").Short('i').Default(verify.IndexKnownIssues, verify.OverlappedBlocks).
		EnumsVar(&f.issues, issues...)
	c.Flag("id", "Look only at this block. May be given several times; only for "+verify.IndexKnownIssues+".").
		PlaceHolder("ULID").SetValue(ulids{&f.ids})
	c.Flag("deep", "Decode every chunk, too, and compare times and numbers of samples.").BoolVar(&f.deep)
	bindOutput(c, &f.changes.output, "text, or json, a line for each finding")
	c.Flag("repair", "Make the blocks that --id names anew where something is wrong with them that can be put right, and "+
		"mark the old ones for deletion. Without --no-dry-run it only says what it would do.").Short('r').
		BoolVar(&f.repair)
	c.Flag("tmp.dir", "Directory for repaired blocks until they are uploaded. What is in it already stays.").
		Default(filepath.Join(os.TempDir(), "hearth-repair")).StringVar(&f.dir)
	f.changes.bindDryRun(c, "It is the default; --no-dry-run changes the bucket. Only for --repair.")
	f.changes.bindPlans(c)
	return func(b *builder) {
		bkt := bucket.build(b)
		if f.repair {
			f.runRepair(b, bkt)
			return
		}
		b.runTool(func(ctx context.Context) error {
			v, err := listToolBlocks(ctx, b, bkt, block.FetcherOptions{})
			if v.Metas == nil {
				return err
			}
			findings, failed := f.look(ctx, b, bkt, v)
			for _, finding := range findings {
				if err := f.write(b.stdout, finding); err != nil {
					return err
				}
			}
			b.log.Info("verify done", "findings", len(findings), "unread_blocks", failed, "deep", f.deep)
			switch {
			case failed > 0 || err != nil:
				return errors.Join(err, errs.E(errs.Unavailable, "%d blocks could not be read", failed))
			case len(findings) > 0:
				return fmt.Errorf("%d findings", len(findings))
			}
			return nil
		})
	}
}

// look looks at all blocks that the flags choose. failed counts those that could not be read.
func (f *verifyFlags) look(ctx context.Context, b *builder, bkt objstore.BucketReader,
	v block.View) (all []verify.Finding, failed int) {
	for id, err := range v.Partial {
		if errs.KindOf(err) == errs.Invalid && f.wants(verify.IndexKnownIssues, id) {
			all = append(all, verify.Finding{Block: id, Issue: verify.IndexKnownIssues, Text: err.Error()})
		}
	}
	metas := v.Select(block.Unmarked)
	if len(f.ids) == 0 && slices.Contains(f.issues, verify.OverlappedBlocks) {
		all = append(all, verify.Overlaps(v.Select(block.Unmarked, block.NotReplaced))...)
	}
	if len(f.ids) == 0 && slices.Contains(f.issues, verify.DuplicatedCompaction) {
		all = append(all, verify.Duplicates(metas)...)
	}
	metas = slices.DeleteFunc(metas, func(m *block.Meta) bool { return !f.wants(verify.IndexKnownIssues, m.ULID) })
	progress := b.progress("reading blocks")
	for i, m := range metas {
		found, err := verify.Scan(ctx, bkt, m, os.TempDir(), f.deep)
		if err != nil {
			failed++
			b.log.Error("a block could not be read", "block", m.ULID, "err", err)
		}
		all = append(all, found...)
		progress(i+1, len(metas))
	}
	return all, failed
}

// wants reports whether a block is to be looked at for an issue.
func (f *verifyFlags) wants(issue string, id ulid.ULID) bool {
	return slices.Contains(f.issues, issue) && (len(f.ids) == 0 || slices.Contains(f.ids, id))
}

func (f *verifyFlags) write(w io.Writer, finding verify.Finding) error {
	if f.changes.output == "json" {
		return json.NewEncoder(w).Encode(finding)
	}
	_, err := fmt.Fprintf(w, "%s %s: %q\n", finding.Block, finding.Issue, finding.Text)
	return err
}
