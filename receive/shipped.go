package receive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// shippedName is the file in a tenant's directory that lists its blocks in the bucket, as Thanos writes it.
const shippedName = "thanos.shipper.json"

type shippedFile struct {
	Version  int         `json:"version"`
	Uploaded []ulid.ULID `json:"uploaded"`
}

// readShipped never returns nil; without a file nothing is shipped.
func readShipped(dir string) (map[ulid.ULID]bool, error) {
	out := map[ulid.ULID]bool{}
	b, err := os.ReadFile(filepath.Join(dir, shippedName))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	var f shippedFile
	if err := json.Unmarshal(b, &f); err != nil {
		return out, err
	}
	if f.Version != 1 {
		return out, fmt.Errorf("version %d is not known", f.Version)
	}
	for _, id := range f.Uploaded {
		out[id] = true
	}
	return out, nil
}

// writeShipped replaces the file atomically.
func writeShipped(dir string, ids []ulid.ULID) error {
	b, err := json.MarshalIndent(shippedFile{Version: 1, Uploaded: ids}, "", "\t")
	if err != nil {
		return errs.E(errs.Internal, "encode %s: %w", shippedName, err)
	}
	path := filepath.Join(dir, shippedName)
	if err := atomicfile.Write(path, append(b, '\n'), 0o666); err != nil {
		return errs.E(errs.Internal, "write %s: %w", shippedName, err)
	}
	return nil
}
