package frontend

import (
	"cmp"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// CacheConfig is Thanos's YAML of --query-range.response-cache-config.
type CacheConfig struct {
	// MaxBytes is the memory of the cache, and MaxItems how many values it may have, 0 = any number. Validity is how long
	// values are used, 0 = as long as they hold.
	MaxBytes int64
	MaxItems int
	Validity time.Duration
}

// ReadCacheConfig reads the YAML; name is what errors call it. Errors are of kind Invalid.
func ReadCacheConfig(name string, content []byte) (out CacheConfig, err error) {
	p := conf.Parser{Name: name}
	kind := ""
	var of struct {
		MaxSize  conf.Bytes    `yaml:"max_size"`
		MaxItems int           `yaml:"max_size_items"`
		Validity time.Duration `yaml:"validity"`
	}
	expiration := time.Duration(0)
	var config *yaml.Node
	root := cmp.Or(p.Document(content), &yaml.Node{Kind: yaml.MappingNode})
	p.Mapping(root, "", map[string]func(*yaml.Node){
		"type":       func(n *yaml.Node) { p.Decode(n, &kind) },
		"config":     func(n *yaml.Node) { config = n },
		"expiration": func(n *yaml.Node) { p.Decode(n, &expiration) },
	})
	if kind != "IN-MEMORY" && p.Err() == nil {
		p.Fault(root, "type %q: only IN-MEMORY is known", kind)
	}
	if config != nil && p.Err() == nil && p.Check(config, "config: ", of) {
		p.Decode(config, &of)
	}
	out = CacheConfig{MaxBytes: int64(of.MaxSize), MaxItems: max(of.MaxItems, 0), Validity: max(of.Validity, expiration)}
	if out.MaxBytes == 0 {
		out.MaxBytes = DefaultCacheBytes
	}
	return out, errs.Wrap(errs.Invalid, p.Err())
}

// DefaultCacheBytes is the memory of a cache of which nothing is said.
const DefaultCacheBytes = 128 << 20
