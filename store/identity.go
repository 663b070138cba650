package store

import "github.com/hearth-metrics/hearth/internal/series"

// identify tells the cache which bucket it is, as far as that is known, and returns the id.
func (g *Gateway) identify() (id string, known bool) {
	id, known = g.opts.BucketID()
	if known && !g.cache.SetBucket(id) && (g.opts.Cache.Index != nil || g.opts.Cache.Chunks != nil) {
		g.unshared.Do(func() {
			g.log.Warn("the shared cache is not used until hearth/bucket.json in the bucket has a uuid, which the first " +
				"process that ships blocks writes: keys of two buckets would mix")
		})
	}
	return id, known
}

// Contents are what the gateway found in a bucket without an id. It answers from memory. A gateway that serves a part
// of the bucket says nothing.
func (g *Gateway) Contents() series.Contents {
	if g.opts.Chosen() {
		return ""
	}
	return g.lastFound()
}

// lastFound is what found points to, "" before the first look at the bucket.
func (g *Gateway) lastFound() series.Contents {
	if found := g.found.Load(); found != nil {
		return *found
	}
	return ""
}

// holding says what the gateway serves. One that was given a part of the bucket names no view, and says nothing of what
// responses cover: what it plans with is not what others plan with. The caller holds mu.
func (g *Gateway) holding() (h series.Holding) {
	id, known := g.opts.BucketID()
	switch s := g.current; {
	case g.opts.Chosen():
		h.Bucket = id
	case id != "":
		h = series.Holding{Bucket: id, View: series.View{Number: s.view.Number, Hash: s.view.Hash}, Whole: s.owners.alone()}
	case known && s.contents != "": // numbers of different buckets cannot be compared
		h = series.Holding{Contents: s.contents, Whole: s.owners.alone()}
	}
	return h
}
