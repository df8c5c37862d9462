package refresher

import (
	"math/rand/v2"
	"time"
)

// The figures of the schedule.
const (
	// exchangeTimeout bounds one exchange, in a context of its own. It is what a
	// slow endpoint may take; giving up sooner loses the replies that come late,
	// and with them refresh tokens.
	exchangeTimeout = 20 * time.Second
	// saveTimeout bounds one attempt to save a rotated refresh token. A keyring
	// that takes longer than twice its own limit of 5 s is not coming back soon.
	saveTimeout = 10 * time.Second
	// A save is tried again after saveFirst, doubling to saveMost: often, because
	// a login hangs on it, and a write costs little.
	saveFirst = time.Second
	saveMost  = 30 * time.Second

	backoffFirst = time.Second
	// The caps while the token is valid and once it has expired. With full
	// jitter below a cap of one minute, three hours of outage cost 109 attempts;
	// so they cost about 50, and a caller's request still starts one every 5 s.
	backoffValid   = 2 * time.Minute
	backoffExpired = 5 * time.Minute
	// grantGap is the least distance from a grant to the next exchange, however
	// short its life.
	grantGap = 250 * time.Millisecond

	// requestGap is how long after a failure a request may start an attempt.
	requestGap = 5 * time.Second
	// forcedGap is the same for a person's wish: a key that is held down must not
	// hammer the endpoint.
	forcedGap = time.Second

	// hintQuiet is how long there must have been no hint for the next to start
	// the backoff anew, which makes six attempts in that time: one per requestGap.
	// Those that come sooner (a flapping network, a storm) bring the next attempt
	// forward all the same, but not within requestGap of the last.
	hintQuiet = 30 * time.Second

	// refusedLimit bare refusals in a row, with nothing valid left, count as
	// "needs login"; the endpoint is still asked every latchedRetry, because a
	// gateway's bad hour looks the same.
	refusedLimit = 5
	latchedRetry = 30 * time.Minute

	// retryAfterMax: an endpoint that asks for more may be mistaken, or a proxy on
	// the way may; a few attempts too many cost less than an hour without tokens.
	retryAfterMax = 10 * time.Minute
)

// random makes every draw, in [0, 1).
var random = rand.Float64

// ReplaceDraw is for tests alone, before and after any Refresher is used. It
// returns what f replaces.
func ReplaceDraw(f func() float64) (before func() float64) {
	before, random = random, f
	return before
}

// refreshAfter is how old a token is when it is to be replaced: 50 to 60 % of its
// lifetime. That leaves 24 minutes of an hour to ride out an outage. The draw, in
// [0, 1), is made once for each token: drawn anew at every look, the earliest
// would win.
func refreshAfter(lifetime time.Duration, draw float64) time.Duration {
	return lifetime/2 + time.Duration(draw*float64(lifetime)/10)
}

// verdict is what a failure amounts to after those before it.
func verdict(c Class, refusals int, valid bool) Class {
	if refusals >= refusedLimit && !valid {
		return NeedsLogin
	}
	return c
}

// retryIn is how long to wait after the failure that led to s; false if asking
// again would not help. Left is what is left of the token.
func retryIn(s *Snapshot, valid bool, left, retryAfter time.Duration, draw float64) (time.Duration, bool) {
	switch {
	case s.Class == NeedsLogin && s.Refusals == 0:
		return 0, false // the endpoint said so
	case s.Class == NeedsLogin, s.Class == Configuration:
		return latchedRetry, true
	case retryAfter > 0:
		return honour(retryAfter, left, draw), true
	}
	return backoff(s.steps, valid, draw), true
}

// backoff is exponential: a moment in a window that starts at 1 s and doubles
// with each failure. Of a window up to a minute all but the first quarter is used
// (at most requestGap of it is left out: a draw near zero would be a retry at
// once, and would break the promise of one attempt per requestGap), because the
// agents of a whole company see the same outage begin. By the time that the window
// is longer they are spread, and only its last quarter is used.
func backoff(failures int, valid bool, draw float64) time.Duration {
	limit := backoffExpired
	if valid {
		limit = backoffValid
	}
	window := limit
	if failures < 10 { // beyond that, 1 s doubled is above any limit
		window = min(limit, backoffFirst<<max(0, failures-1))
	}
	least := min(window/4, requestGap)
	if window > time.Minute {
		least = window * 3 / 4
	}
	return least + time.Duration(draw*float64(window-least))
}

// hintIn is how long after a hint the next attempt is due at the latest. The
// last one ended the time since before it.
func hintIn(anew bool, since time.Duration, draw float64) time.Duration {
	first := backoff(0, false, draw)
	if anew {
		return first
	}
	return max(first, requestGap-since)
}

// honour clamps the endpoint's Retry-After: it must not push the next attempt
// past the last minute of a valid token, nor beyond retryAfterMax. Up to a
// tenth is added so that not everybody returns in the same second.
func honour(retryAfter, left time.Duration, draw float64) time.Duration {
	limit := retryAfterMax
	if left > time.Minute+time.Second {
		limit = min(limit, left-time.Minute)
	}
	d := min(max(retryAfter, time.Second), limit)
	return d + time.Duration(draw*float64(d)/10)
}
