//go:build linux

package sim

import (
	"slices"
	"sync"
	"time"
)

// A machine's clocks. The bubble's own time is the ground: it never jumps, and all
// timers of the Go runtime follow it. True time is the bubble's and the time that
// the machine has slept; the endpoint goes by that. The wall clock is true time
// and whatever somebody has set it wrong by. The time since boot is true time since
// the last power loss.
type clocks struct {
	mu      sync.Mutex
	booted  time.Time // by true time
	slept   time.Duration
	wrong   time.Duration
	everSet bool
	waiters []*waiter // in the order in which they came, so that a seed means the same each time
}

type waiter struct {
	at    time.Duration // by Boottime
	boot  time.Time     // of which boot
	c     chan time.Time
	timer *time.Timer
}

func newClocks() *clocks { return &clocks{booted: time.Now()} }

func (c *clocks) true() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trueLocked()
}

func (c *clocks) trueLocked() time.Time { return time.Now().Round(0).Add(c.slept) }

// Now is the wall clock.
func (c *clocks) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trueLocked().Add(c.wrong)
}

// Boottime is the time since the last power loss.
func (c *clocks) Boottime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bootLocked()
}

// An hour is added, for a machine is never asked in its first second.
func (c *clocks) bootLocked() time.Duration { return c.trueLocked().Sub(c.booted) + time.Hour }

// After is refresher.Clock's.
func (c *clocks) After(d time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &waiter{at: c.bootLocked() + d, boot: c.booted, c: make(chan time.Time, 1)}
	w.timer = time.AfterFunc(max(0, d), func() { c.fire(w) })
	c.waiters = append(c.waiters, w)
	return w.c, func() { c.drop(w) }
}

func (c *clocks) drop(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.timer.Stop()
	if i := slices.Index(c.waiters, w); i >= 0 {
		c.waiters = slices.Delete(c.waiters, i, i+1)
	}
}

func (c *clocks) fire(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fireLocked(w)
}

func (c *clocks) fireLocked(w *waiter) {
	i := slices.Index(c.waiters, w)
	if i < 0 {
		return
	}
	c.waiters = slices.Delete(c.waiters, i, i+1)
	w.timer.Stop()
	w.c <- c.trueLocked() // never blocks: it is sent to once
}

// sleep suspends the machine. The runtime's timers stand still meanwhile; those of
// the boot clock that are due fire when it wakes up.
func (c *clocks) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slept += d
	now := c.bootLocked()
	for _, w := range slices.Clone(c.waiters) {
		if w.at <= now {
			c.fireLocked(w)
		} else {
			w.timer.Reset(w.at - now)
		}
	}
}

// set makes the wall clock wrong, and wakes everybody, as the kernel does.
func (c *clocks) set(wrong time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong, c.everSet = wrong, c.everSet || wrong != 0
	for _, w := range slices.Clone(c.waiters) {
		c.fireLocked(w)
	}
}

func (c *clocks) wereSet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.everSet
}

// reboot begins the time since boot anew. Waiters of daemons that are dead by then
// stay as they are: nobody hears them.
func (c *clocks) reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range slices.Clone(c.waiters) {
		c.fireLocked(w)
	}
	c.booted = c.trueLocked()
}
