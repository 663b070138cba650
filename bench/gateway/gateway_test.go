package gateway

import (
	"net/http/httptest"
	"testing"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

func TestOperations(t *testing.T) {
	got, err := operationsOf([]byte(`# HELP x y
thanos_objstore_bucket_operations_total{bucket="b",operation="get"} 3
thanos_objstore_bucket_operations_total{bucket="b",operation="iter"} 0
thanos_objstore_bucket_operations_total{bucket="b",operation="get_range"} 1e3
thanos_objstore_bucket_operation_fetched_bytes_total{bucket="b",operation="get"} 10
thanos_objstore_bucket_operation_failures_total{bucket="b",operation="get"} 7
`))
	if err != nil || got.String() != "get_range 1000, get 3" || got.Bytes != 10 || got.Total() != 1003 {
		t.Errorf("%s, %v bytes, %v", got, got.Bytes, err)
	}
	if later := got.Sub(Counts{ByKind: map[string]float64{"get": 3, "get_range": 1}, Bytes: 4}); later.Total() != 999 ||
		later.Bytes != 6 || len(later.ByKind) != 1 {
		t.Errorf("since then %s, %v bytes", later, later.Bytes)
	}
}

func TestKindOf(t *testing.T) {
	f := func(url, ranged, want string) {
		t.Helper()
		r := httptest.NewRequest("GET", url, nil)
		if ranged != "" {
			r.Header.Set("Range", ranged)
		}
		if got := kindOf(r); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
	f("/b/?list-type=2&delimiter=%2F&prefix=", "", "LIST")
	f("/b/?location=", "", "LOCATION")
	f("/b/x", "bytes=0-1", "GET range")
	f("/b/x", "", "GET")
}

func one(name string, chunks ...*thanospb.AggrChunk) *thanospb.Series {
	return &thanospb.Series{Labels: []*thanospb.Label{{Name: "__name__", Value: name}}, Chunks: chunks}
}

func raw(at int64, data string) *thanospb.AggrChunk {
	return &thanospb.AggrChunk{MinTime: at, MaxTime: at + 1, Raw: &thanospb.Chunk{Data: []byte(data)}}
}

// TestDifference: frames may be cut and ordered in any way, and repeat chunks. All else is a difference.
func TestDifference(t *testing.T) {
	want := &Answer{Series: []*thanospb.Series{one("a", raw(1, "\x00\x02x"), raw(5, "\x00\x03y")), one("b")}}
	same := &Answer{Series: []*thanospb.Series{one("b"), one("a", raw(5, "\x00\x03y")),
		one("a", raw(1, "\x00\x02x"), raw(1, "\x00\x02x"))}}
	if d := Difference(same, want); d != "" {
		t.Error(d)
	}
	if n, err := want.Samples(); n != 5 || err != nil {
		t.Errorf("%d samples, %v", n, err)
	}
	for name, other := range map[string]*Answer{
		"a series less": {Series: want.Series[:1]},
		"a series more": {Series: append([]*thanospb.Series{one("c")}, want.Series...)},
		"other data":    {Series: []*thanospb.Series{one("a", raw(1, "\x00\x02x"), raw(5, "\x00\x03z")), one("b")}},
		"other times":   {Series: []*thanospb.Series{one("a", raw(1, "\x00\x02x"), raw(6, "\x00\x03y")), one("b")}},
		"a chunk less":  {Series: []*thanospb.Series{one("a", raw(1, "\x00\x02x")), one("b")}},
	} {
		if Difference(other, want) == "" {
			t.Errorf("%s: no difference", name)
		}
	}
}
