package block

import (
	"os"
	"path/filepath"
	"time"

	"github.com/hearth-metrics/hearth/block/bucketindex"
	"github.com/hearth-metrics/hearth/internal/atomicfile"
)

// metaFile keeps what a Fetcher knows over a restart.
const metaFile = "metas"

// The local file is written when at least saveMetas metas were read since the last time, and else every saveEvery. It
// is written as a whole, which takes a second of CPU for 100,000 blocks.
const (
	saveMetas = 100
	saveEvery = 10 * time.Minute
)

// load reads the local file, at the first fetch. Without a good one everything is read from the bucket.
func (f *Fetcher) load() {
	if f.started || f.opts.CacheDir == "" {
		return
	}
	f.started = true
	b, err := os.ReadFile(filepath.Join(f.opts.CacheDir, metaFile))
	if err != nil {
		return
	}
	p, content, err := bucketindex.DecodeFile(b)
	if err != nil {
		return
	}
	rest, _, err := f.decode(content)
	if err == nil && p.Number > 0 {
		f.take(p, rest, -1) // the file may have other blocks than that index
	}
}

// save writes the local file, if enough has changed since it was written.
func (f *Fetcher) save() {
	now := f.opts.Now()
	if f.opts.CacheDir == "" || f.unsaved == 0 || f.unsaved < saveMetas && now.Sub(f.saved) < saveEvery {
		return
	}
	var ix bucketindex.Index
	var p bucketindex.Pointer
	for _, m := range f.known {
		ix.Blocks = append(ix.Blocks, m.essential())
	}
	if f.index != nil {
		p, ix.Rest = f.index.pointer, f.index.rest
	}
	ix.Sort()
	if content, err := bucketindex.Encode(ix); err == nil {
		f.write(p, content)
	}
}

// write replaces the local file. A file that cannot be written costs reads after a restart, and is no error.
func (f *Fetcher) write(p bucketindex.Pointer, content []byte) {
	f.saved, f.unsaved = f.opts.Now(), 0
	if f.opts.CacheDir == "" || os.MkdirAll(f.opts.CacheDir, 0o777) != nil {
		return
	}
	_ = atomicfile.Write(filepath.Join(f.opts.CacheDir, metaFile), bucketindex.EncodeFile(p, content), 0o666)
}
