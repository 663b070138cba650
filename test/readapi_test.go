package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
)

// startReaders is a real Prometheus and Hearth with the same samples, and the time of the newest.
func startReaders(t *testing.T) (prom, hearth api, at time.Time) {
	t.Helper()
	_, promBase := startPrometheus(t, func(string) string { return "global: {}" }, "--web.enable-remote-write-receiver")
	_, base := startAll(t, t.TempDir())
	at = time.Now().Truncate(time.Second)
	req := &prompb.WriteRequest{}
	for i := range 3 {
		s := sample(at.UnixMilli(), 0, "__name__", "m", "a", strconv.Itoa(i))
		s.Samples = nil
		for k := range 4 {
			s.Samples = append(s.Samples,
				prompb.Sample{Timestamp: at.Add(time.Duration(k-3) * 15 * time.Second).UnixMilli(), Value: float64(i*4 + k)})
		}
		req.Timeseries = append(req.Timeseries, s)
	}
	for _, url := range []string{promBase + "/api/v1/write", base + "/api/v1/write"} {
		if _, err := do(http.MethodPost, url, writeHeader(nil), encode(req)); err != nil {
			t.Fatal(err)
		}
	}
	return api{base: promBase}, api{base: base}, at
}

// ask is one request to the API, whatever it is answered.
func (a api) ask(t *testing.T, method, path, params string) (code int, contentType, body string) {
	t.Helper()
	target, form := a.base+"/api/v1/"+path, ""
	if method == http.MethodPost {
		form = params
	} else if params != "" {
		target += "?" + params
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

// readCases are requests by path, one a line: the parameters, in which $T is the time of the newest sample and $B a
// minute before.
var readCases = map[string]string{
	"query":                 "query=$Q&time=$T\nquery=$Q&time=$T&stats=foo&limit=1\nquery=m&time=x\nquery=m&time=0\nquery=m&time=$R\nquery=1&time=NaN\nquery=m&time=$T&query=1",
	"query_range":           "query=$Q&start=$B&end=$T&step=15\nquery=m&start=$T&end=$B&step=1\nquery=m&start=$B&end=$T\nquery=m&start=$B&end=$T&step=0\nquery=m&start=0&end=$T&step=1\nquery=m&start=$R&end=$R&step=1m",
	"labels":                "$L",
	"label/a/values":        "$L",
	"label/none/values":     "$L",
	"label/U__a/values":     "$L",
	"series":                "$L",
	"metadata":              "metric=none\nlimit=0\nlimit=x\nlimit_per_metric=x",
	"query_exemplars":       "query=m&start=$B&end=$T\nquery=none\nquery=1\nquery=m{\n\nquery=m&start=$T&end=$B",
	"format_query":          "query=$Q",
	"parse_query":           "query=$Q",
	"targets":               "\nstate=active\nstate=dropped\nstate=any\nstate=x\nscrapePool=x",
	"scrape_pools":          "",
	"scrape_pools/config":   "\nscrapePool=x",
	"targets/metadata":      "\nmetric=x\nlimit=x\nmatch_target={",
	"targets/relabel_steps": "\nscrapePool=x&labels={}",
	"rules":                 "\ntype=alert\ntype=x\ngroup_limit=x\ngroup_next_token=x\nexclude_alerts=x\nmatch[]={",
	"alerts":                "",
	"alertmanagers":         "",
	"notifications":         "",
	"status/tsdb/blocks":    "",
	"status/walreplay":      "",
	"search/metric_names":   "",
}

var (
	readQueries = []string{"m", "none", "1", `"x"`, "m[1m]", "none[1m]", "m{", "", "sum(", "scalar(none)", "absent(none)",
		"m + on() m", "rate(m)", "quantile(2,m)", "m[1m:30s]", "sort(m)", "m offset -1m", "{a=~'.*'}",
		"label_replace(m,'b','$1','a','(.*')", "m @ start()"}
	readLookups = "\nmatch[]=m\nmatch[]=none\nmatch[]=m&match[]=none\nmatch[]=none&match[]=nothing\nmatch[]={\nmatch[]=\nmatch[]={a=''}\nmatch[]=m&limit=1\nmatch[]=m&limit=-1\nlimit=x\n" +
		"match[]=m&start=$B&end=$T\nmatch[]=m&start=$T&end=$B\nmatch[]=m&start=0&end=1\nmatch[]=m&start=x\nmatch[]=m&start=$R&end=$R\n" +
		"match[]=m&start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z"
	readOptions = []string{"lookback_delta=1s", "lookback_delta=x", "timeout=0", "timeout=x", "limit=2", "limit=-1",
		"stats=true", "stats=all", "unknown=1"}
)

// TestReadAPI: every read API answers a document of the same shape and content as a real Prometheus that holds the
// same samples.
func TestReadAPI(t *testing.T) {
	t.Parallel()
	prom, hearth, at := startReaders(t)
	fill := strings.NewReplacer("$T", seconds(at), "$B", seconds(at.Add(-time.Minute)), "$R",
		at.UTC().Format(time.RFC3339))
	n := 0
	compare := func(method, path, params string) {
		t.Helper()
		n++
		wantCode, wantType, want := prom.ask(t, method, path, params)
		code, contentType, got := hearth.ask(t, method, path, params)
		if code != wantCode || contentType != wantType {
			t.Errorf("%s %s %s: %d %s, in Prometheus %d %s:\n%.300s\n%.300s", method, path, params, code, contentType, wantCode,
				wantType, got, want)
		} else if d := diffAnswers(want, got); d != "" {
			t.Errorf("%s %s %s: %s:\n%.300s\n%.300s", method, path, params, d, got, want)
		}
	}
	for path, cases := range readCases {
		if cases == "$L" {
			cases = readLookups
		}
		for line := range strings.SplitSeq(cases, "\n") {
			queries := []string{""}
			if strings.Contains(line, "$Q") {
				queries = readQueries
			}
			for _, q := range queries {
				params := escapeParams(fill.Replace(line), q)
				compare(http.MethodGet, path, params)
				compare(http.MethodPost, path, params)
			}
		}
	}
	for _, o := range readOptions {
		compare(http.MethodGet, "query", "query=m&time="+seconds(at)+"&"+o)
		compare(http.MethodGet, "query_range",
			"query=m&step=15&start="+seconds(at.Add(-time.Minute))+"&end="+seconds(at)+"&"+o)
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodOptions} {
		compare(method, "query", "query=m")
	}
	if n < 400 {
		t.Errorf("only %d requests were compared", n)
	}
}

// escapeParams escapes the values of a query string, in which $Q stands for q.
func escapeParams(line, q string) string {
	var parts []string
	for pair := range strings.SplitSeq(line, "&") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			pair = url.QueryEscape(name) + "=" + url.QueryEscape(strings.ReplaceAll(value, "$Q", q))
		}
		parts = append(parts, pair)
	}
	return strings.Join(parts, "&")
}

// diffAnswers compares two bodies: as JSON where they are, without what stands in no order or tells how long a query
// took.
func diffAnswers(want, got string) string {
	var w, g any
	if json.Unmarshal([]byte(want), &w) != nil || json.Unmarshal([]byte(got), &g) != nil {
		if want != got {
			return "other text"
		}
		return ""
	}
	for _, v := range []any{w, g} {
		if m, ok := v.(map[string]any); ok {
			for _, notes := range []string{"warnings", "infos"} { // in no order
				if list, ok := m[notes].([]any); ok {
					slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
				}
			}
			if data, ok := m["data"].(map[string]any); ok {
				if stats, ok := data["stats"].(map[string]any); ok {
					delete(stats, "timings")
				}
				m["data"] = canonicalResult(data)
			}
		}
	}
	return diffValue("", w, g)
}

// TestPrometheusReadsFromHearth: a Prometheus without samples that reads from Hearth answers as Hearth does.
func TestPrometheusReadsFromHearth(t *testing.T) {
	t.Parallel()
	_, hearth, at := startReaders(t)
	_, base := startPrometheus(t, func(string) string {
		return "remote_read: [{url: '" + hearth.base + "/api/v1/read', read_recent: true}]"
	})
	reader := api{base: base}
	start, end := seconds(at.Add(-time.Minute)), seconds(at)
	for path, params := range map[string]string{
		"series":      "match[]=m&start=" + start + "&end=" + end,
		"query":       "query=m&time=" + end,
		"query_range": "query=sum(rate(m[1m]))&step=5&start=" + start + "&end=" + end,
	} {
		_, _, want := hearth.ask(t, http.MethodGet, path, params)
		code, _, got := reader.ask(t, http.MethodGet, path, params)
		if d := diffAnswers(want, got); code != 200 || d != "" || !strings.Contains(got, `[`) || strings.Contains(got, `[]`) {
			t.Errorf("%s: %d %s\n%.300s\nasked directly\n%.300s", path, code, d, got, want)
		}
	}
	if _, _, got := reader.ask(t, http.MethodGet, "series", "match[]=none"); !strings.Contains(got, `"data":[]`) {
		t.Error(got)
	}
}

// TestRemoteReadRequests: what a remote read may leave out, and how it may be labelled, is as in Prometheus.
func TestRemoteReadRequests(t *testing.T) {
	t.Parallel()
	prom, hearth, at := startReaders(t)
	m := &prompb.LabelMatcher{Name: "__name__", Value: "m"}
	f := func(name, contentType string, q *prompb.Query, kinds ...prompb.ReadRequest_ResponseType) {
		t.Helper()
		if q != nil {
			q.StartTimestampMs, q.EndTimestampMs = at.Add(-20*time.Second).UnixMilli(), at.UnixMilli()
		}
		req := &prompb.ReadRequest{AcceptedResponseTypes: kinds}
		if q != nil {
			req.Queries = append(req.Queries, q)
		}
		body, err := req.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var answers [2]string
		for i, a := range []api{prom, hearth} {
			b, err := do(http.MethodPost, a.base+"/api/v1/read",
				http.Header{"Content-Type": {contentType}, "Content-Encoding": {"snappy"}}, snappy.Encode(nil, body))
			answers[i] = fmt.Sprint(status(err), " ", readText(t, b, len(kinds) > 0))
		}
		if answers[0] != answers[1] {
			t.Errorf("%s: %s, in Prometheus %s", name, answers[1], answers[0])
		}
	}
	const proto = "application/x-protobuf"
	f("samples", proto, &prompb.Query{Matchers: []*prompb.LabelMatcher{m}})
	f("as a form", "application/x-www-form-urlencoded", &prompb.Query{Matchers: []*prompb.LabelMatcher{m}})
	f("as a form of parts", "multipart/form-data", &prompb.Query{Matchers: []*prompb.LabelMatcher{m}})
	f("of no type", "", &prompb.Query{Matchers: []*prompb.LabelMatcher{m}})
	f("no matchers", proto, &prompb.Query{})
	f("no queries", proto, nil)
	f("no match", proto, &prompb.Query{Matchers: []*prompb.LabelMatcher{{Name: "a", Value: "none"}}})
	f("everything", proto,
		&prompb.Query{Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "a", Value: ".*"}}})
	f("labels alone", proto, &prompb.Query{Matchers: []*prompb.LabelMatcher{m},
		Hints: &prompb.ReadHints{Func: "series", StartMs: at.Add(-20 * time.Second).UnixMilli(), EndMs: at.UnixMilli()}})
	const streamed = prompb.ReadRequest_STREAMED_XOR_CHUNKS
	f("streamed", proto, &prompb.Query{Matchers: []*prompb.LabelMatcher{m}}, streamed)
	f("streamed, no matchers", proto, &prompb.Query{}, streamed)
	f("streamed or not", proto, &prompb.Query{Matchers: []*prompb.LabelMatcher{m}}, streamed, prompb.ReadRequest_SAMPLES)
	f("kind unknown", proto, &prompb.Query{Matchers: []*prompb.LabelMatcher{m}}, 7)
}

// readText is the answer of a remote read: series with their samples, or of streamed ones with the times of their
// chunks.
func readText(t *testing.T, body []byte, streamed bool) string {
	t.Helper()
	var text []string
	if streamed {
		for r := remote.NewChunkedReader(bytes.NewReader(body), 1<<20, nil); ; {
			var frame prompb.ChunkedReadResponse
			if err := r.NextProto(&frame); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			for _, s := range frame.ChunkedSeries {
				text = append(text, fmt.Sprint(s.Labels, len(s.Chunks)))
			}
		}
		slices.Sort(text)
		return strings.Join(text, " ")
	}
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		return ""
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(plain); err != nil {
		t.Fatal(err)
	}
	for _, r := range resp.Results {
		for _, s := range r.Timeseries {
			text = append(text, fmt.Sprint(s.Labels, s.Samples))
		}
	}
	slices.Sort(text)
	return fmt.Sprint(len(resp.Results), text)
}
