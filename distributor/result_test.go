package distributor

import (
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestResultKind: samples decide on a request; exemplars and metadata do so only where there is nothing else, and
// sending them again can help.
func TestResultKind(t *testing.T) {
	f := func(name string, stored int, want errs.Kind, failures ...wire.Failure) {
		t.Helper()
		r := Result{Samples: stored, Series: 3, Failures: failures}
		if got := r.Kind(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if got := errs.KindOf(r.Err()); got != want {
			t.Errorf("%s: error of kind %s, want %s", name, got, want)
		}
	}
	exemplars := func(k errs.Kind) wire.Failure { return wire.Failure{Series: 1, Kind: k, Exemplars: 2} }
	metadata := func(k errs.Kind) wire.Failure { return wire.Failure{Series: -1, Kind: k} }
	f("all stored", 1, errs.OK)
	for _, k := range []errs.Kind{errs.Invalid, errs.Conflict, errs.TooLarge, errs.Limited, errs.Unavailable, errs.Internal, errs.Exhausted} {
		f("exemplars beside samples: "+k.String(), 1, errs.OK, exemplars(k))
		f("metadata beside samples: "+k.String(), 1, errs.OK, metadata(k))
		f("both beside samples that failed: "+k.String(), 0, errs.Conflict, exemplars(k), metadata(k), wire.Failure{Kind: errs.Conflict, Samples: 1})
		f("both beside histograms that failed: "+k.String(), 0, errs.Invalid, exemplars(k), wire.Failure{Series: -1, Kind: errs.Invalid, Histograms: 1})
	}
	for _, k := range []errs.Kind{errs.Invalid, errs.Conflict, errs.TooLarge} {
		f("exemplars alone: "+k.String(), 0, errs.OK, exemplars(k))
		f("metadata alone: "+k.String(), 0, errs.OK, metadata(k))
	}
	f("exemplars alone, no quorum", 0, errs.Unavailable, exemplars(errs.Unavailable))
	f("metadata alone, no quorum", 0, errs.Unavailable, metadata(errs.Unavailable))
	f("exemplars of a sample that failed", 1, errs.Conflict, wire.Failure{Kind: errs.Conflict, Samples: 1, Exemplars: 1})
	dropped := Result{Dropped: Dropped{Samples: 1}, Failures: []wire.Failure{exemplars(errs.Unavailable)}}
	if dropped.Kind() != errs.OK {
		t.Error("exemplars beside samples that were dropped on purpose decide")
	}
}
