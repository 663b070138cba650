package series

// BlockState is what a store gateway says of one block.
type BlockState struct {
	// Known: the gateway's view of the bucket has the block, or one that replaces it.
	Known bool
	// Served: the gateway serves the samples of the block now, by the block itself or by one that replaces it.
	Served bool
	// Owned: the gateway serves the block itself, and owns it by its own ring. So it goes on to serve it until other
	// owners say the same of themselves. One that serves a block without owning it waits only for others to take it over.
	Owned bool
}
