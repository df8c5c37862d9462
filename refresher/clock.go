package refresher

import "time"

// A Clock tells the time in two ways, because each can be wrong alone: the
// wall clock is set by people and servers, and the time since boot, which goes
// on during suspend (CLOCK_BOOTTIME), ends with it. A token is valid while both
// say so. Everything is scheduled by the time since boot, so that a step of the
// wall clock makes nothing happen early or late. It is a hint, as Hint is.
type Clock interface {
	Now() time.Time
	Boottime() time.Duration
	// After sends once when Boottime has grown by d, or earlier: a step of the
	// wall clock or a resume is a reason to look. Stop releases what it holds.
	After(d time.Duration) (c <-chan time.Time, stop func())
}

// An instant is both readings of a Clock.
type instant struct {
	wall time.Time
	boot time.Duration
}

func read(c Clock) instant { return instant{c.Now().Round(0), c.Boottime()} }

// add is the instant d later, if nobody touches the clocks.
func (i instant) add(d time.Duration) instant { return instant{i.wall.Add(d), i.boot + d} }

// until is how long it is from i to o by the time since boot.
func (i instant) until(o instant) time.Duration { return o.boot - i.boot }

func (i instant) isZero() bool { return i.wall.IsZero() }

// runtimeClock is the Go runtime's, whose timers stand still while the machine
// sleeps. It is for tests in virtual time, and for systems without timerfd.
type runtimeClock struct{ start time.Time }

func (c runtimeClock) Now() time.Time          { return time.Now() }
func (c runtimeClock) Boottime() time.Duration { return time.Since(c.start) }

func (c runtimeClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// RuntimeClock is a Clock without suspend.
func RuntimeClock() Clock { return runtimeClock{time.Now()} }
