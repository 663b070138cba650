package wire

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/zeebo/xxh3"
)

// TestDigest: every byte, its place and the length decide, at all lengths around the borders of words and blocks.
func TestDigest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[Key]string{}
	note := func(what string, b []byte) {
		t.Helper()
		k := hash128(b)
		if was, ok := seen[k]; ok {
			t.Fatalf("%s has the digest of %s", what, was)
		}
		if k != hash128([]byte(string(b))) {
			t.Fatalf("%s has two digests", what)
		}
		seen[k] = what
	}
	lengths := []int{1023, 1024, 1025, 1039, 1040, 1041, 2047, 2048, 2049, 3100}
	for n := range 130 {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		b := make([]byte, n)
		note(fmt.Sprint(n, " zeros"), b)
		for i := range b {
			b[i] ^= 1 << r.IntN(8)
			note(fmt.Sprint(n, " bytes, changed up to ", i), b)
		}
	}
	for n := 2 * hashBlock; n <= 4*hashBlock; n += hashBlock { // blocks in another order
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i / hashBlock)
		}
		note(fmt.Sprint(n, " bytes of blocks"), b)
		for i := range b {
			b[i] = byte((n - 1 - i) / hashBlock)
		}
		note(fmt.Sprint(n, " bytes of blocks, the last one first"), b)
	}
}

// TestDigestIsSecret: another process has other digests of everything.
func TestDigestIsSecret(t *testing.T) {
	texts := []string{"", "a", "team\xff__name__\xffup\xff", strings.Repeat("x", 5000)}
	var before []Key
	for _, s := range texts {
		before = append(before, hash128([]byte(s)))
	}
	defer func(was secretWords) { secret = was }(secret)
	secret = newSecret()
	for i, s := range texts {
		if k := hash128([]byte(s)); k.Hi == before[i].Hi || k.Lo == before[i].Lo {
			t.Errorf("%.20q has half of a digest in two processes: %x and %x", s, before[i], k)
		}
	}
}

// TestDigestSpreads puts texts that have much in common, in each of the ways that tables use, into 1,024 places.
func TestDigestSpreads(t *testing.T) {
	const places, each = 1 << 10, 8
	f := func(name string, text func(i int) []byte) {
		t.Helper()
		var low, high, middle [places]int
		for i := range places * each {
			k := hash128(text(i))
			low[k.Lo%places]++
			high[k.Hi>>(64-10)]++
			middle[k.Hi%places]++
		}
		for i := range places {
			if n := max(low[i], high[i], middle[i]); n > 5*each {
				t.Errorf("%s: %d of %d texts share one place of %d", name, n, places*each, places)
				return
			}
		}
	}
	word := func(n, at int, i uint64) []byte {
		b := []byte(strings.Repeat("a", n))
		binary.LittleEndian.PutUint64(b[at:], i)
		return b
	}
	f("numbers", func(i int) []byte { return fmt.Appendf(nil, "team\xff__name__\xffm\xffi\xff%d\xff", i) })
	f("low halves of a word", func(i int) []byte { return word(300, 128, uint64(i)) })
	f("high halves of a word", func(i int) []byte { return word(300, 128, uint64(i)<<50) })
	f("the last word", func(i int) []byte { return word(300, 292, uint64(i)<<50) })
	f("two words of one sum", func(i int) []byte {
		b := word(300, 128, uint64(i))
		binary.LittleEndian.PutUint64(b[192:], -uint64(i))
		return b
	})
	f("short", func(i int) []byte { return word(8, 0, uint64(i)<<32) })
	f("lengths", func(i int) []byte { return make([]byte, i) })
	f("series that crowd a table by XXH3", func() func(int) []byte {
		var texts [][]byte
		for i := 0; len(texts) < places*each; i++ {
			if text := fmt.Appendf(nil, "team\xff__name__\xffm\xffi\xff%d\xff", i); xxh3.Hash128(text).Lo%64 == 0 {
				texts = append(texts, text)
			}
		}
		return func(i int) []byte { return texts[i] }
	}())
}

// collidingSeries are labels whose spellings XXH3 cannot tell apart as long as the sum of a and b is the same. Two
// words of the value are hashed with the words 2 and 3 of XXH3's public secret, and have their high halves: so their
// products are zero, whatever the low halves are, and only the sum of the words is left.
func collidingSeries(a, b byte) []prompb.Label {
	whole := []byte(strings.Repeat("v", 400))
	// of the value, in the message
	const before = len("\x0a\x0d\x0a\x08__name__\x12\x01m") + len("\x0a\x98\x03\x0a\x01x\x12\x90\x03")
	w2, w3 := whole[128-before:], whole[192-before:]
	copy(w2, []byte{a, 'a', 'a', 0xf1, 0x83, 0x90, 0x97, 0xdb, 0x80}) // f1 83 90 97 and db 80 are characters
	copy(w3, []byte{b, 'a', 'a', 0xe1, 0xb7, 0xb3, 0x67, 0x1f})       // and so is e1 b7 b3
	return []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "x", Value: string(whole)}}
}

func requestV1(series ...[]prompb.Label) []byte {
	var req prompb.WriteRequest
	for i, ls := range series {
		req.Timeseries = append(req.Timeseries,
			prompb.TimeSeries{Labels: ls, Samples: []prompb.Sample{{Value: float64(i), Timestamp: 1790000000000}}})
	}
	msg, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

// TestXXH3Collisions: what can be made to collide under a hash that everybody can compute is kept apart: of spellings
// that are labels, and of such that are none.
func TestXXH3Collisions(t *testing.T) {
	good, same, bad := collidingSeries('b', 'b'), collidingSeries('c', 'a'), collidingSeries(0xc4, 0)
	first, other := requestV1(good), requestV1(same)
	spelled := func(msg []byte) []byte { _, at := uvarint(msg, 1); return msg[at:rawLabelsEnd(msg, at)] }
	if a, b := xxh3.Hash128(spelled(first)), xxh3.Hash128(spelled(other)); a != b ||
		string(spelled(first)) == string(spelled(other)) {
		t.Fatalf("no collision: %x, %x", a, b)
	}
	k := NewSeriesCache(1 << 10)
	for range 2 {
		for _, msg := range [][]byte{first, other, requestV1(bad), first, requestV1(good, same, bad)} {
			want, err := DecodeV1(testTenant, msg)
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.DecodeV1(testTenant, msg, nil)
			if err != nil {
				t.Fatal(err)
			}
			sameBatch(t, got, want)
			if len(got.Series) > 1 && got.Series[0].Key == got.Series[1].Key {
				t.Fatal("two series have one key")
			}
		}
	}
}

// TestTablesAreNotCrowded: series whose keys would have equal low bits under XXH3 are found in the table of a stream
// at once.
func TestTablesAreNotCrowded(t *testing.T) {
	b := NewBatch("team")
	for i := 0; len(b.Series) < 300; i++ {
		ls := labels.FromStrings("__name__", "m", "i", fmt.Sprint(i))
		if xxh3.Hash128(AppendLabels(AppendTenant(nil, b.Tenant), ls)).Lo%(1<<10) == 0 {
			b.Add(ls).Samples = []Sample{{T: 1, V: 1}}
		}
	}
	e := NewStreamEncoder()
	e.Add(e.Begin(nil, b.Tenant), All(b))
	run, longest := 0, 0
	for _, n := range e.numbers.index {
		if run++; n == 0 {
			run = 0
		}
		longest = max(longest, run)
	}
	if longest > 100 {
		t.Errorf("%d entries of a table of %d stand in a row", longest, len(e.numbers.index))
	}
}

func BenchmarkDigest(b *testing.B) {
	for _, n := range []int{5, 16, 40, 80, 150, 290, 330, 1000, 5000} {
		texts := make([]byte, 64*n)
		for i := range texts {
			texts[i] = byte(rand.Uint32())
		}
		run := func(name string, hash func([]byte) Key) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				var sum uint64
				for i := 0; b.Loop(); i++ {
					at := i % 64 * n
					k := hash(texts[at : at+n])
					sum += k.Hi ^ k.Lo
				}
				_ = sum
			})
		}
		run("xxh3", func(b []byte) Key { h := xxh3.Hash128(b); return Key{h.Hi, h.Lo} })
		run("hash128", hash128)
	}
}
