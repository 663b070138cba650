package wire

// What a stream may have in numbers at a time: both sides keep to it (docs/format/write-frame.md).
const (
	maxNumbers     = 1 << 22
	maxNumberBytes = 1 << 30   // of labels that have a number
	maxNumberLabel = 1<<16 - 1 // longer labels get none
)

// handReach is how many numbers are looked at for an idle one before a new one is made.
const handReach = 8

// numbers is the sender's side of a stream: which series has which number there. A number that was not used for long
// goes to another series, so there are about as many numbers as series that are written, however many come and go.
type numbers struct {
	entries []numberedSeries // by number
	sizes   []uint16         // bytes of labels, by number
	index   []uint32         // number+1 by key, 0 = empty; a power of two, probed linearly from Key.Lo
	bytes   int              // sum of sizes
	hand    uint32           // where the next search for an idle number begins
	frame   uint32           // counts frames from 1
	recent  uint32           // the frame that was next when age was called last
	idle    uint32           // the value of recent before that: a number that was last used before it is idle

	maxNumbers, maxBytes int
}

// numberedSeries is a series with a number.
type numberedSeries struct {
	key  Key
	next uint32 // the number that followed this one last time: senders mostly keep their order
	used uint32 // the frame it was last used in
}

func newNumbers() *numbers {
	return &numbers{index: make([]uint32, 256), maxNumbers: maxNumbers, maxBytes: maxNumberBytes}
}

// age makes numbers idle that were not used since the call before the last one.
func (t *numbers) age() { t.idle, t.recent = t.recent, t.frame+1 }

// find gives the number of k, trying guess first.
func (t *numbers) find(k Key, guess uint32) (n uint32, ok bool) {
	if int(guess) < len(t.entries) && t.entries[guess].key == k {
		return guess, true
	}
	mask := uint32(len(t.index) - 1)
	for i := uint32(k.Lo) & mask; ; i = (i + 1) & mask {
		switch n := t.index[i]; {
		case n == 0:
			return 0, false
		case t.entries[n-1].key == k:
			return n - 1, true
		}
	}
}

// take assigns a number to k, which has none and labels of size bytes: a new number or an idle one. It is false when
// there is none.
func (t *numbers) take(k Key, size int) (n uint32, ok bool) {
	if size > maxNumberLabel {
		return 0, false
	}
	n, old := uint32(len(t.entries)), 0
	if i, found := t.idleNumber(); found {
		n, old = i, int(t.sizes[i])
	} else if len(t.entries) >= t.maxNumbers {
		return 0, false
	}
	if t.bytes-old+size > t.maxBytes {
		return 0, false
	}
	if int(n) == len(t.entries) {
		t.entries = append(t.entries, numberedSeries{})
		t.sizes = append(t.sizes, 0)
		t.reserve()
	} else {
		t.remove(n)
	}
	t.bytes += size - old
	t.sizes[n] = uint16(size)
	t.entries[n] = numberedSeries{key: k, next: n + 1}
	t.insert(n)
	return n, true
}

// idleNumber looks for a number that was not used for long.
func (t *numbers) idleNumber() (n uint32, ok bool) {
	for range min(handReach, len(t.entries)) {
		if t.hand++; int(t.hand) >= len(t.entries) {
			t.hand = 0
		}
		if t.entries[t.hand].used < t.idle {
			return t.hand, true
		}
	}
	return 0, false
}

// reserve keeps the index at most two thirds full. The last entry is not in the index yet.
func (t *numbers) reserve() {
	if len(t.entries) <= len(t.index)/3*2 {
		return
	}
	t.index = make([]uint32, 2*len(t.index))
	for n := range t.entries[:len(t.entries)-1] {
		t.insert(uint32(n))
	}
}

// insert puts n, whose key is set, into the index.
func (t *numbers) insert(n uint32) {
	mask := uint32(len(t.index) - 1)
	i := uint32(t.entries[n].key.Lo) & mask
	for t.index[i] != 0 {
		i = (i + 1) & mask
	}
	t.index[i] = n + 1
}

// remove takes n out of the index, and moves entries up that would not be found behind the gap.
func (t *numbers) remove(n uint32) {
	mask := uint32(len(t.index) - 1)
	gap := uint32(t.entries[n].key.Lo) & mask
	for t.index[gap] != n+1 {
		gap = (gap + 1) & mask
	}
	for i := (gap + 1) & mask; t.index[i] != 0; i = (i + 1) & mask {
		home := uint32(t.entries[t.index[i]-1].key.Lo) & mask
		if (i-home)&mask >= (i-gap)&mask {
			t.index[gap] = t.index[i]
			gap = i
		}
	}
	t.index[gap] = 0
}
