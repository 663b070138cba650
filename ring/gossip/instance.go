package gossip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// InstanceFile is the name of the file in the data directory that says who this process is.
const InstanceFile = "hearth-instance.json"

// numTokens is the number of tokens of a new instance. With 128 tokens, one in each 128th of the circle, the shares
// of members differ by a few percent, and a ring entry stays below a kilobyte.
const numTokens = 128

// Instance is the identity of a process and of the data on its disk.
type Instance struct {
	// ID is unique in the cluster.
	ID string
	// Tokens are the member's points on the ring, sorted. They survive restarts, so that no series moves.
	Tokens []uint32
	// Since is when the data directory began, in whole seconds: this member holds nothing older.
	Since time.Time
	// dir is the data directory that LoadInstance read, "" for an instance of NewInstance. The cluster's history is kept
	// there too.
	dir string
}

// instanceJSON is the form of InstanceFile.
type instanceJSON struct {
	ID     string   `json:"id"`
	Tokens []uint32 `json:"tokens"`
	Since  int64    `json:"since"` // Unix seconds
}

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,149}$`)

// LoadInstance reads the identity that is kept in dir. If there is none it makes one and keeps it there. id is the id
// to use; "" means the id on disk or, for a new instance, the host's name and four random characters. It returns
// errs.Invalid if the file names another id or is not valid. It never replaces an identity, since data would change
// its owner.
func LoadInstance(dir, id string) (Instance, error) {
	path := filepath.Join(dir, InstanceFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createInstance(dir, id)
	}
	if err != nil {
		return Instance{}, fmt.Errorf("read instance: %w", err)
	}
	in, err := parseInstance(content)
	if err != nil {
		return Instance{}, errs.E(errs.Invalid, "%s: %w; restore it, or remove it to begin as a new member", path, err)
	}
	if id != "" && id != in.ID {
		return Instance{}, errs.E(errs.Invalid, "%s belongs to instance %q, not to %q; a data directory keeps its id",
			path, in.ID, id)
	}
	in.dir = dir
	return in, nil
}

// parseInstance reads the content of InstanceFile.
func parseInstance(content []byte) (Instance, error) {
	dec := json.NewDecoder(bytes.NewReader(content))
	var f instanceJSON
	if err := dec.Decode(&f); err != nil {
		return Instance{}, err
	}
	if dec.More() {
		return Instance{}, errors.New("more than one JSON value")
	}
	in := Instance{ID: f.ID, Tokens: f.Tokens, Since: time.Unix(f.Since, 0)}
	return in, in.validate()
}

func (in Instance) validate() error {
	var faults []error
	if !validID.MatchString(in.ID) {
		faults = append(faults, fmt.Errorf("instance id %q is not valid", in.ID))
	}
	if len(in.Tokens) == 0 {
		faults = append(faults, errors.New("instance has no tokens"))
	}
	if len(in.Tokens) > maxTokens {
		faults = append(faults, fmt.Errorf("instance has %d tokens, more than %d", len(in.Tokens), maxTokens))
	}
	for i := 1; i < len(in.Tokens); i++ {
		if in.Tokens[i-1] >= in.Tokens[i] {
			faults = append(faults, errors.New("instance tokens are not sorted and distinct"))
			break
		}
	}
	if in.Since.Unix() <= 0 {
		faults = append(faults, errors.New("instance has no start time"))
	} else if !validTime(in.Since.Unix(), time.Now().Unix()) {
		faults = append(faults, fmt.Errorf("instance starts at second %d, which no clock shows", in.Since.Unix()))
	}
	return errors.Join(faults...)
}

// NewInstance makes an identity that is kept nowhere, for a process without data. id is as in LoadInstance;
// errs.Invalid if it is not valid.
func NewInstance(id string) (Instance, error) {
	if id == "" {
		id = newID()
	}
	if !validID.MatchString(id) {
		return Instance{}, errs.E(errs.Invalid, "instance id %q: want 1 to 150 letters, digits, '.', '_' or '-'", id)
	}
	return Instance{ID: id, Tokens: randomTokens(numTokens), Since: time.Unix(time.Now().Unix(), 0)}, nil
}

// newID is the host's name and four random characters.
func newID() string {
	host, err := os.Hostname()
	if err != nil || !validID.MatchString(host) || len(host) > 140 {
		host = "hearth"
	}
	return host + "-" + randomText(4)
}

func createInstance(dir, id string) (Instance, error) {
	in, err := NewInstance(id)
	if err != nil {
		return Instance{}, err
	}
	in.dir = dir
	content := append(mustJSON(instanceJSON{ID: in.ID, Tokens: in.Tokens, Since: in.Since.Unix()}), '\n')
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return Instance{}, fmt.Errorf("keep instance: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, InstanceFile), content, 0o600); err != nil {
		return Instance{}, fmt.Errorf("keep instance: %w", err)
	}
	// Two processes that start at once on one new directory may both have written.
	if kept, err := os.ReadFile(filepath.Join(dir, InstanceFile)); err != nil || !bytes.Equal(kept, content) {
		return Instance{}, errs.E(errs.Conflict, "keep instance: another process uses this directory, too")
	}
	return in, nil
}

// randomTokens returns n sorted distinct tokens: a random one in each n-th of the circle.
func randomTokens(n int) []uint32 {
	arc := uint64(1<<32) / uint64(n)
	tokens := make([]uint32, n)
	for i := range tokens {
		tokens[i] = uint32(uint64(i)*arc + rand.Uint64N(arc))
	}
	return tokens
}

func randomText(n int) string {
	const chars = "abcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = chars[rand.IntN(len(chars))]
	}
	return string(b)
}

// tokens returns a copy of in's tokens: the KV store owns the values that it gets.
func (in Instance) tokens() []uint32 { return slices.Clone(in.Tokens) }
