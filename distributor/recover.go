package distributor

import (
	"runtime/debug"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// recoverAs is deferred by code that reads the bytes of a request on a goroutine that is not the request's own. It
// hands a panic, if there is one, to failed as an error. The panic then costs that request, or its shard for one
// member, and not the process.
func (d *Distributor) recoverAs(doing string, failed func(error)) {
	if p := recover(); p != nil {
		d.log.Error("panic in a write", "doing", doing, "panic", p, "stack", string(debug.Stack()))
		failed(errs.E(errs.Internal, "panic: %v", p))
	}
}
