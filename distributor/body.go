package distributor

import (
	"io"
	"net/http"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// incoming is a request on its way in: what it holds of the gate, and how long its body may be.
type incoming struct {
	*reservation
	maxBody int64
	limited bool // maxBody is the tenant's limit
}

// accept lets a request in as far as its header goes. It holds nothing yet.
func (d *Distributor) accept(req *http.Request, id tenant.ID) (incoming, error) {
	in := incoming{maxBody: d.opts.MaxBody}
	if l := d.limitsOf(id); l != nil && l.RequestBytes > 0 && l.RequestBytes <= in.maxBody {
		in.maxBody, in.limited = l.RequestBytes, true
	}
	a := d.tenants.of(id)
	if req.ContentLength > in.maxBody {
		return in, in.tooLarge(a, req.ContentLength)
	}
	t, err := d.gate.begin(a, httpx.ClientNetwork(req.RemoteAddr), max(req.ContentLength, 0))
	in.reservation = t
	return in, err
}

// pieceSize is how much of a body must have come before the body gets a buffer for all of it, which is many times
// larger. A body that ends earlier gets the buffer at its end.
const pieceSize = 16 << 10

// piecePool keeps pieces that no request uses.
var piecePool = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// body reads the body of a request. It asks for memory as the body comes, and for a place when all of it has come.
type body struct {
	in      incoming
	rest    io.Reader
	first   [64]byte         // of the body
	piece   *[pieceSize]byte // what came before there was a buffer; nil otherwise
	unread  []byte           // part of piece or first that nobody has read yet
	ended   error            // the error of rest, io.EOF at its end
	refused error            // what the gate said
}

// open waits for the first part of the body. A body of which nothing comes holds no memory meanwhile, and a body of
// which little comes holds one piece.
func (in incoming) open(from io.Reader) (*body, error) {
	b := &body{in: in, rest: from}
	n := 0
	for n == 0 && b.ended == nil {
		n, b.ended = from.Read(b.first[:])
	}
	b.unread = b.first[:n]
	if b.ended != nil {
		return b, nil
	}
	if err := in.ask(pieceSize, false); err != nil {
		return nil, err
	}
	b.piece = piecePool.Get().(*[pieceSize]byte)
	n = copy(b.piece[:], b.unread)
	for n < pieceSize && b.ended == nil {
		var more int
		more, b.ended = from.Read(b.piece[n:])
		n += more
	}
	b.unread = b.piece[:n]
	return b, nil
}

// Read implements io.Reader. The end of the body comes only with a place within the gate.
func (b *body) Read(p []byte) (n int, err error) {
	if len(b.unread) > 0 {
		n = copy(p, b.unread)
		b.unread = b.unread[n:]
		return n, nil
	}
	b.dropPiece()
	if b.ended == nil {
		n, b.ended = b.rest.Read(p)
	}
	if b.ended == io.EOF {
		if b.refused = b.in.enter(); b.refused != nil {
			return n, b.refused
		}
	}
	return n, b.ended
}

// dropPiece gives the piece back.
func (b *body) dropPiece() {
	if b.piece != nil {
		piecePool.Put(b.piece)
		b.piece = nil
	}
}

// receive reads the body into a buffer by read. The caller gives the buffer back with wire.PutBuffer, unless there is
// an error.
func (in incoming) receive(from io.Reader, read func(*wire.Buffer, io.Reader) ([]byte, error)) (
	*wire.Buffer, []byte, error) {
	b, err := in.open(from)
	if err != nil {
		return nil, nil, err
	}
	defer b.dropPiece()
	buf := wire.GetBuffer()
	buf.SetBudget(in.ask)
	msg, err := read(buf, b)
	if err == nil {
		return buf, msg, nil
	}
	defer wire.PutBuffer(buf)
	if b.refused != nil {
		return nil, nil, b.refused
	}
	return nil, nil, in.fault(buf, err)
}

// fault is err, which ended the reading of the body into b. An error about the tenant's limit names that limit.
func (in incoming) fault(b *wire.Buffer, err error) error {
	if n := b.Received(); n > in.maxBody && errs.KindOf(err) == errs.TooLarge {
		return in.tooLarge(in.tenant, n)
	}
	return err
}

// tooLarge is the error of a body of n bytes.
func (in incoming) tooLarge(a *tenantState, n int64) error {
	if !in.limited {
		return errs.E(errs.TooLarge, "tenant %s: body of %d bytes or more is larger than the %d that this process takes",
			a.id, n, in.maxBody)
	}
	a.refused("request_bytes", 0)
	return errs.E(errs.TooLarge, "tenant %s: body of %d bytes or more, more than request_bytes %d: send smaller "+
		"requests, or raise it in --runtime-config.file", a.id, n, in.maxBody)
}
