package store

import (
	"errors"
	"sync"
	"time"
)

// ErrNoAnswer says that a look at the disk is not over yet.
var ErrNoAnswer = errors.New("its file system does not answer")

// glancePatience is how long an answer waits for a look at the disk.
const glancePatience = 250 * time.Millisecond

// A Glance is a look at the disk for the sake of an answer, which must not wait for a
// disk that hangs. One look is under way at a time: a disk that hangs holds one
// thread, however many ask. A look that was begun before is not taken for a new one,
// because the disk may have changed since.
type Glance struct {
	mu    sync.Mutex
	under chan struct{} // closed when the look under way is over; nil if there is none
	since time.Time     // when that began
}

// Look returns what f returns, or ErrNoAnswer if that is not known soon. f then goes
// on beside its caller.
func (g *Glance) Look(f func() error) error {
	patience := time.NewTimer(glancePatience)
	defer patience.Stop()
	g.mu.Lock()
	for g.under != nil {
		under, hangs := g.under, time.Since(g.since) >= glancePatience
		g.mu.Unlock()
		if hangs {
			return ErrNoAnswer
		}
		select {
		case <-under:
		case <-patience.C:
			return ErrNoAnswer
		}
		g.mu.Lock()
	}
	over := make(chan struct{})
	g.under, g.since = over, time.Now()
	g.mu.Unlock()
	var result error
	go func() { // ends when the disk answers
		result = f()
		g.mu.Lock()
		g.under = nil
		g.mu.Unlock()
		close(over)
	}()
	select {
	case <-over:
		return result
	case <-patience.C:
		return ErrNoAnswer
	}
}
