package sim

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

func TestOne(t *testing.T) {
	seed, _ := strconv.ParseUint(os.Getenv("SIM_SEED"), 10, 64)
	h := draw(seed)
	r := run(t, h)
	t.Logf("%s\n%s\n%s\nviolations: %v\nhash %x", h, r, r.log, r.violations, r.hash)
}

func TestMany(t *testing.T) {
	from, _ := strconv.ParseUint(os.Getenv("SIM_FROM"), 10, 64)
	n, _ := strconv.ParseUint(os.Getenv("SIM_N"), 10, 64)
	broken := map[string][]uint64{}
	for seed := from; seed < from+n; seed++ {
		fmt.Println("seed", seed)
		r := run(t, draw(seed))
		if b := r.broken(); b != "" {
			broken[b] = append(broken[b], seed)
		}
		if os.Getenv("SIM_TWICE") != "" {
			if again := run(t, draw(seed)); again.hash != r.hash {
				broken["replay"] = append(broken["replay"], seed)
			}
		}
	}
	for b, seeds := range broken {
		t.Logf("%4d %s: %v", len(seeds), b, seeds[:min(len(seeds), 12)])
	}
}
