package frontend

import (
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// CacheConfig is Thanos's YAML of --query-range.response-cache-config.
type CacheConfig struct {
	// MaxBytes is the memory of the cache; MaxItem the largest value, 0 = not said. Validity is how long values are
	// used, 0 = as long as they hold.
	MaxBytes, MaxItem int64
	Validity          time.Duration
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
	p.Mapping(p.Document(content), "", map[string]func(*yaml.Node){
		"type":       func(n *yaml.Node) { p.Decode(n, &kind); checkType(&p, n, kind) },
		"config":     func(n *yaml.Node) { config = n },
		"expiration": func(n *yaml.Node) { p.Decode(n, &expiration) },
	})
	if config != nil && p.Err() == nil && p.Check(config, "config: ", of) {
		p.Decode(config, &of)
	}
	out = CacheConfig{MaxBytes: int64(of.MaxSize), Validity: max(of.Validity, expiration)}
	if out.MaxBytes == 0 {
		out.MaxBytes = DefaultCacheBytes
	}
	return out, errs.Wrap(errs.Invalid, p.Err())
}

// DefaultCacheBytes is the memory of a cache of which nothing is said.
const DefaultCacheBytes = 128 << 20

func checkType(p *conf.Parser, n *yaml.Node, kind string) {
	if kind != "IN-MEMORY" {
		p.Fault(n, "type %q: only IN-MEMORY is known", kind)
	}
}
