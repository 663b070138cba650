package block

import (
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/client"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/bos"
	"github.com/thanos-io/objstore/providers/cos"
	"github.com/thanos-io/objstore/providers/filesystem"
	"github.com/thanos-io/objstore/providers/gcs"
	"github.com/thanos-io/objstore/providers/obs"
	"github.com/thanos-io/objstore/providers/oci"
	"github.com/thanos-io/objstore/providers/oss"
	"github.com/thanos-io/objstore/providers/s3"
	"github.com/thanos-io/objstore/providers/swift"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/gokit"
	"github.com/hearth-metrics/hearth/internal/secret"
)

// OpenBucket opens the bucket that a Thanos object-store YAML describes: any provider, $(VAR) replaced from the
// environment. name is what errors call the content, component names the client to the provider; reg may be nil. A
// faulty content is of kind Invalid. A FILESYSTEM directory may be relative to the working directory.
//
// What the object store refuses for good is an error that says what to do (see Refused), is logged once, and counted.
func OpenBucket(log *slog.Logger, reg prometheus.Registerer, name string, content []byte,
	component string) (objstore.InstrumentedBucket, error) {
	content, err := conf.ExpandEnv(name, content)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	content, hedged, err := checkConfig(name, content)
	if err != nil {
		return nil, err
	}
	if hedged {
		log.Warn("object store configuration: hedging_config has no effect")
	}
	bkt, err := newBucket(log, content, component)
	if err != nil {
		return nil, errs.E(errs.Invalid, "%s: %w", name, secret.Scrub(content, err, "type"))
	}
	metrics := reg
	if reg != nil {
		metrics = prometheus.WrapRegistererWithPrefix("thanos_", reg)
	}
	return objstore.WrapWithMetrics(newTelling(log, reg, bkt), metrics, bkt.Name()), nil
}

// newBucket makes the client of a configuration that was checked.
func newBucket(log *slog.Logger, content []byte, component string) (objstore.Bucket, error) {
	var c struct {
		Type   string            `yaml:"type"`
		Prefix string            `yaml:"prefix"`
		Config filesystem.Config `yaml:"config"` // of the others only the keys of this one are looked at
	}
	if err := yaml.Unmarshal(content, &c); err != nil {
		return nil, err
	}
	switch {
	case strings.ToUpper(c.Type) != string(objstore.FILESYSTEM):
		return client.NewBucket(gokit.NewQuiet(log, "objstore"), content, component, nil)
	case c.Config.Directory == "":
		return nil, errors.New("config: directory: is missing")
	}
	return newDirectory(c.Config.Directory, c.Prefix)
}

// providers are the types of object stores, each with what its config may hold.
var providers = map[objstore.ObjProvider]any{
	objstore.S3: s3.Config{}, objstore.GCS: gcs.Config{}, objstore.AZURE: azure.Config{},
	objstore.FILESYSTEM: filesystem.Config{},
	objstore.SWIFT:      swift.Config{}, objstore.COS: cos.Config{}, objstore.ALIYUNOSS: oss.Config{},
	objstore.BOS: bos.Config{},
	objstore.OCI: oci.Config{}, objstore.OBS: obs.Config{},
}

// checkConfig reports mistakes by line and key, which the client would report in its own words. It takes hedging_config
// out, since Thanos documents it and the client refuses it. hedged says that it was on.
func checkConfig(name string, content []byte) (out []byte, hedged bool, err error) {
	p := conf.Parser{Name: name}
	root := p.Document(content)
	if root == nil && p.Err() == nil {
		return nil, false, errs.E(errs.Invalid, "%s: is empty: type and config are needed", name)
	}
	kind, hedging := "", false
	var config *yaml.Node
	p.Mapping(root, "", map[string]func(*yaml.Node){
		"type":           func(n *yaml.Node) { kind = checkType(&p, n) },
		"config":         func(n *yaml.Node) { config = n },
		"prefix":         func(n *yaml.Node) { p.Check(n, "prefix: ", "") },
		"hedging_config": func(n *yaml.Node) { hedging, hedged = true, hedgingEnabled(n) },
	})
	if kind == "" && p.Err() == nil {
		p.Fault(root, "type: is missing: it names the object store, such as S3; known are %s",
			strings.Join(typeNames(), ", "))
	}
	if sample := providers[objstore.ObjProvider(kind)]; sample != nil && config != nil {
		p.Check(config, "config: ", sample)
	}
	if err := p.Err(); err != nil || !hedging {
		return content, hedged, errs.Wrap(errs.Invalid, err)
	}
	out, err = withoutKey(root, "hedging_config")
	return out, hedged, err
}

// checkType returns the type that n names, "" for one that does not exist.
func checkType(p *conf.Parser, n *yaml.Node) string {
	kind := strings.ToUpper(n.Value)
	if providers[objstore.ObjProvider(kind)] == nil {
		p.Fault(n, "type: there is no such object store%s", conf.Suggest(kind, typeNames()))
		return ""
	}
	return kind
}

// typeNames are all types, in order.
func typeNames() []string {
	var names []string
	for t := range providers {
		names = append(names, string(t))
	}
	slices.Sort(names)
	return names
}

// withoutKey is the YAML of mapping n without one key.
func withoutKey(n *yaml.Node, key string) ([]byte, error) {
	n = conf.Resolve(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			break
		}
	}
	return yaml.Marshal(n)
}

func hedgingEnabled(n *yaml.Node) bool {
	var h struct {
		Enabled bool `yaml:"enabled"`
	}
	return n.Decode(&h) == nil && h.Enabled
}
