//go:build !race

package wire

const poolNoise = 0
