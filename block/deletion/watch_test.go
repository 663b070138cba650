package deletion

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestWatcher: a request is seen with the next look, and counts while the bucket does not answer.
func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := &counted{Bucket: objstore.NewInMemBucket()}
		w := NewWatcher(slog.New(slog.DiscardHandler), bkt, 30*time.Second)
		if err := w.Refusal("acme"); err != nil {
			t.Error("before it looked:", err)
		}
		if err := w.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		synctest.Wait()
		if err := Put(t.Context(), bkt, New("acme", time.Now(), time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if err := w.Refusal("acme"); errs.KindOf(err) != errs.Invalid {
			t.Error(err)
		}
		bkt.fails = "list"
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.Refusal("acme") == nil || w.Refusal("other") != nil {
			t.Error("a bucket that does not answer")
		}
	})
}
