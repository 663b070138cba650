package tsdb

import (
	"os"
	"path/filepath"
)

// exemplarsName is the file that says of a tenant that it has had exemplars. Room for them is made when the first one
// comes, and from then on before the logs, which may hold some, are replayed.
const exemplarsName = "exemplars"

func hasExemplars(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, exemplarsName))
	return err == nil
}

// keepExemplars makes room for exemplars unless there is.
func (in *instance) keepExemplars() error {
	if in.exemplars.Load() {
		return nil
	}
	in.adopting.Lock()
	defer in.adopting.Unlock()
	if in.exemplars.Load() {
		return nil
	}
	if err := os.WriteFile(filepath.Join(in.db.Dir(), exemplarsName), nil, 0o666); err != nil {
		return err
	}
	in.exemplars.Store(true)
	return in.configure(in.rules.Load())
}
