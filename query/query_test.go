package query

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// open returns an opened Querier over endpoints, closed with t.
func open(t testing.TB, opts Options, endpoints ...Endpoint) *Querier {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	q, err := New(log, nil, func() []Endpoint { return endpoints }, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Open(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// get asks q's API for path and returns status, body and headers. header lines are "name: value".
func get(t testing.TB, q *Querier, path string, form url.Values, header ...string) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path+"?"+form.Encode(), nil)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	q.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Header()
}

// TestSource runs the contract of sources over a querier of three replicas with gaps and overlapping blocks.
func TestSource(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
		return open(t, DefaultOptions(), split(id, in)...)
	})
}

// split spreads in over endpoints as a ring of three and two store gateways would: each sample is on two receivers, or
// one and a block.
func split(id tenant.ID, in []sourcetest.Series) []Endpoint {
	data := make([][]sourcetest.Series, 5)
	for n, s := range in {
		parts := make([][]sourcetest.Sample, len(data))
		for i, p := range s.Samples {
			a, b := (n+i/30)%3, (n+i/30+1)%3
			parts[a] = append(parts[a], p)
			if i < len(s.Samples)/2 && i%7 != 0 {
				parts[3+i/20%2] = append(parts[3+i/20%2], p)
			} else {
				parts[b] = append(parts[b], p)
			}
		}
		for i, part := range parts {
			if len(part) > 0 {
				data[i] = append(data[i], sourcetest.Series{Labels: s.Labels, Samples: part})
			}
		}
	}
	var all []Endpoint
	for i, name := range []string{"receive-a", "receive-b", "receive-c", "store-a", "store-b"} {
		role, _, _ := strings.Cut(name, "-")
		all = append(all, Endpoint{Name: name, Source: &sourcetest.Memory{
			Data:         map[tenant.ID][]sourcetest.Series{id: data[i]},
			About:        series.Info{Instance: name, Role: role},
			ChunkSamples: 13 + i,
		}})
	}
	return all
}

func TestAPISmoke(t *testing.T) {
	in := []sourcetest.Series{{Labels: labels.FromStrings("__name__", "up", "job", "a"),
		Samples: []sourcetest.Sample{{T: 1000, V: 1}, {T: 2000, V: 3}}}}
	q := open(t, DefaultOptions(), split(tenant.Default, in)...)
	for _, prefix := range []string{"/api/v1", "/prometheus/api/v1"} {
		code, body, _ := get(t, q, prefix+"/query", url.Values{"query": {"up"}, "time": {"2"}})
		if want := `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[2,"3"]}]}}`; code != 200 ||
			body != want {
			t.Errorf("got %d %s, want %s", code, body, want)
		}
	}
}
