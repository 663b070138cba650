package blocks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
)

// Write makes the bucket of p in dir, which is created. Blocks that are there already are an error.
func Write(ctx context.Context, dir string, p Plan) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.NumCPU())
	for i := range p.windows() {
		work.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return p.writeWindow(ctx, dir, i)
		})
	}
	if p.Large != nil {
		for _, resolution := range resolutions {
			work.Go(func() error { return p.writeLarge(ctx, dir, resolution) })
		}
	}
	return work.Wait()
}

// resolutions of the large blocks, in ms.
var resolutions = []int64{0, 300_000, 3_600_000}

// writeWindow writes the small blocks of one window: the first tenant's, whose files the other tenants' blocks share.
func (p Plan) writeWindow(ctx context.Context, dir string, i int) error {
	when := p.window(i)
	first := p.id(when.maxt, 0)
	c := content{seed: p.Seed + uint64(i), shape: p.Shape, when: when, interval: p.Interval.Milliseconds()}
	meta, err := c.write(ctx, filepath.Join(dir, first.String()))
	if err != nil {
		return fmt.Errorf("window %d: %w", i, err)
	}
	meta.Thanos.Source = block.SourceReceive
	for t := range p.Tenants {
		id := p.id(when.maxt, uint64(t))
		if t > 0 {
			if err := share(dir, first, id, meta.Thanos.Files); err != nil {
				return fmt.Errorf("block %s: %w", id, err)
			}
		}
		if err := finish(dir, id, *meta, identity{Tenant(t), "0"}); err != nil {
			return err
		}
	}
	return nil
}

func (p Plan) writeLarge(ctx context.Context, dir string, resolution int64) error {
	when := span{p.End.Add(-p.Large.Range).UnixMilli(), p.End.UnixMilli()}
	id := p.id(when.maxt, math.MaxUint64, uint64(resolution))
	c := content{seed: p.Seed, shape: p.Large.Shape, when: when, interval: p.Large.Interval.Milliseconds(),
		resolution: resolution}
	meta, err := c.write(ctx, filepath.Join(dir, id.String()))
	if err != nil {
		return fmt.Errorf("large block of resolution %d: %w", resolution, err)
	}
	meta.Thanos.Source, meta.Thanos.Downsample.Resolution = block.SourceCompactor, resolution
	meta.Compaction.Level = 4
	for i := range int(p.Large.Range / (2 * time.Hour)) {
		meta.Compaction.Sources = append(meta.Compaction.Sources, p.id(when.mint+int64(i+1)*7_200_000, math.MaxUint64))
	}
	return finish(dir, id, *meta, identity{LargeTenant, "0"})
}

// content is the series and samples of a block.
type content struct {
	seed       uint64
	shape      Shape
	when       span
	interval   int64 // ms
	resolution int64 // ms
	edit       edit  // of raw samples
}

// write writes index and chunks into dir. The result is the block's meta.json without id, labels and source.
func (c content) write(ctx context.Context, dir string) (meta *block.Meta, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	cw, err := chunks.NewWriter(filepath.Join(dir, block.ChunksName))
	if err != nil {
		return nil, err
	}
	iw, err := index.NewWriter(ctx, filepath.Join(dir, block.IndexName))
	if err != nil {
		return nil, errors.Join(err, cw.Close())
	}
	meta = &block.Meta{BlockMeta: tsdb.BlockMeta{Version: 1, MinTime: c.when.mint, MaxTime: c.when.maxt,
		Compaction: tsdb.BlockMetaCompaction{Level: 1}}}
	err = c.fill(iw, cw, &meta.Stats)
	if err := errors.Join(err, cw.Close(), iw.Close()); err != nil {
		return nil, err
	}
	if meta.Thanos.Files, meta.Thanos.SegmentFiles, err = block.FilesOf(dir); err != nil {
		return nil, err
	}
	measured, err := block.Measure(ctx, dir)
	if err != nil {
		return nil, err
	}
	meta.Thanos.IndexStats = measured.IndexStats
	return meta, nil
}

// fill adds all series with their chunks.
func (c content) fill(iw *index.Writer, cw *chunks.Writer, stats *tsdb.BlockStats) error {
	made, err := c.prototypes()
	if err != nil {
		return err
	}
	for _, s := range c.shape.symbols() {
		if err := iw.AddSymbol(s); err != nil {
			return err
		}
	}
	var own []chunks.Meta
	return c.shape.each(func(i, metric int, ls labels.Labels) error {
		p := made[native(metric)][i%prototypes]
		if len(p.chunks) == 0 {
			return nil
		}
		own = append(own[:0], p.chunks...) // the writer puts their references in
		if err := cw.WriteChunks(own...); err != nil {
			return err
		}
		stats.NumSeries++
		stats.NumChunks += uint64(len(own))
		stats.NumSamples += p.samples
		if native(metric) {
			stats.NumHistogramSamples += p.samples
		} else {
			stats.NumFloatSamples += p.samples
		}
		return iw.AddSeries(storage.SeriesRef(i+1), ls, own...)
	})
}

// prototypes are the sequences of samples that series take in turn, by whether they are native histograms.
func (c content) prototypes() (map[bool][]prototype, error) {
	out := map[bool][]prototype{}
	for _, isNative := range []bool{false, true} {
		for i := range prototypes {
			q := sequence{seed: c.seed<<8 + uint64(i), native: isNative, when: c.when, interval: c.interval, edit: c.edit}
			p, err := q.raw()
			if c.resolution > 0 {
				p, err = q.downsampled(c.resolution)
			}
			if err != nil {
				return nil, err
			}
			out[isNative] = append(out[isNative], p)
		}
	}
	return out, nil
}

// share makes the block id of the files of another one.
func share(dir string, from, id ulid.ULID, files []block.File) error {
	if err := os.MkdirAll(filepath.Join(dir, id.String(), block.ChunksName), 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if f.RelPath == block.MetaName {
			continue
		}
		rel := filepath.FromSlash(f.RelPath)
		source, target := filepath.Join(dir, from.String(), rel), filepath.Join(dir, id.String(), rel)
		if os.Link(source, target) == nil {
			continue
		}
		data, err := os.ReadFile(source) // a file system without hard links
		if err == nil {
			err = os.WriteFile(target, data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finish writes the block's meta.json, which makes it one.
func finish(dir string, id ulid.ULID, meta block.Meta, of identity) error {
	meta.ULID = id
	if len(meta.Compaction.Sources) == 0 {
		meta.Compaction.Sources = []ulid.ULID{id}
	}
	meta.Thanos.Labels = map[string]string{"receive_replica": of.replica, "tenant_id": of.tenant}
	meta.Thanos.UploadTime = time.UnixMilli(meta.MaxTime).UTC()
	f, err := os.OpenFile(filepath.Join(dir, id.String(), block.MetaName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(meta.Write(f), f.Close())
}
