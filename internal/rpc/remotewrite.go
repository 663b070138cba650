package rpc

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/prompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Thanos's way of passing writes on: WriteableStore.RemoteWrite, both directions.

// thanosWrite is a WriteRequest. A tenant's series are kept as a prometheus.WriteRequest, since the bytes of their time
// series are the same.
type thanosWrite struct {
	replica int64
	tenants []thanosTuple
}

type thanosTuple struct {
	tenant   string
	requests []byte
}

// Memory of a RemoteWrite call: the first two while it is decoded, enough for nearly all messages; the third
// afterwards.
const (
	remoteMost  = 16        // times the message: series of few labels and one sample are much larger in memory
	remoteLeast = 128 << 10 // what the decoder asks for at first, however small the message
	remoteCost  = 4         // times the message: itself, a copy of a tenant's part, the batch
)

// remoteFrame is a WriteRequest as it came. The call decodes it after it has reserved memory.
type remoteFrame struct {
	ctx      context.Context
	from     budget
	reserved *reservation
	used     int64 // of reserved
	data     []byte
	err      error // why no memory was reserved
}

// decode waits for memory before it copies anything. Until then only the bytes that gRPC received are in memory.
func (f *remoteFrame) decode(data mem.BufferSlice) error {
	size := int64(data.Len())
	if f.reserved, f.err = f.from.takeInLine(f.ctx, f.from.atMost(remoteMost*size+remoteLeast), size); f.err == nil {
		f.data = data.Materialize()
	}
	return nil // gRPC would end the call with a status of its own
}

// reserve is the wire.Budget of the batch that is being decoded. Memory beyond the first reservation must be free at
// once: a call that waited for more would hold what others wait for.
func (f *remoteFrame) reserve(bytes int64, _ bool) error {
	used := f.used + bytes
	if missing := used - f.reserved.bytes; missing > 0 && !f.reserved.more(missing) {
		if used > f.from.all {
			return errs.E(errs.TooLarge,
				"a message of %d bytes takes more than the %d bytes of memory that there are for all", len(f.data), f.from.all)
		}
		return errs.E(errs.Unavailable,
			"the %d bytes of memory that a message of %d takes are not free: too many at a time", used, len(f.data))
	}
	f.used = used
	return nil
}

// remoteWriteMethod is RemoteWrite. Its request reserves memory as it is decoded.
func remoteWriteMethod() grpc.MethodDesc {
	handler := func(
		srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor,
	) (any, error) {
		h := srv.(*writeServer)
		info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + serviceWriteable + "/RemoteWrite"}
		// A request that is refused before it is decoded also passes the interceptor, which makes statuses and counts calls.
		return intercept(ctx, nil, info, func(ctx context.Context, _ any) (any, error) {
			in := remoteFrame{ctx: ctx, from: h.server.remote}
			defer func() { in.reserved.release() }()
			if err := receive(ctx, func() error { return decode(&in) }); err != nil {
				return nil, err
			}
			if in.err != nil {
				return nil, in.err
			}
			return h.remoteWrite(ctx, &in)
		})
	}
	return grpc.MethodDesc{MethodName: "RemoteWrite", Handler: handler}
}

func (h *writeServer) remoteWrite(ctx context.Context, in *remoteFrame) (*thanospb.WriteResponse, error) {
	w, err := parseThanosWrite(in.data)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if w.replica < 0 {
		return nil, errs.E(errs.Invalid, "replica %d must not be negative", w.replica)
	}
	var f fold
	for _, t := range w.tenants {
		if err := h.writeTuple(ctx, t, w.replica == 0 && h.route != nil, in, &f); err != nil {
			f.add(errs.KindOf(err), err.Error())
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return &thanospb.WriteResponse{}, nil
}

// writeTuple stores or routes one tenant's series. Series that are not stored go to f, or the error is for all of them.
func (h *writeServer) writeTuple(ctx context.Context, t thanosTuple, routed bool, in *remoteFrame, f *fold) error {
	id := tenant.Default
	if t.tenant != "" {
		parsed, err := tenant.Parse(t.tenant)
		if err != nil {
			return err
		}
		id = parsed
	}
	in.used = min(2*int64(len(in.data)), in.reserved.bytes) // the message, and the copies of its parts
	b, err := (*wire.SeriesCache)(nil).DecodeV1(id, t.requests, in.reserve)
	if err != nil {
		return err
	}
	defer b.Release()
	if len(t.requests) > len(in.data)/2 { // no other tenant's part will be larger
		in.reserved.keep(remoteCost*int64(len(in.data)) + b.Content())
	}
	for _, r := range b.Rejected {
		if r.Whole+r.Samples+r.Histograms > 0 { // exemplars decide nothing
			f.add(r.Kind, r.Reason)
		}
	}
	if err := in.reserved.claim(ctx, id); err != nil {
		return err
	}
	defer in.reserved.disclaim()
	if routed {
		return h.route(ctx, b)
	}
	failures, err := h.writer.Write(ctx, wire.All(b))
	for _, r := range failures {
		f.add(r.Kind, r.Reason)
	}
	return err
}

// fold makes one status of many outcomes, as a Thanos sender understands it: Conflict is final and counts against its
// quorum, Unavailable is tried again, anything else fails the whole request at the sender.
type fold struct {
	kind   errs.Kind
	reason string
	n      int
}

// rank orders what Thanos knows: the worst wins.
func rank(k errs.Kind) int {
	switch k {
	case errs.OK:
		return 0
	case errs.Conflict:
		return 1
	case errs.Unavailable:
		return 2
	}
	return 3
}

func (f *fold) add(k errs.Kind, reason string) {
	switch k {
	case errs.OK: // exemplars only
		return
	case errs.Invalid, errs.TooLarge:
		k = errs.Conflict // a series that can never be stored; another code would make Thanos's sender retry it for ever
	case errs.Limited, errs.Exhausted:
		k = errs.Unavailable
	}
	f.n++
	if rank(k) > rank(f.kind) {
		f.kind, f.reason = k, reason
	}
}

func (f *fold) err() error {
	switch {
	case f.n == 0:
		return nil
	case f.n == 1:
		return errs.E(f.kind, "%s", f.reason)
	}
	return errs.E(f.kind, "%s (and %d more faults)", f.reason, f.n-1)
}

// parseThanosWrite reads both forms of the message: series with one tenant, and series by tenant.
func parseThanosWrite(m []byte) (thanosWrite, error) {
	var w thanosWrite
	var old thanosTuple
	err := fields(m, func(num protowire.Number, n uint64, b []byte) error {
		switch {
		case num == 3:
			w.replica = int64(n)
		case num == 4 && b != nil:
			t, err := parseTuple(b)
			if len(t.requests) > 0 { // one without series is two bytes here, and many times that in the list
				w.tenants = append(w.tenants, t)
			}
			return err
		case b != nil:
			old.field(num, b)
		}
		return nil
	})
	if len(old.requests) > 0 {
		w.tenants = append(w.tenants, old)
	}
	return w, err
}

func parseTuple(m []byte) (t thanosTuple, err error) {
	err = fields(m, func(num protowire.Number, _ uint64, b []byte) error {
		if b != nil {
			t.field(num, b)
		}
		return nil
	})
	return t, err
}

// field takes a field of a tuple, which a WriteRequest has too.
func (t *thanosTuple) field(num protowire.Number, b []byte) {
	switch num {
	case 1:
		t.requests = protowire.AppendBytes(append(t.requests, 1<<3|2), b)
	case 2:
		t.tenant = string(b)
	}
}

// writePlain stores s at a member that knows only RemoteWrite. Its response is for the request as a whole, and it
// takes no metadata, which is lost. A Thanos receiver with a ring of its own routes requests by the number of the
// copy, so each copy goes in a request of its own, with its number.
func (c *Client) writePlain(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	parts := byCopy(s)
	switch len(parts) {
	case 0: // nothing but metadata
		return nil, nil
	case 1:
		return nil, c.remoteWrite(ctx, parts[0])
	}
	failed := make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() { failed[i] = c.remoteWrite(ctx, part) })
	}
	all.Wait()
	return failuresOf(parts, failed)
}

// failuresOf is the outcome of a shard's parts: an error when all failed with one kind, or else the failed series, so
// that stored series are not sent again.
func failuresOf(parts []copies, failed []error) ([]wire.Failure, error) {
	kind := errs.KindOf(failed[0])
	if kind != errs.OK && !slices.ContainsFunc(failed, func(err error) bool { return errs.KindOf(err) != kind }) {
		return nil, failed[0]
	}
	var failures []wire.Failure
	for i, part := range parts {
		if failed[i] == nil {
			continue
		}
		kind, reason := errs.KindOf(failed[i]), failed[i].Error()
		for _, at := range part.Series {
			one := &part.Batch.Series[at]
			failures = append(failures, wire.Failure{
				Series: int(at), Kind: kind, Reason: reason,
				Samples: len(one.Samples), Histograms: len(one.Histograms), Exemplars: len(one.Exemplars),
			})
		}
	}
	return failures, nil
}

// copies are the series of a shard whose copies at the member have one number.
type copies struct {
	wire.Shard
	number int // from 1
}

// byCopy divides s by the numbers of its copies. Without series there are no parts.
func byCopy(s wire.Shard) []copies {
	if s.Copies == nil {
		return []copies{{s, 1}}
	}
	var parts []copies
	for _, i := range s.Series {
		number := s.Copies.CopyOf(i) + 1
		at := slices.IndexFunc(parts, func(p copies) bool { return p.number == number })
		if at < 0 {
			at = len(parts)
			parts = append(parts, copies{wire.Shard{Batch: s.Batch}, number})
		}
		parts[at].Series = append(parts[at].Series, i)
	}
	return parts
}

func (c *Client) remoteWrite(ctx context.Context, s copies) error {
	if len(s.Series) == 0 {
		return nil
	}
	ctx = c.outgoing(ctx, s.Batch.Tenant)
	return c.invoke(ctx, "/"+serviceWriteable+"/RemoteWrite", thanosFrame(s), &thanospb.WriteResponse{})
}

// thanosFrame is s as a WriteRequest that has been placed already: its replica is not 0. Its form is that with one
// tenant, which all releases of Thanos know: a release that does not know tuples would store nothing of them, and
// report success.
func thanosFrame(s copies) *encoded {
	body, one := frames.empty(), frames.empty()
	defer frames.Put(one)
	m := *body
	for _, i := range s.Series {
		*one = appendTimeSeries((*one)[:0], &s.Batch.Series[i])
		m = protowire.AppendBytes(append(m, 1<<3|2), *one)
	}
	*body = protowire.AppendString(append(m, 2<<3|2), string(s.Batch.Tenant))
	return &encoded{head: protowire.AppendVarint([]byte{3 << 3}, uint64(s.number)), body: body}
}

// appendTimeSeries appends s as a prometheus.TimeSeries. Start timestamps have no field there.
func appendTimeSeries(dst []byte, s *wire.Series) []byte {
	dst = appendCanonical(dst, s.Labels())
	for _, p := range s.Samples {
		content := sizeFixed + sizeTime(p.T)
		dst = protowire.AppendVarint(append(dst, 2<<3|2), uint64(content))
		dst = appendPoint(dst, 1, p.V, p.T)
	}
	for _, e := range s.Exemplars {
		content := appendPoint(appendCanonical(nil, e.Labels), 2, e.V, e.T)
		dst = protowire.AppendBytes(append(dst, 3<<3|2), content)
	}
	for _, h := range s.Histograms {
		var m prompb.Histogram
		if h.H != nil {
			m = prompb.FromIntHistogram(h.T, h.H)
		} else {
			m = prompb.FromFloatHistogram(h.T, h.FH)
		}
		content, err := m.Marshal()
		if err != nil {
			panic("BUG: a histogram does not marshal: " + err.Error())
		}
		dst = protowire.AppendBytes(append(dst, 4<<3|2), content)
	}
	return dst
}

const sizeFixed = 9 // a tag and eight bytes

func sizeTime(t int64) int { return 1 + sizeVarint(uint64(t)) }

// appendPoint appends a value as field num and a time as the field after it.
func appendPoint(dst []byte, num int, v float64, t int64) []byte {
	dst = protowire.AppendFixed64(append(dst, byte(num<<3|1)), math.Float64bits(v))
	return protowire.AppendVarint(append(dst, byte((num+1)<<3)), uint64(t))
}

// appendCanonical appends canonical label bytes as fields labels = 1.
func appendCanonical(dst, canonical []byte) []byte {
	for len(canonical) > 0 {
		var name, value string
		name, value, canonical = wire.NextLabel(canonical)
		dst = protowire.AppendVarint(append(dst, tagLabels), uint64(sizeField(len(name))+sizeField(len(value))))
		dst = protowire.AppendString(append(dst, tagName), name)
		dst = protowire.AppendString(append(dst, tagValue), value)
	}
	return dst
}
