package sourcetest

import (
	"testing"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func TestMemory(t *testing.T) {
	Run(t, func(_ *testing.T, id tenant.ID, in []Series) series.Source {
		return &Memory{Data: map[tenant.ID][]Series{id: in}}
	})
}
