package tsdb

import (
	"reflect"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
)

// slim drops what a new summary has set aside for observations to come; it grows again as they come. The two logs of a
// TSDB each have a summary of fsyncs, of which there are few, and which set 70 KB aside: a third of what a small tenant
// takes. There is no other way to their fields. Anything of an unexpected form is left as it is.
//
// It must be called before c is used.
func slim(c prometheus.Collector) {
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
