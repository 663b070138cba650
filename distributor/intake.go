package distributor

import (
	"net/http"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// intake is a request on its way in: its place within the gate, and how long its body may be.
type intake struct {
	*ticket
	maxBody int64
	limited bool // maxBody is the tenant's limit
}

// takeIn lets a request in as far as its header goes.
func (d *Distributor) takeIn(req *http.Request, id tenant.ID) (intake, error) {
	in := intake{maxBody: d.opts.MaxBody}
	if d.opts.Limits != nil {
		if l := d.opts.Limits(id).RequestBytes; l > 0 && l <= in.maxBody {
			in.maxBody, in.limited = l, true
		}
	}
	a := d.accounts.of(id)
	if req.ContentLength > in.maxBody {
		return in, in.tooLarge(a, req.ContentLength)
	}
	t, err := d.gate.enter(a, max(req.ContentLength, 0))
	in.ticket = t
	return in, err
}

// buffer is a buffer for the body, to be given back with wire.PutBuffer.
func (in intake) buffer() *wire.Buffer {
	b := wire.GetBuffer()
	b.Within(in.ask)
	return b
}

// fault is err, which ended the reading of the body into b, told with the tenant's limit if it is that.
func (in intake) fault(b *wire.Buffer, err error) error {
	if n := b.Received(); n > in.maxBody && errs.KindOf(err) == errs.TooLarge {
		return in.tooLarge(in.account, n)
	}
	return err
}

func (in intake) tooLarge(a *account, n int64) error {
	if !in.limited {
		return errs.E(errs.TooLarge, "tenant %s: body of %d bytes or more is larger than the %d that this process takes", a.id, n, in.maxBody)
	}
	a.refused("request_bytes", 0)
	return errs.E(errs.TooLarge, "tenant %s: body of %d bytes or more, more than request_bytes %d: send smaller requests, or raise it in --runtime-config.file",
		a.id, n, in.maxBody)
}
