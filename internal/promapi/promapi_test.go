package promapi

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestParameters(t *testing.T) {
	r := httptest.NewRequest("GET",
		"/?"+url.Values{"b": {"true"}, "n": {"7"}, "t": {"1.5"}, "iso": {"1970-01-01T00:00:02Z"}, "bad": {"x"}}.Encode(), nil)
	f := func(name string, got any, err error, want any) {
		t.Helper()
		if want == nil {
			if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "bad") {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	b, err := Bool(r, "b", false)
	f("bool", b, err, true)
	b, err = Bool(r, "absent", true)
	f("no bool", b, err, true)
	b, err = Bool(r, "bad", true)
	f("bad bool", b, err, nil)
	n, err := Int(r, "n")
	f("int", n, err, 7)
	n, err = Int(r, "absent")
	f("no int", n, err, -1)
	n, err = Int(r, "bad")
	f("bad int", n, err, nil)
	at, err := Time(r, "t", 9)
	f("seconds", at, err, 1500)
	at, err = Time(r, "iso", 9)
	f("date", at, err, 2000)
	at, err = Time(r, "absent", 9)
	f("no time", at, err, 9)
	at, err = Time(r, "bad", 9)
	f("bad time", at, err, nil)
}

func TestResolution(t *testing.T) {
	f := func(text string, want time.Duration, auto, ok bool) {
		t.Helper()
		got, isAuto, err := Resolution(text)
		if got != want || isAuto != auto || (err == nil) != ok {
			t.Errorf("%q: %s, auto %t, %v", text, got, isAuto, err)
		}
	}
	f("auto", 0, true, true)
	f("5m", 5*time.Minute, false, true)
	f("3600", time.Hour, false, true)
	f("0s", 0, false, true)
	f("-1", 0, false, false)
	f("often", 0, false, false)
}

func TestWriteError(t *testing.T) {
	f := func(err error, status int, typ string) {
		t.Helper()
		w := httptest.NewRecorder()
		WriteError(w, err)
		if w.Code != status || !strings.Contains(w.Body.String(), `{"status":"error","errorType":"`+typ+`","error":"`) {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
	f(errs.E(errs.Limited, "too many"), 422, Execution)
	f(errs.E(errs.Invalid, "no"), 400, BadData)
	f(errs.E(errs.Unavailable, "not now"), 503, Unavailable)
	f(errs.E(errs.Unavailable, "late: %w", context.DeadlineExceeded), 503, Timeout)
	f(fmt.Errorf("what"), 500, Internal)
}
