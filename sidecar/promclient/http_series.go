package promclient

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Series calls each with the labels of every series within [mint, maxt] (ms) that all matchers select, in no order; at
// most limit of them, 0 = all. An error of each ends the call. Labels belong to the callee.
func (c *Client) Series(ctx context.Context, ms []*labels.Matcher, mint, maxt int64, limit int,
	each func(labels.Labels) error) ([]string, error) {
	params := url.Values{"match[]": {selector(ms)}, "start": {floatOf(mint)}, "end": {floatOf(maxt)}}
	if limit > 0 {
		params.Set("limit", strconv.Itoa(limit))
	}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	resp, err := c.do(ctx, http.MethodPost, c.address("/api/v1/series", nil), []byte(params.Encode()), header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r := seriesReader{json.NewDecoder(bufio.NewReaderSize(resp.Body, 64<<10)), each}
	warnings, err := r.read()
	return untruncated(warnings, limit), err
}

func floatOf(ms int64) string {
	return strconv.FormatFloat(float64(min(max(ms, -maxMillis), maxMillis))/1000, 'f', 3, 64)
}

// seriesReader reads a response series by series, since it may have millions.
type seriesReader struct {
	*json.Decoder
	each func(labels.Labels) error
}

func (r seriesReader) read() (warnings []string, err error) {
	status, complete := "", false
	if err := r.delim('{'); err != nil {
		return nil, err
	}
	for r.More() {
		key, err := r.Token()
		if err != nil {
			return nil, broken(err)
		}
		switch key {
		case "data":
			err = r.series()
			complete = true
		case "warnings":
			err = broken(r.Decode(&warnings))
		case "status":
			err = broken(r.Decode(&status))
		default:
			var other json.RawMessage
			err = broken(r.Decode(&other))
		}
		if err != nil {
			return nil, err
		}
	}
	if err := r.delim('}'); err != nil {
		return nil, err
	}
	if status != "success" || !complete {
		return nil, errs.E(errs.Unavailable, "Prometheus: the list of series has status %q", status)
	}
	return warnings, nil
}

func (r seriesReader) series() error {
	if err := r.delim('['); err != nil {
		return err
	}
	for r.More() {
		set := map[string]string{}
		if err := r.Decode(&set); err != nil {
			return broken(err)
		}
		if err := r.each(labels.FromMap(set)); err != nil {
			return err
		}
	}
	return r.delim(']')
}

func (r seriesReader) delim(want json.Delim) error {
	got, err := r.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v instead of %v", got, want)
	}
	return broken(err)
}

// broken is err, which says that a response ended early or is not what it should be.
func broken(err error) error {
	if err == nil {
		return nil
	}
	return errs.E(errs.Unavailable, "the response of Prometheus: %w", err)
}

// lowestTime is the metric with the time of the oldest sample of Prometheus, in seconds.
const lowestTime = "prometheus_tsdb_lowest_timestamp_seconds"

// LowestTime is the time in ms of the oldest sample that Prometheus has. math.MinInt64 means that it may have samples
// of any time: it has cut no block yet, or it does not say.
func (c *Client) LowestTime(ctx context.Context) (int64, error) {
	resp, err := c.do(ctx, http.MethodGet, c.address("/metrics", nil), nil,
		http.Header{"Accept": {"text/plain;version=0.0.4"}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(&boundedBody{resp.Body, maxResponse})
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name != lowestTime {
			continue
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return 0, broken(err)
		}
		ms := seconds * 1000
		if !(ms > -maxMillis && ms < maxMillis) {
			return math.MinInt64, nil
		}
		return int64(ms), nil
	}
	if err := lines.Err(); err != nil {
		return 0, broken(err)
	}
	return math.MinInt64, nil
}
