package main

import (
	"slices"
	"testing"

	"github.com/hearth-metrics/hearth/query/endpoints"
)

func TestOnOneBucket(t *testing.T) {
	f := func(want string, buckets ...string) {
		t.Helper()
		var in, out []endpoints.Member
		for _, b := range buckets {
			in, out = append(in, endpoints.Member{Bucket: b}), append(out, endpoints.Member{Bucket: want})
		}
		if got := onOneBucket(in); !slices.Equal(got, out) {
			t.Errorf("%q: %v", buckets, got)
		}
	}
	f("")
	f("", "", "")
	f("x", "", "x", "")
	f("x", "x", "")
}
