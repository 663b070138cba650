package template

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/features"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const at = model.Time(1_500_000_000_123)

var externalURL = &url.URL{Scheme: "http", Host: "q", Path: "/p"}

// answer is the answer to each query of a template.
func answer(_ context.Context, expr string, _ time.Time) (promql.Vector, error) {
	switch expr {
	case "fails":
		return nil, errors.New("no")
	case "none":
		return nil, nil
	case "histogram":
		return promql.Vector{{Metric: labels.FromStrings("a", "h"), H: tsdbutil.GenerateTestFloatHistogram(3)}}, nil
	case "many":
		v := make(promql.Vector, 1000)
		for i := range v {
			v[i] = promql.Sample{Metric: labels.FromStrings("i", fmt.Sprint(i)), F: float64(i)}
		}
		return v, nil
	}
	return promql.Vector{
		{Metric: labels.FromStrings("instance", "b:1", "__value__", "x"), F: 12345.678},
		{Metric: labels.FromStrings("instance", "a.b.c:2", "z", "<&>"), F: -0.00012},
	}, nil
}

func dataOf(s promql.Sample) any {
	return template.AlertTemplateData(map[string]string{"instance": "host.example.org:9090", "job": "ä <b> 'q'", "n": "17"},
		map[string]string{"cluster": "c"}, externalURL.String(), s)
}

const prelude = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}" +
	"{{$value := .Value}}"

func expand(ctx context.Context, text string, s promql.Sample, b *Budget) (string, error) {
	e := Expander{Name: "__alert_A", Data: dataOf(s), At: at, Query: answer, ExternalURL: externalURL}
	return e.Expand(ctx, prelude+text, b)
}

// same fails if a text gives something else than in Prometheus.
func same(t *testing.T, text string) {
	t.Helper()
	for _, s := range []promql.Sample{{F: 1.5}, {F: -123456789.125}, {F: 0}, {H: tsdbutil.GenerateTestFloatHistogram(2)}} {
		want, wantErr := template.NewTemplateExpander(t.Context(), prelude+text, "__alert_A", dataOf(s), at, answer,
			externalURL, nil).Expand()
		b := NewBudget(1)
		got, err := expand(t.Context(), text, s, b)
		if b.Err() != nil {
			t.Errorf("%s: %v", text, b.Err())
			return
		}
		if got != want || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("%s\n got %q, %v\nwant %q, %v", text, got, err, want, wantErr)
			return
		}
	}
}

// TestLikePrometheus: each function gives what it gives in Prometheus, as do all that the language has, and mistakes.
func TestLikePrometheus(t *testing.T) {
	for _, text := range []string{
		"", "no template", "{{ $labels.instance }} of {{ $externalLabels.cluster }} is {{ $value }}",
		"{{ .Labels }} {{ .Value }} {{ . }}", "{{ $labels.missing }}|{{ index $labels \"x\" }}", "{{ $externalURL }}",
		`{{ range query "q" }}{{ .Labels.instance }}={{ .Value }} {{ end }}`,
		`{{ range query "none" }}x{{ else }}nothing{{ end }}`, `{{ range $i, $s := query "q" }}{{ $i }}{{ $s.Value }}{{ end }}`,
		`{{ range 5 }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ if gt . 3 }}{{ break }}{{ end }}{{ . }}{{ end }}`,
		`{{ with query "q" }}{{ . | first | value | humanize }}{{ end }}`, `{{ query "fails" }}`, `{{ query "none" | first }}`,
		`{{ range query "histogram" }}{{ .Value }}{{ .Value.Count }}{{ .Value.String }}{{ end }}`,
		`{{ define "d" }}[{{ . }}]{{ end }}{{ template "d" "x" }}{{ template "d" $value }}`,
		`{{ define "d" }}{{ .arg0 }}-{{ .arg1 }}{{ .arg9 }}{{ end }}{{ template "d" (args 1 "b") }}`,
		`{{ define "down" }}{{ len . }}{{ if . }}{{ template "down" (slice . 1) }}{{ end }}{{ end }}{{ template "down" "abc" }}`,
		`{{ block "b" $labels }}{{ .job }}{{ end }}`, `{{ $m := args 1 (args 2 "x") (query "q") }}{{ len $m }}{{ $m.arg1 }}`,
		`{{ printf "%s %5.2f %-10q %[1]s %*d %v %%" $labels.job 1.5 "x" 7 3 true }}`, `{{ printf "%d" "x" "extra" }}`,
		`{{ print 1 2 "a" nil }}`, `{{ print $labels 1.0 }}`, `{{ println "x" }}`, `{{ html $labels.job }}`, `{{ js $labels.job }}`,
		`{{ urlquery $labels.job 1 }}`, `{{ $labels.job | html | printf "%q" }}`, `{{ nil }}`, `{{ len 3 }}`, `{{ "x" | 3 }}`,
		`{{ match "^h.*g:[0-9]+$" $labels.instance }}`, `{{ match "(" "x" }}`, `{{ match "(?i)HOST" $labels.instance }}`,
		`{{ reReplaceAll "(.*):.*" "$1 ${1}x $2" $labels.instance }}`, `{{ reReplaceAll "(" "" "x" }}`,
		`{{ reReplaceAll "" "-" "abc" }}`, `{{ $labels.instance | reReplaceAll "\\." "" | toUpper | title }}`,
		`{{ reReplaceAll "a" (printf "%100s" "$0") (printf "%0200d" 0 | reReplaceAll "0" "a") | len }}`,
		`{{ title "ab cd" }}{{ toUpper "ßa" }}{{ toLower "ÄB" }}`, `{{ graphLink "up{a=\"b\"}" }} {{ tableLink "up" }}`,
		`{{ stripPort "a:1" }}{{ stripPort "[::1]:2" }}{{ stripPort "a" }}`,
		`{{ stripDomain "a.b.c:1" }} {{ stripDomain "10.1.2.3:4" }} {{ stripDomain "a.b" }} {{ stripDomain "::1" }} {{ stripDomain "" }}`,
		`{{ urlQueryEscape "a b&" }}{{ safeHtml "<b>" }}{{ pathPrefix }}{{ externalURL }}`,
		`{{ range sortByLabel "instance" (query "q") }}{{ label "instance" . }}{{ strvalue . }}{{ value . }};{{ end }}`,
		`{{ now }} {{ (now | toTime).Format "2006-01-02 Mon 15:04:05.000 MST" }} {{ (toTime 1.5e9).Year }}`,
		`{{ (toTime 1e9).Format "2006" | printf "%s!" }}{{ ((toTime 1e9).Add 5).Unix }}{{ (toTime 1e9).Weekday }}`,
		`{{ toTime "x" }}`, `{{ toTime 1e300 }}`, `{{ toDuration 90.5 }}{{ (toDuration "61").Minutes }}`,
		`{{ parseDuration "1h30m" }}{{ parseDuration "-5m" }}`, `{{ parseDuration "x" }}`,
		`{{ $value | humanize }} {{ $value | humanize1024 }} {{ $value | humanizePercentage }}`,
		`{{ $value | humanizeDuration }} {{ $value | humanizeTimestamp }}`,
		`{{ $x := "a" }}{{ if true }}{{ $x = "b" }}{{ end }}{{ $x }}`, `{{ and 1 0 }}{{ or 0 "x" }}{{ not 1 }}`,
		`{{ and false (query "fails") }}{{ or "x" (query "fails") }}`, `{{ call $value }}`, `{{ .Nothing }}`, `{{ $value.x }}`,
		`{{ humanize "x" }}`, `{{ humanize }}`, `{{ unknown }}`, `{{ if }}`, `{{ toUpper 3 }}`, `{{ template "missing" }}`,
		`{{ range $value }}x{{ end }}`, `{{ printf "%d" (humanize "x") }}`, `{{ printf "%s" (print (query "fails")) }}`,
		`{{- $value -}} x {{- /* said */ -}} y`, `{{ if eq $labels.job "x" "y" }}1{{ else if ne 1 2 }}2{{ else }}3{{ end }}`,
		`{{ with $labels.missing }}a{{ else with $labels.n }}{{ . }}{{ end }}`, `{{ index (query "q") 1 }}`,
		`{{ index (query "q") 7 }}`, `{{ (index (query "q") 0).Labels.instance }}`, `{{ (query "q" | first).Nothing }}`,
		`{{ hearthStep 1 }}`, `{{ slice "abc" 1 9 }}`, `{{ define "__alert_A" }}x{{ end }}`, `{{ 1e1000 }}`,
		`{{ range query "many" }}{{ .Value | humanize | printf "%8s" }}{{ end }}`,
	} {
		same(t, text)
	}
	for _, f := range []string{"humanize", "humanize1024", "humanizeDuration", "humanizePercentage", "humanizeTimestamp",
		"toTime", "toDuration"} {
		for _, v := range []string{"0", "1", "-1", "0.5", "999.99", "1000", "1023.9", "1024", "1e6", "-1.5e9", "1e-3", "1e-27",
			"1e30", "\"NaN\"", "\"+Inf\"", "\"-Inf\"", "\"12.5\"", "\"\"", "true", "86461.5", "3661", "61", "59.99"} {
			same(t, "{{ "+f+" "+v+" }}")
		}
	}
}

// TestAllFunctions: none of Prometheus's functions is missing, and there is none that it has not.
func TestAllFunctions(t *testing.T) {
	list := features.NewRegistry()
	template.RegisterFeatures(list)
	var e Expander
	have := e.functions(t.Context(), NewBudget(0))
	ofLanguage := []string{"print", "println", "printf", "html", "js", "urlquery"}
	for name := range list.Get()[features.TemplatingFunctions] {
		if have[name] == nil {
			t.Errorf("%s is missing", name)
		}
		delete(have, name)
	}
	for _, name := range ofLanguage {
		delete(have, name)
	}
	if len(have) > 0 {
		t.Errorf("Prometheus does not have %v", have)
	}
}

// part of the budget is enough for the test: all loops end by it.
const part = 8

// TestHostile: what would run on, or fill the memory, ends soon with an error that says why.
func TestHostile(t *testing.T) {
	double := `{{ $x := "aaaaaaaaaaaaaaaa" }}{{ range 100 }}{{ $x = `
	for text, want := range map[string]string{
		`{{ range 1000000000 }}{{ end }}`: "too long",
		`{{ range 100000 }}{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}{{ end }}`: "too long",
		`{{ range 1000000 }}{{ if eq $labels.job "x" }}{{ end }}{{ end }}`:                  "too long",
		`{{ range 100000 }}0123456789abcdefghij{{ end }}`:                                   "comes out",
		`{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}`:                 "call templates",
		`{{ template "__alert_A" . }}`:                                                      "call templates",
		`{{ define "a" }}{{ if . }}{{ template "a" (slice . 1) }}{{ template "a" (slice . 1) }}{{ end }}{{ end }}` +
			`{{ template "a" "0123456789012345678901234567890123456789" }}`: "too long",
		double + `print $x $x }}{{ end }}`:                                                         "65536 bytes",
		double + `printf "%s%s" $x $x }}{{ end }}`:                                                 "65536 bytes",
		double + `printf "%[1]s%[1]s" $x }}{{ end }}`:                                              "65536 bytes",
		double + `reReplaceAll "a" "aa" $x }}{{ end }}`:                                            "65536 bytes",
		double + `reReplaceAll ".*" "$0$0" $x }}{{ end }}`:                                         "65536 bytes",
		double + `urlQueryEscape (html "<" $x $x) }}{{ end }}`:                                     "65536 bytes",
		double + `js $x $x }}{{ end }}`:                                                            "65536 bytes",
		`{{ $x := "1" }}{{ $t := toTime 1.637e9 }}{{ range 100 }}{{ $x = $t.Format $x }}{{ end }}`: "65536 bytes",
		`{{ $x := "1" }}{{ $t := toTime 1.637e9 }}{{ range 9 }}{{ $x = $x` + strings.Repeat(" | $t.Format", 30) + ` }}{{ end }}`: "65536 bytes",
		`{{ $m := args 1 }}{{ range 100 }}{{ $m = args $m $m }}{{ end }}{{ $m }}`:                                                "4194304 bytes",
		`{{ printf "%999999d" 1 }}`:                                  "65536 bytes",
		`{{ printf "%` + strings.Repeat("999999d%", 2000) + `" 1 }}`: "65536 bytes",
		`{{ printf "%*d" 999999 1 }}`:                                "65536 bytes",
		`{{ printf "%.999999f" 1.5 }}`:                               "65536 bytes",
		`{{ range 100000 }}{{ $x := query "q" }}{{ end }}`:           "too many queries",
		`{{ range query "many" }}{{ range query "many" }}{{ range query "many" }}{{ end }}{{ end }}{{ end }}`:     "too",
		`{{ range 1000000 }}{{ $x := reReplaceAll "(x+x+)+y" "" "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }}{{ end }}`: "too long",
		`{{ range 100000 }}{{ $x := match (print "a{1000}b" .) "x" }}{{ end }}`:                                   "regular expressions",
		`{{ reReplaceAll "((a{100}){100}){100}" "" "x" }}`:                                                        "error",
		`{{ $x := printf "%060000d" 0 }}{{ range 100000 }}{{ $y := match "(0*)*(0|1)*x" $x }}{{ end }}`:           "too long",
		`{{ $x := printf "%060000d" 0 }}{{ range 100000 }}{{ $y := title $x }}{{ end }}`:                          "too long",
		`{{ $x := printf "%060000d" 0 }}{{ range 1000000 }}{{ $y := eq $x $x $x $x }}{{ end }}`:                   "too long",
		`{{ range 1000000 }}{{ with $value }}{{ $y := .String }}{{ end }}{{ end }}`:                               "too long",
		`{{ $value.Compact 2000000000 }}`:                                                                         "cannot call Compact",
		`{{ 2000000000 | $value.Compact }}`:                                                                       "cannot call Compact",
		`{{ (index (query "histogram") 0).Value.Compact 2000000000 }}`:                                            "cannot call Compact",
		strings.Repeat("{{if 1}}", 200) + strings.Repeat("{{end}}", 200):                                          "nested",
		"{{ print " + strings.Repeat("(print ", 200) + "1" + strings.Repeat(")", 200) + "}}":                      "nested",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		b := NewBudget(1)
		b.work /= part
		out, err := expand(ctx, text, promql.Sample{H: tsdbutil.GenerateTestFloatHistogram(1)}, b)
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.150s: %.100q, %v", text, out, err)
		}
		if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 1024 {
			t.Errorf("%.150s: %d MiB were allocated", text, made)
		}
		t.Logf("%8s %4d MiB %.100s", took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20, text)
		cancel()
	}
}

// TestBudgetIsShared: a bound that one template exceeds ends those behind it, and an end of the time ends a loop.
func TestBudgetIsShared(t *testing.T) {
	b := NewBudget(1)
	if _, err := expand(t.Context(), `{{ range 1000000000 }}{{ end }}`, promql.Sample{}, b); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("%v", err)
	}
	if out, err := expand(t.Context(), `{{ $value }}`, promql.Sample{}, b); err == nil {
		t.Errorf("%q", out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b = NewBudget(1)
	if _, err := expand(ctx, `{{ range 10 }}{{ end }}`, promql.Sample{}, b); errs.KindOf(b.Err()) != errs.Unavailable {
		t.Errorf("%v, %v", err, b.Err())
	}
}

func TestCheck(t *testing.T) {
	for _, text := range []string{"", "{{", "{{ $value }}", "{{ x }}"} {
		if err := Check(prelude + text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	deep := strings.Repeat("{{if 1}}", 200) + strings.Repeat("{{end}}", 200)
	if err := Check(deep); errs.KindOf(err) != errs.TooLarge {
		t.Error(err)
	}
}

func BenchmarkExpand(b *testing.B) {
	const text = `Instance {{ $labels.instance }} of {{ $labels.job }} has {{ $value | humanize }} errors`
	b.Run("bounded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := expand(b.Context(), text, promql.Sample{F: 5}, NewBudget(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("prometheus", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := template.NewTemplateExpander(b.Context(), prelude+text, "__alert_A", dataOf(promql.Sample{F: 5}), at,
				answer, externalURL, nil).Expand(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
