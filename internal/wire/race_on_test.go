//go:build race

package wire

// poolNoise is how many allocations a run may make because sync.Pool drops things at random under the race detector.
const poolNoise = 200
