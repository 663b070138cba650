package gossip

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/hearth-metrics/hearth/internal/atomicfile"
)

// HistoryFile is the name of the file beside InstanceFile that keeps the history of receivers. Without it the history
// would be lost when all members stop at once. It is a copy, so it may be removed while another member runs.
const HistoryFile = "hearth-history.json"

// savedHistory is the content of the file.
type savedHistory struct {
	Incarnations map[string]incarnation `json:"incarnations"`
	Shardings    map[string]usage       `json:"shardings,omitempty"`
	Factors      map[string]usage       `json:"factors,omitempty"`
}

// loadHistory merges the history on disk into the gossiped one. A history that cannot be read does not stop the
// process. Queries about the past may then miss a warning, so that is logged as an error.
func (g *Gossip) loadHistory(ctx context.Context) error {
	path := g.historyPath()
	if path == "" {
		return nil
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	kept := savedHistory{}
	if err == nil {
		err = json.Unmarshal(content, &kept)
	}
	if err != nil {
		g.log.Error("history of receivers not read, past incomplete answers may go unnoticed", "path", path, "err", err)
		return nil
	}
	checked := newCluster()
	read := &cluster{Incarnations: kept.Incarnations, Shardings: kept.Shardings, Factors: kept.Factors}
	checked.take(read, g.opts.Now().Unix())
	return g.edit(ctx, func(c *cluster, now time.Time) (changed bool) {
		for key, i := range checked.Incarnations {
			old, ok := c.Incarnations[key]
			expired := i.Until != 0 && i.Expires < now.Unix()
			if !expired && (!ok || newer(i, old, i.Updated, old.Updated)) {
				c.Incarnations[key] = i
				changed = true
			}
		}
		news := newCluster()
		expired := func(_ string, s usage) bool { return s.Expires < now.Unix() }
		maps.DeleteFunc(checked.Shardings, expired)
		maps.DeleteFunc(checked.Factors, expired)
		joinAll(c.Shardings, checked.Shardings, news.Shardings, maxShardings)
		joinAll(c.Factors, checked.Factors, news.Factors, maxRF)
		return changed || len(news.Shardings)+len(news.Factors) > 0
	})
}

// saveHistory writes the history to disk if it changed, and returns what the file now holds. was is what the last
// call returned.
func (g *Gossip) saveHistory(was string) string {
	path := g.historyPath()
	if path == "" {
		return was
	}
	c := g.snapshot.Load().cluster
	is := string(mustJSON(savedHistory{c.Incarnations, c.Shardings, c.Factors}))
	if is == was {
		return was
	}
	if err := atomicfile.Write(path, []byte(is+"\n"), 0o600); err != nil {
		g.log.Warn("history of receivers not kept", "path", path, "err", err)
		return was
	}
	return is
}

func (g *Gossip) historyPath() string {
	if g.opts.Instance.dir == "" {
		return ""
	}
	return filepath.Join(g.opts.Instance.dir, HistoryFile)
}
