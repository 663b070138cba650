package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/secret"
	"github.com/hearth-metrics/hearth/rule"
)

// httpClient is a client with the TLS and the authentication of some queriers.
type httpClient = *http.Client

// address is a querier.
type address struct {
	client  *http.Client
	url     string
	timeout time.Duration
}

// form are the parameters of a query.
func (q *Querier) form(query rule.Query) url.Values {
	v := url.Values{
		"query": {query.Expr},
		"time":  {strconv.FormatFloat(float64(query.At.UnixMilli())/1000, 'f', 3, 64)},
	}
	if query.Lookback > 0 {
		v.Set("lookback_delta", strconv.FormatFloat(query.Lookback.Seconds(), 'f', 3, 64))
	}
	if !q.opts.PlainParams {
		v.Set("dedup", "true")
		v.Set("partial_response", "true") // what is missing is in the warnings
	}
	return v
}

// ask asks one address. An error is of kind Invalid if the query is at fault, and Unavailable if the querier is.
func (q *Querier) ask(ctx context.Context, a address, query rule.Query) (rule.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	form := q.form(query).Encode()
	at, body := a.url, io.Reader(strings.NewReader(form))
	if q.opts.Method == http.MethodGet {
		at, body = a.url+"?"+form, nil
	}
	req, err := http.NewRequestWithContext(ctx, q.opts.Method, at, body)
	if err != nil {
		return rule.Answer{}, errs.Wrap(errs.Invalid, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	names := make([]string, len(query.Tenants))
	for i, id := range query.Tenants {
		names[i] = string(id)
	}
	req.Header.Set(q.opts.TenantHeader, strings.Join(names, "|"))
	resp, err := a.client.Do(req)
	if err != nil {
		return rule.Answer{}, errs.E(errs.Unavailable, "%s", secret.URLs(err.Error()))
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, q.opts.MaxBytes+1))
	switch {
	case err != nil:
		return rule.Answer{}, errs.E(errs.Unavailable, "%s: %w", a.url, err)
	case int64(len(content)) > q.opts.MaxBytes:
		return rule.Answer{}, errs.E(errs.Invalid, "%s: the answer has more than %d bytes", a.url, q.opts.MaxBytes)
	}
	answer, err := decode(resp.StatusCode, content)
	if err != nil {
		return answer, fmt.Errorf("%s: %w", a.url, err)
	}
	return answer, nil
}

// envelope is an answer of Prometheus's API.
type envelope struct {
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
	Data      struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

// shownBytes is how much of an answer that is no JSON an error shows.
const shownBytes = 200

// decode reads an answer.
func decode(status int, content []byte) (rule.Answer, error) {
	var e envelope
	if err := json.Unmarshal(content, &e); err != nil || e.Status != "success" {
		text := e.Error
		if text == "" {
			text = string(bytes.ToValidUTF8(content[:min(len(content), shownBytes)], []byte("?")))
		}
		kind := errs.Unavailable
		switch {
		case e.ErrorType == "bad_data", e.ErrorType == "execution" && status == http.StatusUnprocessableEntity,
			status == http.StatusBadRequest:
			kind = errs.Invalid
		}
		return rule.Answer{}, errs.E(kind, "status %d: %s", status, strings.TrimSpace(text))
	}
	var a rule.Answer
	for _, w := range e.Warnings {
		if !strings.HasPrefix(w, "PromQL warning: ") && !strings.HasPrefix(w, "PromQL info: ") {
			a.Missing = append(a.Missing, w)
		}
	}
	var err error
	a.Vector, err = vector(e.Data.Type, e.Data.Result)
	return a, err
}
