package wire

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// NewBatch returns an empty batch for tenant id with one reference, for senders inside the process (self-scrape, the
// ruler, tests). It is not pooled. Fill it with Add before sharing it.
func NewBatch(id tenant.ID) *Batch {
	b := &Batch{Tenant: id}
	b.Retain()
	return b
}

// Add appends a series with valid labels and returns it, so that the caller adds samples. The pointer is good until the
// next Add.
func (b *Batch) Add(ls labels.Labels) *Series {
	return b.AddCanonical(AppendLabels(nil, ls))
}

// AddCanonical is Add for labels in canonical bytes, which are copied.
func (b *Batch) AddCanonical(labels []byte) *Series {
	full := append(AppendTenant(nil, b.Tenant), labels...)
	key, hash := Identify(full)
	own := full[len(b.Tenant)+1:]
	b.Series = append(b.Series, Series{labels: own, size: len(own), Key: key, Hash: hash})
	return &b.Series[len(b.Series)-1]
}
