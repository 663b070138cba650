package frontend

import (
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestReadCacheConfig(t *testing.T) {
	f := func(text string, want CacheConfig, fault string) {
		t.Helper()
		got, err := ReadCacheConfig("cache.yml", []byte(text))
		switch {
		case fault == "" && (err != nil || got != want):
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		case fault != "" && (errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), fault) ||
			!strings.Contains(err.Error(), "cache.yml")):
			t.Errorf("%q: %v; want %q", text, err, fault)
		}
	}
	f("type: IN-MEMORY", CacheConfig{MaxBytes: DefaultCacheBytes}, "")
	f("type: IN-MEMORY\nconfig: {max_size: 1MB, max_size_items: 7, validity: 24h}\n",
		CacheConfig{MaxBytes: 1 << 20, MaxItems: 7, Validity: 24 * time.Hour}, "")
	f("type: IN-MEMORY\nexpiration: 1h\n", CacheConfig{MaxBytes: DefaultCacheBytes, Validity: time.Hour}, "")
	f("type: MEMCACHED\nconfig: {}\n", CacheConfig{}, "only IN-MEMORY is known")
	f("type: IN-MEMORY\nconfig: {max_sice: 1MB}\n", CacheConfig{}, "max_sice")
	f("config: {}\n", CacheConfig{}, "only IN-MEMORY is known")
	f("", CacheConfig{}, "only IN-MEMORY is known")
	f("type: IN-MEMORY\nvalidity: 1h\n", CacheConfig{}, "validity")
}
