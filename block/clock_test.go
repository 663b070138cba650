package block

import (
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestCheckClock: a clock that differs by more than MaxSkew stops deletion.
func TestCheckClock(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	for off, want := range map[time.Duration]errs.Kind{0: errs.OK, 4 * time.Minute: errs.OK, -4 * time.Minute: errs.OK,
		6 * time.Minute: errs.Conflict, -6 * time.Minute: errs.Conflict, 24 * 365 * time.Hour: errs.Conflict} {
		now := func() time.Time { return time.Now().Add(off) }
		if err := CheckClock(t.Context(), bkt, "a", now); errs.KindOf(err) != want {
			t.Errorf("%s: %v", off, err)
		}
	}
}
