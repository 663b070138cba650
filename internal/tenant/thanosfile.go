package tenant

import (
	"errors"
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
)

// ThanosLimits is what Thanos's limits file says.
type ThanosLimits struct {
	// LimitFile is its limits by our names.
	LimitFile
	// MaxConcurrency is write.global.max_concurrency: how many writes a process works on at a time, 0 = no bound.
	MaxConcurrency int
	// MetaMonitoring says that the file names the server that Thanos asks how many series a tenant has. Hearth asks none,
	// since receivers count series themselves.
	MetaMonitoring bool
}

// ParseThanosLimits reads the file of Thanos's --receive.limits-config, as strictly as Thanos. Its head_series_limit
// counts every copy of a series, and active_series counts each series once: it is the limit divided by the replication
// factor rf, rounded up. The error is as that of ParseLimits.
func ParseThanosLimits(name string, raw []byte, rf int) (*ThanosLimits, error) {
	p := &thanosParser{limitParser: newLimitParser(name), rf: max(rf, 1)}
	t := &ThanosLimits{LimitFile: LimitFile{tenants: map[ID][]setting{}}}
	sections := map[string]func(*yaml.Node){
		"global":  func(n *yaml.Node) { p.global(n, t) },
		"default": func(n *yaml.Node) { t.defaults = p.limits(n, "default: ") },
		"tenants": func(n *yaml.Node) {
			p.tenants(n, func(id ID, n *yaml.Node) { t.tenants[id] = p.limits(n, "tenant "+string(id)+": ") })
		},
	}
	p.Mapping(p.Document(raw), "", map[string]func(*yaml.Node){
		"write": func(n *yaml.Node) { p.Mapping(n, "write: ", sections) },
	})
	return t, p.Err()
}

type thanosParser struct {
	limitParser
	rf int
}

func (p *thanosParser) global(n *yaml.Node, t *ThanosLimits) {
	const where = "global: "
	told := func(n *yaml.Node) { t.MetaMonitoring = true }
	p.Mapping(n, where, map[string]func(*yaml.Node){
		"max_concurrency": func(n *yaml.Node) {
			if v, ok := p.number(n, where+"max_concurrency"); ok && v > 0 {
				t.MaxConcurrency = int(v)
			}
		},
		"meta_monitoring_url":         told,
		"meta_monitoring_http_client": told,
		"meta_monitoring_limit_query": told,
	})
}

// limits reads the limits of all tenants or of one.
func (p *thanosParser) limits(n *yaml.Node, where string) []setting {
	var all []setting
	take := func(theirs, ours string, convert func(int64) (int64, error)) func(*yaml.Node) {
		return func(n *yaml.Node) {
			v, ok := p.number(n, where+theirs)
			if !ok {
				return
			}
			v, err := convert(v)
			if err != nil {
				p.Fault(n, "%s%s: %w", where, theirs, err)
				return
			}
			i := limitIndex[ours]
			value := reflect.New(limitFields[i].typ).Elem()
			value.SetInt(v)
			all = append(all, setting{i, value})
		}
	}
	request := map[string]func(*yaml.Node){
		"size_bytes_limit": take("request: size_bytes_limit", "request_bytes", orNone),
		"series_limit":     take("request: series_limit", "request_series", orNone),
		"samples_limit":    take("request: samples_limit", "request_samples", orNone),
	}
	p.Mapping(n, where, map[string]func(*yaml.Node){
		"request":           func(n *yaml.Node) { p.Mapping(n, where+"request: ", request) },
		"head_series_limit": take("head_series_limit", "active_series", p.once),
	})
	return all
}

// orNone is v, or 0 for a negative v, which Thanos takes for no limit.
func orNone(v int64) (int64, error) { return max(v, 0), nil }

// once is the number of series that v copies are.
func (p *thanosParser) once(v int64) (int64, error) {
	if v < 0 {
		return 0, fmt.Errorf("%d must not be negative", v)
	}
	rf := int64(p.rf)
	whole := v / rf
	if v%rf > 0 {
		whole++
	}
	return whole, nil
}

// number reads a whole number. ok is false for a null value and after a fault.
func (p *thanosParser) number(n *yaml.Node, where string) (v int64, ok bool) {
	n = conf.Resolve(n)
	if conf.IsNull(n) {
		return 0, false
	}
	out := reflect.ValueOf(&v).Elem()
	err := errors.New("a number is expected")
	if n.Kind == yaml.ScalarNode {
		err = limitField{typ: out.Type()}.set(out, n)
	}
	if err != nil {
		p.Fault(n, "%s: %w", where, err)
		return 0, false
	}
	return v, true
}
