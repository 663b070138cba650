package static

// hashmod places a series by the remainder of its hash; the replicas are the endpoints that follow.
type hashmod struct {
	members []int32 // by address
	rf      int
}

// replicas appends min(rf, members) members for hash. The sum wraps at 64 bits, as Thanos's does.
func (h *hashmod) replicas(dst []int32, hash uint64) []int32 {
	for n := range min(h.rf, len(h.members)) {
		dst = append(dst, h.members[(hash+uint64(n))%uint64(len(h.members))])
	}
	return dst
}
