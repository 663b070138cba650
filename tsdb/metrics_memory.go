package tsdb

import (
	"reflect"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
)

// trimSummary frees the buffers that a new summary allocates for observations to come; they grow again as
// observations come. Each of a TSDB's two logs has a summary of its fsyncs, of which there are few. Their buffers are
// 139 KB of the 482 KB of heap that an open tenant of 20 series takes (1,000 tenants,
// docs/design/018-memory-of-a-tenant.md). The library has no option for it, so the fields are reached by reflection.
// A collector that is not built as expected is left as it is; a test fails when a new version of the library has
// other fields.
//
// It must be called before c is used.
func trimSummary(c prometheus.Collector) {
	v := reflect.ValueOf(c)
	for {
		if v = reflect.Indirect(v); v.Kind() != reflect.Struct {
			return
		}
		inner := v.FieldByName("wrappedCollector")
		if !inner.IsValid() {
			break
		}
		v = inner.Elem()
	}
	streams := v.FieldByName("streams")
	if streams.Kind() != reflect.Slice {
		return
	}
	forget(v.FieldByName("hotBuf"))
	forget(v.FieldByName("coldBuf"))
	for i := range streams.Len() {
		if s := reflect.Indirect(streams.Index(i)); s.Kind() == reflect.Struct {
			forget(s.FieldByName("b"))
		}
	}
}

// forget makes an empty slice nil.
func forget(f reflect.Value) {
	if f.IsValid() && f.Kind() == reflect.Slice && f.CanAddr() && f.Len() == 0 {
		reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().SetZero()
	}
}
