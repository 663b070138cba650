package ship

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// RecordName is the usual name of the record: the file beside the blocks that lists those that are in the bucket. Its
// form is Thanos's.
const RecordName = "thanos.shipper.json"

type record struct {
	Version  int         `json:"version"`
	Uploaded []ulid.ULID `json:"uploaded"`
}

// readRecord returns the blocks that the record at path lists, none when there is no record.
func readRecord(path string) (uploaded map[ulid.ULID]bool, err error) {
	uploaded = map[ulid.ULID]bool{}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return uploaded, nil
	}
	if err != nil {
		return uploaded, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return uploaded, err
	}
	if r.Version != 1 {
		return uploaded, fmt.Errorf("version %d is not known", r.Version)
	}
	for _, id := range r.Uploaded {
		uploaded[id] = true
	}
	return uploaded, nil
}

// writeRecord replaces the record at path. Errors are of kind Internal.
func writeRecord(path string, uploaded []ulid.ULID) error {
	b, err := json.MarshalIndent(record{Version: 1, Uploaded: uploaded}, "", "\t")
	if err == nil {
		err = atomicfile.Write(path, append(b, '\n'), 0o666)
	}
	if err != nil {
		return errs.E(errs.Internal, "write the list of shipped blocks: %w", err)
	}
	return nil
}
