package refresher

import (
	"errors"
	"time"
)

// ErrTooSoon says that a wish was not granted, because callers have wished for many
// exchanges a moment ago.
var ErrTooSoon = errors.New("refreshed a moment ago")

const (
	// Callers' wishes start wishBurst exchanges at once, and then one every wishGap:
	// a loop must not hammer the endpoint. After wishGap without one there is always
	// a wish left, so the promise of an attempt every requestGap holds.
	wishBurst = 3
	wishGap   = 5 * time.Second
)

// Wishes is what callers' wishes may still cost: a token bucket. It is full at first.
// It belongs to a profile and outlives its Refreshers, which use it one at a time.
type Wishes struct {
	full time.Duration // when it is full again, by Boottime
}

func (w Wishes) left(now instant) bool { return w.wait(now) == 0 }

// wait is how long it is until there is a wish left: at most wishGap.
func (w Wishes) wait(now instant) time.Duration {
	return max(0, w.full-now.boot-(wishBurst-1)*wishGap)
}

func (w *Wishes) spend(now instant) {
	w.full = min(max(w.full, now.boot)+wishGap, now.boot+wishBurst*wishGap)
}

// TooSoon reports whether Refresh would return ErrTooSoon.
func (s *Snapshot) TooSoon() bool { return tooSoon(s, read(s.clock)) }

// tooSoon: while there is neither a token nor a failure to answer with, a caller
// waits for an exchange.
func tooSoon(s *Snapshot, now instant) bool {
	return !s.wishes.left(now) && (s.valid(now) || s.Class != None)
}

// comesSoon reports whether a caller who has no wish left and nothing to be answered
// with may wait for the exchange that is due by itself. It is not, if a step of the
// wall clock ended the token.
func comesSoon(s *Snapshot, now instant) bool {
	return !s.wishes.left(now) && !s.next.isZero() && now.until(s.next) <= wishGap
}
