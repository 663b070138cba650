package test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// api is a Prometheus HTTP API: Hearth's or a real Prometheus's.
type api struct {
	base   string // http://host:port[/prefix]
	header http.Header
}

type answer struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	Error     string          `json:"error"`
	ErrorType string          `json:"errorType"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

func (a api) get(path string, params url.Values) (answer, error) {
	b, err := get(a.base+"/api/v1/"+path+"?"+params.Encode(), a.header)
	if err != nil {
		return answer{}, fmt.Errorf("%s?%s: %w", path, params.Encode(), err)
	}
	var ans answer
	if err := json.Unmarshal(b, &ans); err != nil {
		return answer{}, fmt.Errorf("%s: %w", path, err)
	}
	return ans, nil
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

func (a api) query(expr string, at time.Time) (answer, error) {
	return a.get("query", url.Values{"query": {expr}, "time": {seconds(at)}})
}

func (a api) queryRange(expr string, start, end time.Time, step time.Duration) (answer, error) {
	return a.get("query_range", url.Values{
		"query": {expr}, "start": {seconds(start)}, "end": {seconds(end)}, "step": {fmt.Sprint(step.Seconds())},
	})
}

// scalarOf is the one value of an instant query that yields one sample.
func scalarOf(ans answer) (float64, error) {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := json.Unmarshal(ans.Data, &data); err != nil {
		return 0, err
	}
	if len(data.Result) != 1 {
		return 0, fmt.Errorf("%d results, want one: %.300s", len(data.Result), ans.Data)
	}
	s, _ := data.Result[0].Value[1].(string)
	return strconv.ParseFloat(s, 64)
}

// diff says where two JSON answers differ; numbers (also those in strings, as sample values are) may differ by 1e-12 of
// their size. "" = equal.
func diff(want, got json.RawMessage) string {
	var w, g any
	if err := json.Unmarshal(want, &w); err != nil {
		return err.Error()
	}
	if err := json.Unmarshal(got, &g); err != nil {
		return err.Error()
	}
	return diffValue("data", canonicalResult(w), canonicalResult(g))
}

// canonicalResult sorts a vector or matrix by its series' labels: PromQL gives no order.
func canonicalResult(v any) any {
	if list, ok := v.([]any); ok && len(list) > 0 { // /series: sorted by nothing
		if _, ok := list[0].(map[string]any); ok {
			sort.SliceStable(list, func(i, j int) bool { return jsonOf(list[i]) < jsonOf(list[j]) })
		}
		return v
	}
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	list, ok := m["result"].([]any)
	if !ok || len(list) == 0 {
		return v
	}
	if _, ok := list[0].(map[string]any); ok {
		sort.SliceStable(list, func(i, j int) bool { return metricOf(list[i]) < metricOf(list[j]) })
	}
	return v
}

func metricOf(v any) string { return jsonOf(v.(map[string]any)["metric"]) }

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func diffValue(at string, want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s: want an object, got %.80v", at, got)
		}
		for k := range w {
			if _, ok := g[k]; !ok {
				return fmt.Sprintf("%s.%s: missing", at, k)
			}
			if d := diffValue(at+"."+k, w[k], g[k]); d != "" {
				return d
			}
		}
		for k := range g {
			if _, ok := w[k]; !ok {
				return fmt.Sprintf("%s.%s: not wanted: %.120v", at, k, g[k])
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Sprintf("%s: want %d elements, got %d: %s", at, len(w), len(g), onlyInOne(w, g))
		}
		for i := range w {
			if d := diffValue(fmt.Sprintf("%s[%d]", at, i), w[i], g[i]); d != "" {
				return d
			}
		}
		return ""
	case string:
		g, ok := got.(string)
		if ok && (w == g || closeTo(w, g)) {
			return ""
		}
	case float64:
		g, ok := got.(float64)
		if ok && near(w, g) {
			return ""
		}
	default:
		if want == got {
			return ""
		}
	}
	return fmt.Sprintf("%s: want %v, got %v", at, want, got)
}

// onlyInOne lists elements that one of two lists lacks.
func onlyInOne(w, g []any) string {
	count := map[string]int{}
	for _, v := range w {
		count[jsonOf(v)]++
	}
	for _, v := range g {
		count[jsonOf(v)]--
	}
	text := ""
	for k, n := range count {
		if n > 0 {
			text += " missing " + k
		} else if n < 0 {
			text += " not wanted " + k
		}
	}
	return fmt.Sprintf("%.400s", text)
}

func closeTo(w, g string) bool {
	a, err1 := strconv.ParseFloat(w, 64)
	b, err2 := strconv.ParseFloat(g, 64)
	return err1 == nil && err2 == nil && near(a, b)
}

func near(a, b float64) bool {
	if a == b || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return math.Abs(a-b) <= 1e-12*math.Max(math.Abs(a), math.Abs(b))
}

func TestDiff(t *testing.T) {
	t.Parallel()
	f := func(want, got string, equal bool) {
		t.Helper()
		if d := diff(json.RawMessage(want), json.RawMessage(got)); (d == "") != equal {
			t.Fatalf("diff(%s, %s) = %q, want equal=%v", want, got, d, equal)
		}
	}
	f(`{"result":[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"2"]}]}`,
		`{"result":[{"metric":{"a":"2"},"value":[1,"2"]},{"metric":{"a":"1"},"value":[1,"1.0000000000000001"]}]}`, true)
	f(`{"result":[{"metric":{"a":"1"},"value":[1,"1"]}]}`, `{"result":[{"metric":{"a":"1"},"value":[1,"1.00001"]}]}`,
		false)
	f(`{"result":[{"metric":{"a":"1"},"value":[1,"1"]}]}`, `{"result":[{"metric":{"a":"1","b":"x"},"value":[1,"1"]}]}`,
		false)
	f(`{"result":[]}`, `{"result":[{"metric":{},"value":[1,"1"]}]}`, false)
	f(`["a","b"]`, `["a"]`, false)
	f(`"NaN"`, `"NaN"`, true)
}

// seriesKey names a metric in messages.
func seriesKey(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%s=%q,", k, m[k])
	}
	return b.String()
}
