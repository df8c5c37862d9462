//go:build linux

package sim

import (
	"fmt"
	"time"
)

// Randomness comes from hashes of the seed, of what happens and of when, and not from a
// generator: see world.pause.

// spread is a time from low to high that parts decide.
func spread(low, high time.Duration, parts ...any) time.Duration {
	return low + time.Duration(hashOf(parts...)%uint64(high-low))
}

// fraction is a number from 0 to 1 that parts decide.
func fraction(parts ...any) float64 { return float64(hashOf(parts...)>>11) / (1 << 53) }

func hashOf(parts ...any) uint64 {
	x := uint64(14695981039346656037) // FNV-1a
	add := func(b byte) { x = (x ^ uint64(b)) * 1099511628211 }
	number := func(n uint64) {
		for ; n > 0; n >>= 8 {
			add(byte(n))
		}
	}
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			for i := range len(p) {
				add(p[i])
			}
		case int:
			number(uint64(p))
		case int64:
			number(uint64(p))
		case uint64:
			number(p)
		default:
			panic(fmt.Sprintf("%T is not hashed", p))
		}
		add(0)
	}
	// FNV's high bits are weak: the end of splitmix64.
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
