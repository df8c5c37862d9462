package daemon

import (
	"errors"
	"sync/atomic"
)

// A pulse counts the turns of a loop, which adds to count for each value of asked.
type pulse struct {
	asked chan struct{} // holds one
	count atomic.Uint64
}

func newPulse() *pulse { return &pulse{asked: make(chan struct{}, 1)} }

// turns is how often the loop has turned. It makes the loop turn once more.
func (p *pulse) turns() uint64 {
	n := p.count.Load()
	select {
	case p.asked <- struct{}{}:
	default:
	}
	return n
}

// alive returns the watchdog's look at the loop that accepts connections and at
// Run's: each must have turned since the look before. It asks for nothing that a
// disk, a store or a caller can delay. A profile that hangs is no reason to end the
// others; its status says so.
func alive(accept, run func() uint64) func() error {
	var accepted, ran uint64
	looked := false
	return func() error {
		a, r := accept(), run()
		defer func() { accepted, ran, looked = a, r, true }()
		switch {
		case !looked:
		case a == accepted:
			return errors.New("the loop that accepts connections stands still")
		case r == ran:
			return errors.New("the daemon's main loop stands still")
		}
		return nil
	}
}
