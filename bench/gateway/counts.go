package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Counts are requests by kind, and the bytes that came with their answers.
type Counts struct {
	ByKind map[string]float64
	Bytes  float64
}

// Total is all requests.
func (c Counts) Total() float64 {
	sum := 0.0
	for _, n := range c.ByKind {
		sum += n
	}
	return sum
}

// Sub is what came since before.
func (c Counts) Sub(before Counts) Counts {
	out := Counts{ByKind: map[string]float64{}, Bytes: c.Bytes - before.Bytes}
	for kind, n := range c.ByKind {
		if n -= before.ByKind[kind]; n != 0 {
			out.ByKind[kind] = n
		}
	}
	return out
}

// String lists the kinds, the most frequent first.
func (c Counts) String() string {
	var kinds []string
	for kind := range c.ByKind {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		if c.ByKind[a] != c.ByKind[b] {
			return int(c.ByKind[b] - c.ByKind[a])
		}
		return strings.Compare(a, b)
	})
	var out []string
	for _, kind := range kinds {
		out = append(out, fmt.Sprintf("%s %.0f", kind, c.ByKind[kind]))
	}
	return strings.Join(out, ", ")
}

// operationsOf reads objstore's metrics in Prometheus's text format. The names of its operations are its own.
func operationsOf(metrics []byte) (Counts, error) {
	out := Counts{ByKind: map[string]float64{}}
	for line := range strings.Lines(string(metrics)) {
		name, rest, ok := strings.Cut(line, "{")
		if !ok || name != "thanos_objstore_bucket_operations_total" &&
			name != "thanos_objstore_bucket_operation_fetched_bytes_total" {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
		if err != nil {
			return out, fmt.Errorf("metric %q: %w", line, err)
		}
		if strings.HasSuffix(name, "bytes_total") {
			out.Bytes += v
			continue
		}
		_, kind, _ := strings.Cut(rest, `operation="`)
		kind, _, _ = strings.Cut(kind, `"`)
		if v > 0 {
			out.ByKind[kind] += v
		}
	}
	return out, nil
}

// get reads a page; a status other than 200 is an error.
func get(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %.200s", url, resp.StatusCode, body)
	}
	return body, err
}
