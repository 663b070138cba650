package distributor

import (
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// protocol is a version of remote write. Only the content type of the request says which. The header
// X-Prometheus-Remote-Write-Version says less and is ignored.
type protocol struct {
	version string
	decode  func(k *wire.SeriesCache, id tenant.ID, msg []byte, budget wire.Budget) (*wire.Batch, error)
	// counts says that headers of the answer have the counts of what was written.
	counts bool
	// conflict is the status of a request that contradicts what is stored.
	conflict int
}

var (
	unknownProtocol = protocol{version: "unknown", conflict: http.StatusConflict}
	remoteWrite1    = protocol{version: "1.0", decode: (*wire.SeriesCache).DecodeV1, conflict: http.StatusConflict}
	remoteWrite2    = protocol{
		version: "2.0", decode: (*wire.SeriesCache).DecodeV2, conflict: http.StatusBadRequest, counts: true,
	}
)

// Handler takes remote-write requests, 1.0 and 2.0, by POST.
//
// Answers: 204 all written; 400 the body, the tenant or some series are wrong, or (2.0) contradict what is stored; 409
// the same in 1.0; 405; 413 too large; 415 not a form of remote write; 429 over a limit; 503 this process or too many
// members cannot now. With 400, 409, 429 and 503 a part of the series may be stored: the text says what was not. 429
// and 503 come with Retry-After. Answers to 2.0 always have the counts of what was written. What rules of this process
// drop on purpose counts as written, since a sender takes what is missing for lost.
func (d *Distributor) Handler() http.Handler { return d.handler(&d.ring) }

// PlacedHandler is Handler for requests whose series another process has placed already: they are stored by p, which
// stays the same, and not by the ring. Bounds, limits and metrics are those of all requests. A process has one for each
// p.
func (d *Distributor) PlacedHandler(p ring.Placement) http.Handler { return d.handler(d.placedAt(p)) }

// handler is Handler for requests whose series go to a destination.
func (d *Distributor) handler(to *destination) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		start := time.Now()
		proto, result, err := d.serve(req, to)
		if proto.counts {
			h := w.Header()
			taken := result.taken()
			h.Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(taken.Samples))
			h.Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(taken.Histograms))
			h.Set("X-Prometheus-Remote-Write-Exemplars-Written", strconv.Itoa(taken.Exemplars))
		}
		status := http.StatusNoContent
		if err != nil {
			status = writeError(w, req, proto, err)
		} else {
			w.WriteHeader(status)
		}
		d.metrics.requests.WithLabelValues(proto.version, strconv.Itoa(status)).Inc()
		d.metrics.requestTime.Observe(time.Since(start).Seconds())
	})
}

// writeError answers with err and returns the status.
func writeError(w http.ResponseWriter, req *http.Request, proto protocol, err error) int {
	kind := errs.KindOf(err)
	status := kind.HTTPStatus()
	switch {
	case req.Method != http.MethodPost:
		status = http.StatusMethodNotAllowed
		w.Header().Set("Allow", http.MethodPost)
	case kind == errs.Conflict:
		status = proto.conflict
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(err)))
	}
	http.Error(w, err.Error(), status)
	return status
}

// retryAfter is in how many seconds a sender should come back: what err asks for, else a few, not the same for all.
func retryAfter(err error) int {
	if n := errs.RetrySeconds(err); n > 0 {
		return n
	}
	return 1 + rand.N(5)
}

// serve does all of a request except the answer.
func (d *Distributor) serve(req *http.Request, to *destination) (protocol, Result, error) {
	if req.Method != http.MethodPost {
		return unknownProtocol, Result{}, errs.E(errs.Unsupported, "remote write is a POST request")
	}
	proto, err := negotiate(req.Header)
	if err != nil {
		return unknownProtocol, Result{}, err
	}
	id, err := d.opts.Resolver.Write(req)
	if err != nil {
		return proto, Result{}, err
	}
	httpx.NoteTenant(req.Context(), string(id))
	in, err := d.accept(req, id)
	if err != nil {
		return proto, Result{}, err
	}
	defer in.done()
	batch, err := d.read(req, proto, in)
	if err != nil {
		return proto, Result{}, err
	}
	defer batch.Release()
	result, err := d.pushTo(req.Context(), to, batch)
	if err == nil {
		err = result.Err()
	}
	return proto, result, err
}

// read reads and decodes the body. From then on the request holds the memory of its batch only.
func (d *Distributor) read(req *http.Request, proto protocol, in incoming) (*wire.Batch, error) {
	buf, msg, err := in.receive(req.Body, func(b *wire.Buffer, from io.Reader) ([]byte, error) {
		return b.ReadSnappy(from, in.maxBody, d.opts.MaxDecoded)
	})
	if err != nil {
		return nil, err
	}
	batch, err := proto.decode(d.cacheFor(in.tenant.id), in.tenant.id, msg, in.ask)
	if err != nil {
		wire.PutBuffer(buf)
		return nil, err
	}
	batch.Own(buf)
	d.dropStarts(batch)
	in.settle(batch.Memory())
	return batch, nil
}

// dropStarts drops the start timestamps of a batch that was just decoded, unless its tenant has a use for them.
func (d *Distributor) dropStarts(b *wire.Batch) {
	if l := d.limitsOf(b.Tenant); l == nil || !l.StartTimestampZeros {
		b.DropStarts()
	}
}

// cacheFor is the cache in which the series of tenant id are looked for while its requests are decoded. It is nil when
// the labels of each series are needed anyway.
func (d *Distributor) cacheFor(id tenant.ID) *wire.SeriesCache {
	if l := d.limitsOf(id); d.opts.SplitLabel != "" || l != nil && l.HAPairs {
		return nil
	}
	return d.known
}

// negotiate finds the protocol from the headers. A body without a content type is remote write 1.0. A body without an
// encoding is taken for snappy, which both protocols demand.
func negotiate(h http.Header) (protocol, error) {
	if e := h.Get("Content-Encoding"); e != "" && e != "snappy" {
		return protocol{}, errs.E(errs.Unsupported, "content encoding %q is not supported, only snappy is", e)
	}
	const form = "application/x-protobuf"
	content := h.Get("Content-Type")
	switch content { // what senders send
	case "", form:
		return remoteWrite1, nil
	case form + ";proto=io.prometheus.write.v2.Request":
		return remoteWrite2, nil
	}
	media, params, err := mime.ParseMediaType(content)
	if err != nil || media != form {
		return protocol{}, errs.E(errs.Unsupported, "content type %q is not supported, only %s is", content, form)
	}
	switch message := params["proto"]; message {
	case "", "prometheus.WriteRequest":
		return remoteWrite1, nil
	case "io.prometheus.write.v2.Request":
		return remoteWrite2, nil
	default:
		return protocol{}, errs.E(errs.Unsupported,
			"message %q is not supported, prometheus.WriteRequest and io.prometheus.write.v2.Request are", message)
	}
}
