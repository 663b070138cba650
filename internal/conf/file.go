package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// maxFile bounds a configuration file in bytes.
const maxFile = 64 << 20

// ReadFile is the content of a configuration file. The error names it, and says what is wrong in plain words.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fileError(path, err)
	case len(raw) > maxFile:
		return nil, fmt.Errorf("%s: is larger than %d MiB: not a configuration file", path, maxFile>>20)
	}
	return raw, nil
}

// fileError is err, of the file at path, in plain words. errors.Is still finds err in it.
func fileError(path string, err error) error {
	why := err.Error()
	var of *fs.PathError
	if errors.As(err, &of) {
		why = of.Err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		why = "this process may not read it: look at its owner and mode"
	case errors.Is(err, syscall.EISDIR):
		why = "is a directory; a file is expected"
	}
	return &readError{text: path + ": " + why, cause: err}
}

// readError has a text of its own instead of its cause's.
type readError struct {
	text  string
	cause error
}

func (e *readError) Error() string { return e.text }

func (e *readError) Unwrap() error { return e.cause }
