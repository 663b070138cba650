package template

import (
	"context"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/helpers/templates"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/util/strutil"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// sample and queryResult are named as in Prometheus, whose errors name them.
type sample struct {
	Labels map[string]string
	Value  any
}

type queryResult []*sample

// workOfSample is the work of a sample of an answer that is converted or sorted.
const workOfSample = 1000

// functions are those of Prometheus, and those of text/template that make texts, each within the budget.
func (e *Expander) functions(ctx context.Context, b *Budget) texttemplate.FuncMap {
	all := e.ofSamples(ctx, b)
	maps.Copy(all, e.ofTexts(b))
	maps.Copy(all, e.ofNumbers())
	return all
}

func (e *Expander) ofSamples(ctx context.Context, b *Budget) texttemplate.FuncMap {
	return texttemplate.FuncMap{
		"query": func(expr string) (queryResult, error) { return e.query(ctx, b, expr) },
		"first": func(v queryResult) (*sample, error) {
			if len(v) == 0 {
				return nil, errors.New("first() called on vector with no elements")
			}
			return v[0], nil
		},
		"label":    func(name string, s *sample) string { return s.Labels[name] },
		"value":    func(s *sample) any { return s.Value },
		"strvalue": func(s *sample) string { return s.Labels["__value__"] },
		"sortByLabel": func(name string, v queryResult) (queryResult, error) {
			if err := b.take(workOfSample * len(v)); err != nil {
				return nil, err
			}
			slices.SortStableFunc(v, func(x, y *sample) int { return strings.Compare(x.Labels[name], y.Labels[name]) })
			return v, nil
		},
	}
}

func (e *Expander) ofTexts(b *Budget) texttemplate.FuncMap {
	text := b.ofText
	return texttemplate.FuncMap{
		"args": func(values ...any) (map[string]any, error) {
			if size, _ := sizes(values, maxMade); size > maxMade { // a map of maps of maps doubles when it is printed
				return nil, b.exceed("values of a template may have %d bytes when they are printed", maxMade)
			} else if err := b.take(size / 4); err != nil {
				return nil, err
			}
			out := make(map[string]any, len(values))
			for i, v := range values {
				out[fmt.Sprintf("arg%d", i)] = v
			}
			return out, nil
		},
		"match": func(expr, text string) (bool, error) {
			p, err := b.compile(expr)
			if err != nil {
				return false, err
			}
			if err := b.take(p.cost * (len(text) + 1)); err != nil {
				return false, err
			}
			return p.MatchString(text), nil
		},
		"reReplaceAll": func(expr, with, text string) (string, error) {
			p, err := b.compile(expr)
			if err != nil && b.fault == nil {
				regexp.MustCompile(expr) // panics with the text that Prometheus shows
			}
			if err != nil {
				return "", err
			}
			return b.bounded(b.replaceAll(p, with, text))
		},
		"title":          text(cases.Title(language.AmericanEnglish, cases.NoLower).String),
		"toUpper":        text(strings.ToUpper),
		"toLower":        text(strings.ToLower),
		"graphLink":      text(strutil.GraphLinkForExpression),
		"tableLink":      text(strutil.TableLinkForExpression),
		"stripPort":      text(stripPort),
		"stripDomain":    text(stripDomain),
		"urlQueryEscape": text(url.QueryEscape),
		"safeHtml":       func(text string) htmltemplate.HTML { return htmltemplate.HTML(text) },
		"pathPrefix":     func() string { return e.ExternalURL.Path },
		"externalURL":    func() string { return e.ExternalURL.String() },
		"print":          b.printing(fmt.Sprint),
		"println":        b.printing(fmt.Sprintln),
		"html":           b.printing(texttemplate.HTMLEscaper),
		"js":             b.printing(texttemplate.JSEscaper),
		"urlquery":       b.printing(texttemplate.URLQueryEscaper),
		"printf": func(format string, values ...any) (string, error) {
			if err := b.made(formatted(format, values), maxMade); err != nil {
				return "", err
			}
			return b.bounded(fmt.Sprintf(format, values...), nil)
		},
	}
}

func (e *Expander) ofNumbers() texttemplate.FuncMap {
	return texttemplate.FuncMap{
		"humanize":           ofNumber(humanize),
		"humanize1024":       ofNumber(humanize1024),
		"humanizeDuration":   templates.HumanizeDuration,
		"humanizePercentage": ofNumber(func(v float64) string { return fmt.Sprintf("%.4g%%", v*100) }),
		"humanizeTimestamp":  templates.HumanizeTimestamp,
		"toTime": func(v any) (*time.Time, error) {
			seconds, err := templates.ConvertToFloat(v)
			if err != nil {
				return nil, err
			}
			return templates.FloatToTime(seconds)
		},
		"toDuration": func(v any) (*time.Duration, error) {
			seconds, err := templates.ConvertToFloat(v)
			if err != nil {
				return nil, err
			}
			d := time.Duration(seconds * float64(time.Second))
			return &d, nil
		},
		"now": func() float64 { return float64(e.At) / 1000 },
		"parseDuration": func(text string) (float64, error) {
			d, err := model.ParseDurationAllowNegative(text)
			if err != nil {
				return 0, err
			}
			return float64(time.Duration(d)) / float64(time.Second), nil
		},
	}
}

// query is the answer to an expression.
func (e *Expander) query(ctx context.Context, b *Budget, expr string) (queryResult, error) {
	if b.queries--; b.queries < 0 {
		return nil, b.exceed("the templates of the rule ask too many queries")
	}
	if err := b.step(ctx, len(expr)); err != nil {
		return nil, err
	}
	v, err := e.Query(ctx, expr, e.At.Time())
	if err != nil {
		return nil, err
	}
	if err := b.take(workOfSample * len(v)); err != nil {
		return nil, err
	}
	out := make(queryResult, len(v))
	for i, s := range v {
		out[i] = &sample{Labels: s.Metric.Map(), Value: s.F}
		if s.H != nil {
			out[i].Value = s.H
		}
	}
	return out, nil
}

// bounded is text, unless it is too long.
func (b *Budget) bounded(text string, err error) (string, error) {
	if err == nil {
		err = b.made(len(text), MaxBytes)
	}
	if err != nil {
		return "", err
	}
	return text, nil
}

// ofText is f within the budget. A byte becomes a few at most.
func (b *Budget) ofText(f func(string) string) func(string) (string, error) {
	return func(text string) (string, error) {
		if err := b.take(4 * len(text)); err != nil {
			return "", err
		}
		return b.bounded(f(text), nil)
	}
}

// printing is f within the budget.
func (b *Budget) printing(f func(...any) string) func(...any) (string, error) {
	return func(values ...any) (string, error) {
		size, _ := sizes(values, maxMade)
		if err := b.made(size, maxMade); err != nil {
			return "", err
		}
		return b.bounded(f(values...), nil)
	}
}

// ofNumber is f for whatever can be read as a number.
func ofNumber(f func(float64) string) func(any) (string, error) {
	return func(v any) (string, error) {
		n, err := templates.ConvertToFloat(v)
		if err != nil {
			return "", err
		}
		return f(n), nil
	}
}

func plain(v float64) string { return fmt.Sprintf("%.4g", v) }

// prefixes of powers of 1000, upwards and downwards, and of powers of 1024.
var (
	above = []string{"k", "M", "G", "T", "P", "E", "Z", "Y"}
	below = []string{"m", "u", "n", "p", "f", "a", "z", "y"}
	of2   = []string{"ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"}
)

func humanize(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return plain(v)
	}
	if math.Abs(v) >= 1 {
		return scaledDown(v, 1000, above)
	}
	prefix := ""
	for i := 0; i < len(below) && math.Abs(v) < 1; i++ {
		v, prefix = v*1000, below[i]
	}
	return plain(v) + prefix
}

func humanize1024(v float64) string {
	if math.Abs(v) <= 1 || math.IsNaN(v) || math.IsInf(v, 0) {
		return plain(v)
	}
	return scaledDown(v, 1024, of2)
}

// scaledDown divides v until it is below base, with the prefix for that.
func scaledDown(v, base float64, prefixes []string) string {
	prefix := ""
	for i := 0; i < len(prefixes) && math.Abs(v) >= base; i++ {
		v, prefix = v/base, prefixes[i]
	}
	return plain(v) + prefix
}

func stripPort(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// stripDomain is address with the first part of its name only. An IP address stays as it is.
func stripDomain(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return address
	}
	host, _, _ = strings.Cut(host, ".")
	if port == "" {
		return host
	}
	return net.JoinHostPort(host, port)
}
