package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// uploadTimeout bounds the upload of one block.
const uploadTimeout = time.Hour

func bucketUploadCommand() command {
	return command{
		name:  "tools bucket upload-blocks",
		help:  "Upload the blocks of a directory, such as the data directory of a Prometheus, with external labels.",
		first: []string{"objstore.config-file", "path", "label"},
		subject: subject{"What to upload", []string{"path", "label", "shipper.upload-compacted",
			"shipper.upload-concurrency", "output"}},
		bind: bindBucketUpload,
	}
}

func bindBucketUpload(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket      toolBucketFlags
		dir, output string
		external    labels.Labels
		compacted   bool
		concurrency int
	)
	bucket.bind(c)
	c.Flag("path", "Directory with the blocks. What was uploaded is noted in "+ship.RecordName+" in it.").
		Default("./data").StringVar(&dir)
	c.Flag("label", "External label of the blocks, such as replica=\"0\". May be given several times, and must be given "+
		"once: readers tell streams apart by them.").PlaceHolder("NAME=\"VALUE\"").SetValue(labelSet{&external})
	c.Flag("shipper.upload-compacted", "Upload blocks that were compacted, too. One that overlaps with a block of the "+
		"same labels in the bucket is refused.").BoolVar(&compacted)
	c.Flag("shipper.upload-concurrency", "How many files of a block are sent at once.").Default("5").
		SetValue(whole[int]{&concurrency})
	bindOutput(c, &output, "text, or json, a line for each block")
	return func(b *builder) {
		if external.IsEmpty() {
			b.check(errors.New("--label is needed: the external labels say which stream the blocks are of"))
		}
		if _, err := os.ReadDir(dir); err != nil {
			b.check(fmt.Errorf("--path: %w", err))
		}
		bkt := bucket.build(b)
		b.runChangingTool(bkt, func(ctx context.Context) error {
			blocks, err := ship.Dir(dir)()
			if err != nil {
				return err
			}
			chosen, left, err := chooseUploads(ctx, b, bkt, blocks, external, compacted)
			if err != nil {
				return err
			}
			chosen, deleted, err := withoutDeleted(ctx, bkt, chosen, external)
			if err != nil {
				return err
			}
			left = append(left, deleted...)
			s, err := ship.New(b.log, ship.NewMetrics(nil, ""), bkt, func() ([]ship.Block, error) { return chosen, nil },
				ship.Options{
					Record: filepath.Join(dir, ship.RecordName), Timeout: uploadTimeout, Retry: time.Second,
					Origin: func(of ship.Block) block.Thanos { return originOf(of, external) },
					Upload: block.UploadOptions{Concurrency: concurrency},
				})
			if err != nil {
				return err
			}
			return uploadBlocks(ctx, b, s, chosen, left, output)
		})
	}
}

// uploadOutcome is what a tool did with a local block.
type uploadOutcome struct {
	Block  ulid.ULID `json:"block"`
	Result string    `json:"result"` // done, already, refused, skipped, failed
	Why    string    `json:"why,omitempty"`
}

// chooseUploads are the blocks that are to be uploaded, and those that are not.
func chooseUploads(ctx context.Context, b *builder, bkt objstore.BucketReader, blocks []ship.Block,
	external labels.Labels, compacted bool) (chosen []ship.Block, left []uploadOutcome, err error) {
	var there block.View
	for _, of := range blocks {
		switch level := of.Meta.Compaction.Level; {
		case of.Fault != nil:
			chosen = append(chosen, of)
		case of.Meta.Stats.NumSamples == 0:
			left = append(left, uploadOutcome{of.ID, "skipped", "it has no samples"})
		case level > 1 && !compacted:
			left = append(left, uploadOutcome{of.ID, "skipped", "it was compacted, and --shipper.upload-compacted is not set"})
		case level > 1:
			if there.Metas == nil {
				if there, err = listToolBlocks(ctx, b, bkt, block.FetcherOptions{}); err != nil {
					return nil, nil, err
				}
			}
			origin := originOf(of, external)
			if other := ship.Overlapping(there, of, origin); other != nil {
				left = append(left, uploadOutcome{of.ID, "refused",
					fmt.Sprintf("it overlaps with block %s in the bucket", other.ULID)})
				continue
			}
			chosen = append(chosen, of)
		default:
			chosen = append(chosen, of)
		}
	}
	return chosen, left, nil
}

// withoutDeleted takes out the blocks of tenants that operators asked to delete from the bucket.
func withoutDeleted(ctx context.Context, bkt objstore.BucketReader, blocks []ship.Block,
	external labels.Labels) (kept []ship.Block, refused []uploadOutcome, err error) {
	requests, err := deletion.NewReader(bkt).Read(ctx)
	if err != nil || len(requests.Entries()) == 0 {
		return blocks, nil, err
	}
	of, err := block.ReadIdentity(ctx, bkt)
	if err != nil {
		return nil, nil, err
	}
	v := block.View{Requests: requests}
	for _, b := range blocks {
		m := &block.Meta{BlockMeta: b.Meta, Thanos: originOf(b, external)}
		m.ULID = b.ID
		if e := v.TakenBy(m, of.TenantLabel, time.Now()); e != nil {
			refused = append(refused, uploadOutcome{b.ID, "refused",
				fmt.Sprintf("tenant %q is deleted (request %s)", e.Tenant, e.ID)})
			continue
		}
		kept = append(kept, b)
	}
	return kept, refused, nil
}

// originOf is Thanos's part of the meta.json that a block gets: what the local one says, with the labels external.
func originOf(of ship.Block, external labels.Labels) (origin block.Thanos) {
	if f, err := os.Open(filepath.Join(of.Dir, block.MetaName)); err == nil {
		defer f.Close()
		if m, err := block.ReadMeta(f, of.ID); err == nil {
			origin = m.Thanos
		}
	}
	origin.Source = block.SourceUpload
	origin.UploadTime = time.Time{}
	origin.Labels = maps.Clone(origin.Labels)
	if origin.Labels == nil {
		origin.Labels = map[string]string{}
	}
	external.Range(func(l labels.Label) { origin.Labels[l.Name] = l.Value })
	return origin
}

// uploadBlocks ships the chosen blocks, and writes what became true of these and of those that are left.
func uploadBlocks(ctx context.Context, b *builder, s *ship.Shipper, chosen []ship.Block, left []uploadOutcome,
	output string) error {
	outcomes := slices.Clone(left)
	already := map[ulid.ULID]bool{}
	for _, of := range chosen {
		already[of.ID] = s.Shipped(of.ID)
	}
	shipErr := s.Ship(ctx, true)
	uploaded, refused := 0, 0
	for _, of := range chosen {
		o := uploadOutcome{Block: of.ID, Result: "done"}
		switch {
		case already[of.ID]:
			o.Result = "already"
		case !s.Shipped(of.ID):
			o.Result = "failed"
		default:
			uploaded++
		}
		outcomes = append(outcomes, o)
	}
	for _, o := range outcomes {
		if o.Result == "refused" {
			refused++
		}
		if err := writeOutcome(b.stdout, output, o); err != nil {
			return err
		}
	}
	b.log.Info("synced blocks", "uploaded", uploaded)
	if refused > 0 {
		return errors.Join(shipErr, errs.E(errs.Conflict, "%d blocks were refused", refused))
	}
	return shipErr
}

func writeOutcome(w io.Writer, output string, o uploadOutcome) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(o)
	}
	_, err := fmt.Fprintf(w, "%s %s", o.Result, o.Block)
	if err == nil && o.Why != "" {
		_, err = fmt.Fprintf(w, ": %s", o.Why)
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	return err
}
