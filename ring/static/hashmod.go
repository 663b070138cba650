package static

// hashmod places a series on the endpoint that the remainder of its hash names. The further replicas are the
// endpoints that follow.
type hashmod struct {
	members []int32 // sorted by address
	rf      int
}

// replicas appends min(rf, members) members for hash. The sum wraps at 64 bits, as in Thanos.
func (h *hashmod) replicas(dst []int32, hash uint64) []int32 {
	for n := range min(h.rf, len(h.members)) {
		dst = append(dst, h.members[(hash+uint64(n))%uint64(len(h.members))])
	}
	return dst
}
