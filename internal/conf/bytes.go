package conf

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Bytes is a number of bytes as people write it, see ParseBytes.
type Bytes int64

// UnmarshalText is ParseBytes.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

var errBytes = errors.New("want a number of bytes, such as 512MB")

// ParseBytes reads a number of bytes: 512MB, 2GB, 16KiB and so on are powers of two, as in Thanos; a bare number is
// bytes. The error does not show s.
func ParseBytes(s string) (Bytes, error) {
	const units = "KMGTPE"
	digits := strings.TrimSuffix(strings.TrimSpace(s), "B")
	shift := 0
	if unit := strings.TrimSuffix(digits, "i"); unit != "" {
		if at := strings.IndexByte(units, unit[len(unit)-1]); at >= 0 {
			digits, shift = unit[:len(unit)-1], 10*(at+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, errBytes
	}
	return Bytes(n << shift), nil
}
