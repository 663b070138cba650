package distributor

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/internal/wire/otlp"
)

// The memory that one OTLP request may take, as a multiple of Options.MaxDecoded: decoded, and as series. Both are a
// multiple of its bytes: an empty data point is two bytes, and a histogram names its labels once for all its series.
const (
	maxOTLPMemory = 8
	maxOTLPSeries = 4
)

// OTLPHandler takes OTLP metrics by POST, as protobuf or JSON, plain or gzip.
//
// Answers: 200 with an ExportMetricsServiceResponse that says how many data points were rejected, if any, and why; else
// a google.rpc.Status: 400 the body or the tenant is wrong or all data points are; 405; 413 too large; 415 not a form
// of OTLP; 429 over a limit; 503 this process or too many members cannot now, and the sender is to send it all again.
// 429 and 503 come with Retry-After. Both are in the encoding of the request.
func (d *Distributor) OTLPHandler(t *otlp.Translator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		start := time.Now()
		form, err := otlp.ParseContentType(req.Header.Get("Content-Type"))
		if req.Method != http.MethodPost {
			err = errs.E(errs.Unsupported, "OTLP is a POST request")
		}
		var body []byte
		if err == nil {
			body, err = d.serveOTLP(req, form, t)
		}
		status := http.StatusOK
		if err != nil {
			body, status = otlp.Refused(form, errs.KindOf(err), err.Error()), otlpStatus(w.Header(), req.Method, err)
		}
		w.Header().Set("Content-Type", form.ContentType())
		w.WriteHeader(status)
		w.Write(body) // a client that is gone needs no answer
		d.metrics.requests.WithLabelValues("otlp", strconv.Itoa(status)).Inc()
		d.metrics.requestTime.Observe(time.Since(start).Seconds())
	})
}

// otlpStatus is the status of a request that failed with err. What may pass later is 429 or 503: OTLP senders do not
// send again after 500.
func otlpStatus(h http.Header, method string, err error) int {
	kind := errs.KindOf(err)
	status := kind.HTTPStatus()
	switch {
	case method != http.MethodPost:
		h.Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed
	case kind == errs.Conflict:
		return http.StatusBadRequest
	case kind.Retryable():
		h.Set("Retry-After", strconv.Itoa(retryAfter(err)))
		if kind != errs.Limited {
			return http.StatusServiceUnavailable
		}
	}
	return status
}

// serveOTLP does all of a request except the answer, and makes the body of a good answer.
func (d *Distributor) serveOTLP(req *http.Request, form otlp.Form, t *otlp.Translator) ([]byte, error) {
	id, err := d.opts.Resolver.Write(req)
	if err != nil {
		return nil, err
	}
	httpx.NoteTenant(req.Context(), string(id))
	in, err := d.accept(req, id)
	if err != nil {
		return nil, err
	}
	defer in.done()
	md, err := d.readOTLP(req, form, in)
	if err != nil {
		return nil, err
	}
	limit := int(min(maxOTLPSeries*d.opts.MaxDecoded, math.MaxInt))
	translation, err := t.TranslateWithin(req.Context(), id, md, limit, in.ask)
	if err != nil {
		return nil, err
	}
	defer translation.Batch.Release()
	in.settle(translation.Batch.Memory())
	d.dropStarts(translation.Batch)
	result, err := d.Push(req.Context(), translation.Batch)
	if err != nil {
		return nil, err
	}
	return judgeOTLP(form, translation, result)
}

// readOTLP reads and decodes the body.
func (d *Distributor) readOTLP(req *http.Request, form otlp.Form, in incoming) (md pmetric.Metrics, err error) {
	buf, msg, err := in.receive(req.Body, func(b *wire.Buffer, from io.Reader) ([]byte, error) {
		return d.inflate(req, b, from, in.maxBody)
	})
	if err != nil {
		return md, err
	}
	defer wire.PutBuffer(buf)
	size, err := otlp.Size(form, msg)
	if err != nil {
		return md, err
	}
	if limit := maxOTLPMemory * d.opts.MaxDecoded; size > limit {
		return md, errs.E(errs.TooLarge, "message of %d bytes takes %d bytes of memory, more than %d",
			len(msg), size, limit)
	}
	if err := in.ask(size, false); err != nil {
		return md, err
	}
	md, err = otlp.Decode(form, msg)
	in.settle(size)
	return md, err
}

// inflate reads the body and decompresses it.
func (d *Distributor) inflate(req *http.Request, buf *wire.Buffer, from io.Reader, maxBody int64) ([]byte, error) {
	switch e := req.Header.Get("Content-Encoding"); e {
	case "", "identity":
		return buf.ReadPlain(from, maxBody)
	case "gzip":
		return buf.ReadGzip(from, maxBody, d.opts.MaxDecoded)
	default:
		return nil, errs.E(errs.Unsupported, "content encoding %q is not supported, gzip and none are", e)
	}
}

// judgeOTLP makes the body of the answer from the outcome of the series. It is an error when all is to be sent again or
// nothing was stored.
func judgeOTLP(form otlp.Form, t *otlp.Translation, result Result) ([]byte, error) {
	err := result.Err()
	if err == nil {
		return otlp.Accepted(form, 0, strings.Join(t.Warnings, "\n")), nil
	}
	if errs.KindOf(err).Retryable() {
		return nil, err
	}
	rejected := t.Rejected(result.Failures)
	if rejected > 0 && rejected >= t.Points {
		return nil, err
	}
	return otlp.Accepted(form, rejected, strings.Join(append([]string{err.Error()}, t.Warnings...), "\n")), nil
}
