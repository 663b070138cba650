package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Program is the first of the paths at which there is a file. It is made absolute, since programs run in other
// directories, and is "" if there is none.
func Program(paths ...string) (string, error) {
	for _, path := range paths {
		_, err := os.Stat(path)
		if err == nil {
			return filepath.Abs(path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}
