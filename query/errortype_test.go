package query

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/prometheus/promql"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestErrorTypes: each kind of error has a type that clients of Prometheus's API know, and a fault of the client is not
// called one of ours.
func TestErrorTypes(t *testing.T) {
	f := func(err error, status int, typ string) {
		t.Helper()
		w := httptest.NewRecorder()
		promapi.WriteError(w, err)
		var answer struct{ Status, ErrorType, Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if w.Code != status || answer.ErrorType != typ || answer.Error != err.Error() {
			t.Errorf("%v: %d %+v, want %d %s", err, w.Code, answer, status, typ)
		}
	}
	f(errs.E(errs.Invalid, "x"), 400, "bad_data")
	f(errs.E(errs.Conflict, "x"), 409, "bad_data")
	f(errs.E(errs.TooLarge, "x"), 422, "execution")
	f(errs.E(errs.Limited, "x"), 422, "execution")
	f(errs.E(errs.Exhausted, "x"), 503, "unavailable")
	f(errs.E(errs.Unauthenticated, "x"), 401, "bad_data")
	f(errs.E(errs.Forbidden, "x"), 403, "bad_data")
	f(errs.E(errs.Unsupported, "x"), 422, "execution")
	f(errs.E(errs.NotFound, "x"), 404, "not_found")
	f(errs.E(errs.Unavailable, "x"), 503, "unavailable")
	f(errs.E(errs.Internal, "x"), 500, "internal")
	f(fmt.Errorf("of the library"), 500, "internal")
	f(fmt.Errorf("read: %w", context.DeadlineExceeded), 503, "timeout")
	f(fmt.Errorf("read: %w", context.Canceled), 503, "canceled")
	f(errs.E(errs.Exhausted, "no place: %w", context.DeadlineExceeded), 503, "timeout")
	if got := errorType(promql.ErrQueryTimeout("x")); got != promapi.Timeout {
		t.Errorf("the engine's timeout is %s", got)
	}
}

// TestErrorTypeOfQuery: the library knows no kinds, so its answers are given the type that belongs to them.
func TestErrorTypeOfQuery(t *testing.T) {
	e, src := receiver("r", map[tenant.ID][]sourcetest.Series{tenant.Default: {oneSample(1, "__name__", "up")}})
	q := open(t, DefaultOptions(), e)
	f := func(fault error, status int, typ string) {
		t.Helper()
		src.Fail = func() error { return fault }
		for _, path := range []string{"/api/v1/query", "/api/v1/query_range", "/api/v1/labels", "/api/v1/series"} {
			code, body, _ := get(t, q, path,
				form("query", "up", "match[]", "up", "time", "1", "start", "0", "end", "10", "step", "1", "partial_response",
					"false"))
			check(t, code, body, status, `"errorType":"`+typ+`"`, fault.Error())
		}
	}
	f(errs.E(errs.Unavailable, "cable cut"), 503, "unavailable")
	f(errs.E(errs.Limited, "too many series"), 422, "execution")
	f(errs.E(errs.TooLarge, "too large"), 422, "execution")
}

// TestForbiddenTenant: a user that may not read a tenant gets 403 with a type of error that does not blame the server.
func TestForbiddenTenant(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{"a": {oneSample(1, "__name__", "up")}})
	q := open(t, DefaultOptions(), e)
	r := httptest.NewRequest("GET", "/api/v1/query?query=up&time=1", nil)
	r.Header.Set("THANOS-TENANT", "a")
	w := httptest.NewRecorder()
	q.Handler().ServeHTTP(w, r.WithContext(tenant.WithGrant(r.Context(), tenant.Exactly("bob", "b"))))
	check(t, w.Code, w.Body.String(), 403, `"errorType":"bad_data"`, `bob`)
}
