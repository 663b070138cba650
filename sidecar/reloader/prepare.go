package reloader

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Bounds of what is read.
const (
	maxConfig    = 64 << 20  // bytes of a configuration, unpacked
	maxRuleBytes = 512 << 20 // bytes of all rule files together
	maxRuleFiles = 100_000
)

// prepare reads all files and writes the output, if it is to be another than it is. hash is that of all that was read.
// unset is how many variables have no value.
func (o Options) prepare() (sum []byte, unset int, err error) {
	h := sha256.New()
	if o.ConfigFile != "" {
		content, err := readBounded(o.ConfigFile, maxConfig)
		if err != nil {
			return nil, 0, err
		}
		h.Write(content)
		if o.OutputFile != "" {
			if unset, err = o.write(content); err != nil {
				return nil, unset, err
			}
		}
	}
	left := bounds{bytes: maxRuleBytes, files: maxRuleFiles}
	for _, dir := range o.RuleDirs {
		if err := hashDir(h, dir, &left); err != nil {
			return nil, 0, fmt.Errorf("rules in %s: %w", dir, err)
		}
	}
	return h.Sum(nil), 0, nil
}

// write makes the output of the configuration.
func (o Options) write(content []byte) (unset int, err error) {
	content, err = unpack(content)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", o.ConfigFile, err)
	}
	content, missing := expand(content, o.Variable)
	if len(missing) > 0 {
		return len(missing), fmt.Errorf("%s: environment variables are not set: %s", o.ConfigFile,
			strings.Join(missing, ", "))
	}
	if there, err := os.Lstat(o.OutputFile); err == nil && there.Mode().IsRegular() && there.Mode().Perm() == outputMode &&
		there.Size() == int64(len(content)) {
		if now, err := os.ReadFile(o.OutputFile); err == nil && bytes.Equal(now, content) {
			return 0, nil
		}
	}
	return 0, replace(o.OutputFile, content)
}

// outputMode lets the owner alone read the output.
const outputMode fs.FileMode = 0o600

// replace writes a file as a whole. A link of that name is replaced, and nothing is written where it points to: the
// temporary file is a new one, whatever is in the directory.
func replace(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp") // only the owner may read it
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// unpack is content without gzip, if it is packed.
func unpack(content []byte) ([]byte, error) {
	if !bytes.HasPrefix(content, []byte{0x1f, 0x8b, 0x08}) {
		return content, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	if len(out) > maxConfig {
		return nil, fmt.Errorf("gzip: it has more than %d bytes unpacked", maxConfig)
	}
	return out, nil
}

// variable is a reference to an environment variable, in the form of Kubernetes. $NAME and ${NAME} are left to
// Prometheus, whose own configuration uses them.
var variable = regexp.MustCompile(`\$\(([a-zA-Z_0-9]+)\)`)

// expand replaces variables by their values. missing are the names of those that have none, each once and sorted.
func expand(content []byte, lookup func(string) (string, bool)) (out []byte, missing []string) {
	out = variable.ReplaceAllFunc(content, func(found []byte) []byte {
		name := string(found[2 : len(found)-1])
		value, ok := lookup(name)
		if !ok {
			missing = append(missing, name)
		}
		return []byte(value)
	})
	slices.Sort(missing)
	return out, slices.Compact(missing)
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a file", path))
	}
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return content, err
}

// bounds is how much more may be read.
type bounds struct {
	bytes int64
	files int
}

// hashDir adds all files below dir to h, with their names and in a fixed order. Links to files are followed.
// Directories whose names begin with .. are left out: Kubernetes keeps the files there that links beside them point to.
func hashDir(h hash.Hash, dir string, left *bounds) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if path != root && strings.HasPrefix(e.Name(), "..") {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() { // a link to a directory, a socket
			return nil
		}
		if left.files--; left.files < 0 {
			return fmt.Errorf("there are more than %d files", maxRuleFiles)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return hashFile(h, path, rel, left)
	})
}

// hashFile adds a file under a name. Lengths go before name and content, so that no two sets of files are alike.
func hashFile(h hash.Hash, path, name string, left *bounds) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	own := sha256.New()
	n, err := io.Copy(own, io.LimitReader(f, left.bytes+1))
	if err != nil {
		return err
	}
	if left.bytes -= n; left.bytes < 0 {
		return fmt.Errorf("the files have more than %d bytes", maxRuleBytes)
	}
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
	h.Write([]byte(name))
	h.Write(own.Sum(nil))
	return nil
}
