package wire

import (
	"bytes"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Identify computes the key and the placement hash of a series from its whole canonical bytes: tenant Sep (name Sep
// value Sep)*. The key is a different one in each process. The placement hash is the same everywhere, for ever.
func Identify(tenantAndLabels []byte) (Key, uint64) {
	return hash128(tenantAndLabels), xxhash.Sum64(tenantAndLabels)
}

// NextLabel splits the first label off canonical label bytes. The strings alias canonical: copy what must outlive it.
func NextLabel(canonical []byte) (name, value string, rest []byte) {
	i := bytes.IndexByte(canonical, Sep)
	j := i + 1 + bytes.IndexByte(canonical[i+1:], Sep)
	return alias(canonical[:i]), alias(canonical[i+1 : j]), canonical[j+1:]
}

// AppendLabels appends the canonical bytes of ls (sorted, as labels.Labels always is; empty values are dropped).
func AppendLabels(dst []byte, ls labels.Labels) []byte {
	ls.Range(func(l labels.Label) {
		if l.Value == "" {
			return
		}
		dst = append(dst, l.Name...)
		dst = append(dst, Sep)
		dst = append(dst, l.Value...)
		dst = append(dst, Sep)
	})
	return dst
}

// AppendTenant appends the prefix of canonical bytes that names the tenant.
func AppendTenant(dst []byte, id tenant.ID) []byte {
	return append(append(dst, id...), Sep)
}

func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
