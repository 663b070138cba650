package httpx

import (
	"net/http/httptest"
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestSameOrigin(t *testing.T) {
	f := func(method, header, value string, want errs.Kind) {
		t.Helper()
		r := httptest.NewRequest(method, "http://hearth:10902/compact/release", nil)
		if header != "" {
			r.Header.Set(header, value)
		}
		if got := errs.KindOf(SameOrigin(r)); got != want {
			t.Errorf("%s with %s %q: %v, want %v", method, header, value, got, want)
		}
	}
	f("POST", "", "", errs.OK) // no browser
	f("POST", "Origin", "http://hearth:10902", errs.OK)
	f("POST", "Origin", "http://other", errs.Forbidden)
	f("POST", "Sec-Fetch-Site", "cross-site", errs.Forbidden)
	f("POST", "Sec-Fetch-Site", "same-origin", errs.OK)
	f("GET", "Origin", "http://other", errs.OK)
}
