package promapi

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Bool reads a parameter that is true or false. It is fallback if the parameter is absent.
func Bool(r *http.Request, name string, fallback bool) (bool, error) {
	text := r.FormValue(name)
	if text == "" {
		return fallback, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, errs.E(errs.Invalid, "%s %q: must be true or false", name, text)
	}
	return v, nil
}

// Int reads a parameter that is a whole number. It is -1 if the parameter is absent.
func Int(r *http.Request, name string) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, errs.E(errs.Invalid, "%s must be a number", name)
	}
	return n, nil
}

// Time reads a parameter that is a time, in Unix seconds or RFC 3339, and returns it in Unix ms. It is fallback if the
// parameter is absent.
func Time(r *http.Request, name string, fallback int64) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return fallback, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(s) < math.MaxInt64/1000 {
		return int64(math.Round(s * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, errs.E(errs.Invalid, "invalid parameter %q: cannot parse %q to a valid timestamp", name, text)
	}
	return t.UnixMilli(), nil
}

// Resolution reads the text of Thanos's max_source_resolution: "auto", a duration such as 5m or 1h, or a number of
// seconds. The text must not be empty.
func Resolution(text string) (coarsest time.Duration, auto bool, err error) {
	if text == "auto" {
		return 0, true, nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < 1e9 {
		return time.Duration(seconds * float64(time.Second)), false, nil
	}
	d, err := model.ParseDuration(text)
	if err != nil {
		return 0, false, errs.E(errs.Invalid, "max_source_resolution %q: %w", text, err)
	}
	return time.Duration(d), false, nil
}
