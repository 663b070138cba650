package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

func bucketIndexCommand() command {
	return command{
		name: "tools bucket index",
		help: "Write the index of a bucket, with which store gateways start without reading each block's meta.json. It may " +
			"run at any time, and in several processes at once.",
		first:   []string{"objstore.config-file"},
		subject: subject{"Output", []string{"output"}},
		bind:    bindBucketIndex,
	}
}

func bindBucketIndex(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket toolBucketFlags
		output string
	)
	bucket.bind(c)
	bindOutput(c, &output, "text or json")
	return func(b *builder) {
		bkt := bucket.build(b)
		b.runTool(func(ctx context.Context) error {
			fetcher := block.NewFetcher(bkt, block.FetcherOptions{Progress: b.progress("reading meta.json files and marks")})
			b.log.Info("listing the bucket", "bucket", bkt.Name())
			pass, err := fetcher.WriteIndex(ctx, bkt)
			if err != nil && pass.View.Hash == "" {
				return err
			}
			if output == "json" {
				return errors.Join(err, writeIndexPass(b.stdout, pass))
			}
			printIndexPass(b.stdout, pass)
			return err
		})
	}
}

// writeIndexPass writes what a pass found and did as JSON.
func writeIndexPass(w io.Writer, pass block.IndexPass) error {
	v := pass.View
	return json.NewEncoder(w).Encode(struct {
		View         uint64 `json:"view"`
		Hash         string `json:"hash"`
		Bytes        int64  `json:"bytes"`
		Changed      bool   `json:"changed"`
		Overtaken    bool   `json:"overtaken"`
		Blocks       int    `json:"blocks"`
		Added        int    `json:"added"`
		Removed      int    `json:"removed"`
		Deletions    int    `json:"deletionMarks"`
		NoCompact    int    `json:"noCompactMarks"`
		NoDownsample int    `json:"noDownsampleMarks"`
		Partial      int    `json:"partial"`
		MarkFaults   int    `json:"markFaults"`
	}{v.Number, v.Hash, pass.Size, pass.Changed, pass.Overtaken, len(v.Metas), pass.Added, pass.Removed, len(v.Deletions),
		len(v.NoCompact), len(v.NoDownsample), len(v.Partial), len(v.MarkFaults)})
}

// printIndexPass says what a pass found and did.
func printIndexPass(w io.Writer, pass block.IndexPass) {
	v := pass.View
	switch {
	case pass.Overtaken:
		fmt.Fprintf(w, "Another process has written a later index: view %d stays.\n", v.Number)
	case pass.Changed:
		fmt.Fprintf(w, "Wrote view %d, %d bytes, hash %s.\n", v.Number, pass.Size, v.Hash)
	default:
		fmt.Fprintf(w, "Nothing has changed since view %d was written.\n", v.Number)
	}
	fmt.Fprintf(w, "%d blocks: %d are new in the index, %d are gone from it.\n", len(v.Metas), pass.Added, pass.Removed)
	fmt.Fprintf(w, "Marks: %d for deletion, %d against compaction, %d against downsampling.\n", len(v.Deletions),
		len(v.NoCompact), len(v.NoDownsample))
	if pass.Contents+pass.Copies > 0 {
		fmt.Fprintf(w, "Removed: %d old indexes, %d copies of marks that other tools removed.\n", pass.Contents, pass.Copies)
	}
	if v.IndexFault != nil {
		fmt.Fprintf(w, "The index of before could not be read: %v.\n", v.IndexFault)
	}
	leftovers := 0
	for _, id := range slices.SortedFunc(maps.Keys(v.Partial), ulid.ULID.Compare) {
		if err := v.Partial[id]; errs.KindOf(err) == errs.NotFound {
			leftovers++
		} else {
			fmt.Fprintf(w, "Block %s is left out: %v.\n", id, strings.TrimSuffix(err.Error(), "."))
		}
	}
	for _, object := range slices.Sorted(maps.Keys(v.MarkFaults)) {
		fmt.Fprintf(w, "A mark is left out: %v.\n", v.MarkFaults[object])
	}
	if leftovers > 0 {
		fmt.Fprintf(w, "%d directories have no meta.json: their upload or deletion is under way, or was broken off.\n",
			leftovers)
	}
}
