package distributor

import (
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestRefusal: nothing of a tenant that takes no writes is placed, and no limit of it is used up; others are stored.
func TestRefusal(t *testing.T) {
	refused := map[tenant.ID]bool{}
	opts := DefaultOptions()
	opts.Refusal = func(id tenant.ID) error {
		if refused[id] {
			return errs.E(errs.Invalid, "tenant %q is to be deleted", id)
		}
		return nil
	}
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	if r := c.push(batch(3)); r.Err() != nil {
		t.Fatal(r.Err())
	}
	b := batch(3)
	refused[b.Tenant] = true
	_, err := c.Push(t.Context(), b)
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "is to be deleted") {
		t.Error(err)
	}
}
