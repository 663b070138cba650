package template

import (
	"reflect"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
)

// The sizes that a value without text is counted with when it is printed. A float may have 300 digits before the dot.
const (
	sizeOfScalar  = 330
	sizeOfBucket  = 100
	sizeOfPointer = 64 // that of a time is printed as the time
)

// sizeOf is about how many bytes v takes when fmt prints it, or any number above limit. Below the top (depth 0) fmt
// prints pointers as addresses.
func sizeOf(v reflect.Value, depth, limit int) int {
	if !v.IsValid() {
		return sizeOfScalar
	}
	if v.CanInterface() {
		if h, ok := v.Interface().(*histogram.FloatHistogram); ok && h != nil {
			return sizeOfBucket * (1 + len(h.PositiveBuckets) + len(h.NegativeBuckets) + len(h.CustomValues))
		}
	}
	size := 1
	switch v.Kind() {
	case reflect.String:
		size += v.Len()
	case reflect.Pointer:
		if size = sizeOfPointer; depth == 0 && !v.IsNil() {
			size = sizeOf(v.Elem(), depth+1, limit)
		}
	case reflect.Interface:
		if !v.IsNil() {
			size += sizeOf(v.Elem(), depth, limit)
		}
	case reflect.Slice, reflect.Array:
		for i := 0; i < v.Len() && size <= limit; i++ {
			size += sizeOf(v.Index(i), depth+1, limit)
		}
	case reflect.Map:
		for all := v.MapRange(); size <= limit && all.Next(); {
			size += sizeOf(all.Key(), depth+1, limit) + sizeOf(all.Value(), depth+1, limit)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField() && size <= limit; i++ {
			size += sizeOf(v.Field(i), depth+1, limit)
		}
	default:
		size += sizeOfScalar
	}
	return size
}

// sizes is how many bytes values take together, and the largest of them, up to about limit.
func sizes(values []any, limit int) (sum, largest int) {
	for _, v := range values {
		size := sizeOf(reflect.ValueOf(v), 0, limit)
		if sum, largest = sum+size, max(largest, size); sum > limit {
			break
		}
	}
	return sum, largest
}

// maxEscaped is how many bytes a byte becomes at most, with %q, html or js.
const maxEscaped = 6

// formatted is how many bytes format may become at most: for each verb its width and precision, and the largest of the
// values, since a verb can name any of them. A width may be one of the values, too (%*d).
func formatted(format string, values []any) int {
	_, largest := sizes(values, maxMade)
	star := 0
	for _, v := range values {
		if n := reflect.ValueOf(v); n.CanInt() {
			star = max(star, int(min(abs(n.Int()), maxMade)))
		} else if n.CanUint() {
			star = max(star, int(min(n.Uint(), maxMade)))
		}
	}
	size := len(format)
	for rest := format; size <= maxMade; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			break
		}
		rest = after
		verb := maxEscaped*largest + sizeOfScalar
		number := 0
	flags:
		for i := range len(rest) {
			switch c := rest[i]; {
			case c >= '0' && c <= '9':
				number = min(10*number+int(c-'0'), maxMade)
			case c == '*':
				verb += star
			case strings.IndexByte(" +-#.[]", c) >= 0:
				verb, number = verb+number, 0
			default:
				break flags
			}
		}
		size += verb + number
	}
	// What no verb uses is printed behind the text: %!(EXTRA string=...).
	sum, _ := sizes(values, maxMade)
	return size + maxEscaped*sum + sizeOfScalar*len(values)
}

// abs is the absolute value; that of the least integer stays negative, which no width can be.
func abs(n int64) int64 {
	if n < 0 {
		return max(-n, 0)
	}
	return n
}
