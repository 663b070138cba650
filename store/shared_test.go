package store

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/hearth-metrics/hearth/store/cache"
)

// TestSharedCache asks a gateway that keeps everything on a Redis and nothing in memory, while values there are
// spoiled, swapped, and dropped, and the server ends in the middle of an answer: the answers stay the same.
func TestSharedCache(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	bkt := &faultBucket{Bucket: inMemory(t)}
	bkt.left.Store(1 << 40)
	upload(t, bkt, makeBlock(t, randomSeries(rnd, 300, 0, 3600_000)), ring(team, "r1"))
	redis := miniredis.RunT(t)
	config, err := cache.ReadIndexConfig("test", []byte("type: REDIS\nconfig: {addr: '"+redis.Addr()+"'}"))
	if err != nil {
		t.Fatal(err)
	}
	server := config.Server(discard, nil, "test")
	if err := server.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	plain := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 0 })
	g := opened(t, bkt, inBucket("00000000-0000-4000-8000-00000000000a"),
		func(o *Options) { o.Cache = cache.Options{Index: server, Chunks: server} })
	check := func(what string) {
		t.Helper()
		for range 5 {
			ms := randomMatchers(rnd)
			mint := rnd.Int64N(3600_000)
			maxt := mint + rnd.Int64N(3600_000)
			want := text(plain.Select(t.Context(), ask(team, mint, maxt, slices.Clone(ms)...)), mint, maxt)
			got := text(g.Select(t.Context(), ask(team, mint, maxt, ms...)), mint, maxt)
			if got != want {
				t.Fatalf("%s: %v: %s", what, ms, firstDifference(got, want))
			}
		}
	}
	all := ask(team, 0, 3600_000)
	want := text(plain.Select(t.Context(), all), 0, 3600_000)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		before := bkt.left.Load()
		if got := text(g.Select(t.Context(), all), 0, 3600_000); got != want {
			t.Fatal(firstDifference(got, want))
		}
		if bkt.left.Load() == before { // all of it came from the server
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the bucket is read again and again")
		}
	}
	keys := redis.Keys()
	if len(keys) < 10 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, spoil := range []func(v []byte) []byte{
		func(v []byte) []byte { v[rnd.IntN(len(v))] ^= 1; return v },
		func(v []byte) []byte { return v[:len(v)/2] },
		func([]byte) []byte { return []byte("anything else") },
	} {
		for _, k := range redis.Keys() {
			v, err := redis.Get(k)
			if err != nil {
				t.Fatal(err)
			}
			if err := redis.Set(k, string(spoil([]byte(v)))); err != nil {
				t.Fatal(err)
			}
		}
		check("spoiled")
	}
	values := map[string]string{}
	for _, k := range keys {
		values[k], _ = redis.Get(k)
	}
	for i, k := range keys {
		if err := redis.Set(k, values[keys[(i+1)%len(keys)]]); err != nil {
			t.Fatal(err)
		}
	}
	check("swapped")
	redis.FlushAll()
	check("dropped")
	set := g.Select(t.Context(), all)
	if !set.Next() {
		t.Fatal(set.Err())
	}
	redis.Close()
	n := 1
	for set.Next() {
		n++
	}
	if set.Err() != nil || n != 300 || set.Close() != nil {
		t.Fatalf("%d series, %v", n, set.Err())
	}
	check("away")
}
