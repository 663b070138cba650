package tenant

import (
	"errors"
	"reflect"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/expr"
)

// RetentionRule says how long the compactor keeps some blocks of a tenant.
type RetentionRule struct {
	// Match is matchers of the external labels of blocks, as in {cluster="eu",env!~"prod|stage"}. All must match.
	Match string `json:"match"`
	// Raw, FiveMinutes and OneHour are periods by resolution. 0 = as without the rule.
	Raw         model.Duration `json:"raw"`
	FiveMinutes model.Duration `json:"5m"`
	OneHour     model.Duration `json:"1h"`
}

// maxRetentionRules bounds the rules of a tenant: each is tried on each block.
const maxRetentionRules = 100

var retentionRulesType = reflect.TypeFor[[]RetentionRule]()

// retentionRules reads the list of rules in n. Faults name the lines of what is wrong.
func (p *limitParser) retentionRules(n *yaml.Node, where string) []RetentionRule {
	n = conf.Resolve(n)
	if n.Kind != yaml.SequenceNode {
		p.Fault(n, "%sa list of rules is expected", where)
		return nil
	}
	if len(n.Content) > maxRetentionRules {
		p.Fault(n, "%s%d rules, and at most %d may be", where, len(n.Content), maxRetentionRules)
		return nil
	}
	rules := make([]RetentionRule, len(n.Content))
	for i, c := range n.Content {
		r := &rules[i]
		period := func(to *model.Duration) func(*yaml.Node) {
			return func(n *yaml.Node) {
				v, err := limitField{key: "period", typ: durationType}.decode(n)
				if err != nil {
					p.Fault(n, "%s%w", where, err)
					return
				}
				*to = model.Duration(v.Int())
			}
		}
		p.Mapping(conf.Resolve(c), where, map[string]func(*yaml.Node){
			"match": func(n *yaml.Node) {
				if err := r.setMatch(conf.Resolve(n)); err != nil {
					p.Fault(n, "%smatch: %w", where, err)
				}
			},
			"raw": period(&r.Raw), "5m": period(&r.FiveMinutes), "1h": period(&r.OneHour),
		})
		if r.Match == "" && p.Err() == nil {
			p.Fault(c, "%sa rule needs match, such as {cluster=\"eu\"}", where)
		}
		if r.Raw == 0 && r.FiveMinutes == 0 && r.OneHour == 0 && p.Err() == nil {
			p.Fault(c, "%sa rule needs one of raw, 5m and 1h", where)
		}
	}
	return rules
}

func (r *RetentionRule) setMatch(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return errors.New("a text such as '{cluster=\"eu\"}' is expected")
	}
	if _, err := expr.New(0).ParseMetricSelector(n.Value); err != nil {
		return err
	}
	r.Match = n.Value
	return nil
}
