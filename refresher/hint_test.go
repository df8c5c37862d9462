package refresher

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// outage lets r fail for d after a good token, and for as long as it takes until
// the next attempt is more than ahead away. It returns how many there were.
func outage(t *testing.T, e *endpoint, r *Refresher, err error, d, ahead time.Duration) int {
	t.Helper()
	mustToken(t, r, 0)
	e.set(func(e *endpoint) { e.err = err })
	time.Sleep(e.lifetime + d) // the token has expired, too
	for time.Until(r.Snapshot().NextAttempt()) <= ahead {
		time.Sleep(time.Second)
	}
	synctest.Wait()
	return e.count()
}

// mustBeWithin fails unless the attempt after the first n came within d of at.
func mustBeWithin(t *testing.T, e *endpoint, n int, at time.Time, d time.Duration) {
	t.Helper()
	asked := e.times()
	if len(asked) <= n {
		t.Fatalf("no attempt in the %v after the hint", time.Since(at))
	}
	if after := asked[n].Sub(at); after < backoffFirst/4 || after > d {
		t.Errorf("attempt %v after the hint; want %v to %v", after, backoffFirst/4, d)
	}
}

func TestAHintStartsTheBackoffAnew(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		n := outage(t, e, r, errDown, 3*time.Hour, time.Minute)
		failures, hinted := r.Snapshot().Failures, time.Now()
		r.Hint()
		synctest.Wait()
		if s := r.Snapshot(); s.Failures != failures || !s.Hinted || s.Err == nil {
			t.Errorf("%d failures are %d after the hint, hinted %v", failures, s.Failures, s.Hinted)
		}
		time.Sleep(10 * time.Second)
		mustBeWithin(t, e, n, hinted, backoffFirst)
		// And the whole of it, not one attempt: windows of 1, 2 and 4 s follow.
		if got := e.count() - n; got < 4 {
			t.Errorf("%d attempts in the 10 s after the hint", got)
		}
		for i, asked := n+1, e.times(); i < len(asked); i++ {
			window := time.Second << (i - n - 1)
			if gap := asked[i].Sub(asked[i-1]); gap < least(window) || gap > window {
				t.Errorf("gap %v in a window of %v", gap, window)
			}
		}
		if s := r.Snapshot(); s.Failures != e.count()-1 || s.Hinted {
			t.Errorf("%d failures after %d exchanges, hinted %v", s.Failures, e.count(), s.Hinted)
		}
	})
}

// The machine wakes up, and its network half a minute later.
func TestResumeWithANetworkAfter30Seconds(t *testing.T) {
	var worst time.Duration
	for range 50 {
		e := &endpoint{}
		clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
			e.set(func(e *endpoint) { e.err = errDown })
			c.change(0, 8*time.Hour)
			time.Sleep(30 * time.Second)
			synctest.Wait()
			e.set(func(e *endpoint) { e.err = nil })
			back := time.Now()
			r.Hint()
			for r.Snapshot().Class != None {
				<-r.Snapshot().Changed()
			}
			worst = max(worst, time.Since(back))
			mustToken(t, r, 0)
		})
	}
	t.Logf("token at most %v after the network's return, in 50 rounds", worst)
	if worst > backoffFirst+backoffFirst/2 {
		t.Errorf("token %v after the network's return", worst)
	}
}

func TestAHintDuringAnAttemptCountsAfterIt(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		outage(t, e, r, errDown, 3*time.Hour, time.Minute)
		e.set(func(e *endpoint) { e.delay = 10 * time.Second })
		time.Sleep(time.Until(r.Snapshot().NextAttempt()) + time.Second)
		n := e.count()
		r.Hint() // an attempt is under way, and takes 9 s more
		synctest.Wait()
		if e.count() != n || r.Snapshot().Hinted {
			t.Error("the hint did not wait for the attempt")
		}
		over := time.Now().Add(9 * time.Second)
		time.Sleep(15 * time.Second)
		mustBeWithin(t, e, n, over, backoffFirst)
	})
}

func TestAHintDuringAnAttemptThatSucceedsIsForgotten(t *testing.T) {
	e := &endpoint{delay: 10 * time.Second}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		time.Sleep(time.Second)
		r.Hint()
		mustToken(t, r, 0)
		due := r.Snapshot().NextAttempt()
		time.Sleep(20 * time.Minute)
		if n := e.count(); n != 1 || !r.Snapshot().NextAttempt().Equal(due) {
			t.Errorf("%d exchanges, the next at %v instead of %v", n, r.Snapshot().NextAttempt(), due)
		}
		e.set(func(e *endpoint) { e.err = errDown })
		if s, err := r.Refresh(t.Context()); err != nil || s.Hinted || s.steps != 1 {
			t.Errorf("the old hint told on a new failure: %d steps, %v", s.steps, err)
		}
	})
}

func TestAHintDelaysNothing(t *testing.T) {
	for range 50 {
		e := &endpoint{}
		bubble(t, e, func(t *testing.T, r *Refresher) {
			n := outage(t, e, r, errDown, time.Hour, time.Minute)
			due := r.Snapshot().NextAttempt()
			time.Sleep(time.Until(due) - 100*time.Millisecond)
			r.Hint()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if asked := e.times(); len(asked) != n+1 || !asked[n].Equal(due) {
				t.Fatalf("due at %v, attempts %v", due, asked[n:])
			}
			if s := r.Snapshot(); s.steps != 1 || time.Until(s.NextAttempt()) > backoffFirst {
				t.Errorf("the backoff did not start anew: step %d, next in %v", s.steps, time.Until(s.NextAttempt()))
			}
		})
	}
}

func TestHintsWhileAllIsWellCostNothing(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		before := r.Snapshot()
		for range 1000 {
			r.Hint()
			time.Sleep(time.Second)
		}
		if e.count() != 1 || r.Snapshot() != before {
			t.Errorf("%d exchanges, published again %v", e.count(), r.Snapshot() != before)
		}
	})
}

// What a network cannot repair is not asked for more often because of one, and
// the count that makes "needs login" of refusals goes on.
func TestHintsDoNotTouchOtherFailures(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    Failure
	}{
		{"needs login", Failure{Class: NeedsLogin}},
		{"configuration", Failure{Class: Configuration}},
		{"refused", Failure{Class: Refused}},
		{"unknown", Failure{Class: Unknown}},
		{"malformed", Failure{Class: Malformed}},
		{"Retry-After", Failure{Class: Transient, RetryAfter: 9 * time.Minute}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &endpoint{}
			bubble(t, e, func(t *testing.T, r *Refresher) {
				tt.f.Err = errors.New(tt.name)
				mustToken(t, r, 0)
				e.set(func(e *endpoint) { e.err = &tt.f })
				time.Sleep(2 * time.Hour)
				for s := r.Snapshot(); !s.NextAttempt().IsZero() && time.Until(s.NextAttempt()) < time.Minute; s = r.Snapshot() {
					time.Sleep(time.Second)
				}
				synctest.Wait()
				before := r.Snapshot()
				for range 100 {
					r.Hint()
					time.Sleep(500 * time.Millisecond)
				}
				if s := r.Snapshot(); s != before {
					t.Errorf("after hints: %d exchanges instead of %d, %d refusals instead of %d, next at %v instead of %v",
						s.Exchanges, before.Exchanges, s.Refusals, before.Refusals, s.NextAttempt(), before.NextAttempt())
				}
			})
		})
	}
}

// A wish of the endpoint holds for the attempt that it was about, and no longer.
func TestAHintAfterAWishIsOver(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		outage(t, e, r, &Failure{Class: Transient, RetryAfter: 9 * time.Minute, Err: errDown}, time.Hour, time.Minute)
		e.set(func(e *endpoint) { e.err = errDown })
		time.Sleep(time.Until(r.Snapshot().NextAttempt()))
		synctest.Wait()
		n, hinted := e.count(), time.Now()
		r.Hint()
		time.Sleep(backoffFirst)
		mustBeWithin(t, e, n, hinted, backoffFirst)
	})
}

// A flapping network, or somebody who sends what logind sends. The gaps are
// measured: the first hint starts the backoff anew, with its windows of 1, 1, 2,
// 4 … s, and no other hint makes a gap shorter than requestGap.
func TestAStormOfHints(t *testing.T) {
	for _, delay := range []time.Duration{0, 3 * time.Second, exchangeTimeout} {
		for _, every := range []time.Duration{10 * time.Millisecond, time.Second, 7 * time.Second, 29 * time.Second, hintQuiet} {
			t.Run(every.String()+" apart, failing after "+delay.String(), func(t *testing.T) {
				e := &endpoint{}
				bubble(t, e, func(t *testing.T, r *Refresher) {
					n := outage(t, e, r, errDown, time.Hour, time.Minute)
					e.set(func(e *endpoint) { e.delay = delay })
					start := time.Now()
					for time.Since(start) < 5*time.Minute {
						r.Hint()
						time.Sleep(every)
					}
					synctest.Wait()
					asked := e.times()[n:]
					var shortest time.Duration
					for i := 1; i < len(asked); i++ {
						gap := asked[i].Sub(asked[i-1]) - delay
						floor := requestGap
						if every >= hintQuiet {
							floor = least(time.Second) // each starts it anew
						} else if i < 7 { // what the backoff does by itself
							floor = least(time.Second << (i - 1))
						}
						if i >= 7 && (shortest == 0 || gap < shortest) {
							shortest = gap
						}
						if gap < floor {
							t.Errorf("attempt %d came %v after the end of the one before; want %v or more", i, gap, floor)
						}
					}
					t.Logf("%d attempts in 5 minutes; after the first seven never sooner than %v", len(asked), shortest)
					if limit := int(5*time.Minute/requestGap) + 5; len(asked) > limit {
						t.Errorf("%d attempts in 5 minutes; want %d or fewer", len(asked), limit)
					}
				})
			})
		}
	}
}

// During a storm, a hint still brings an attempt, requestGap after the last.
func TestAHintInAStormIsNotLost(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		outage(t, e, r, errDown, time.Hour, time.Minute)
		for range 5 * 60 {
			r.Hint()
			time.Sleep(time.Second)
		}
		e.set(func(e *endpoint) { e.err = nil })
		back := time.Now()
		r.Hint()
		for r.Snapshot().Class != None {
			<-r.Snapshot().Changed()
		}
		if d := time.Since(back); d > requestGap {
			t.Errorf("token %v after the last hint", d)
		}
	})
}

func TestAfterAStormAHintStartsTheBackoffAnew(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		outage(t, e, r, errDown, time.Hour, time.Minute)
		for range 60 {
			r.Hint()
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if s := r.Snapshot(); s.steps < 10 {
			t.Errorf("step %d of the backoff after a minute of storm", s.steps)
		}
		time.Sleep(hintQuiet)
		r.Hint()
		synctest.Wait()
		if s := r.Snapshot(); s.steps != 0 {
			t.Errorf("step %d of the backoff after a hint", s.steps)
		}
	})
}

func TestAHintWaitsForNoLoopThatEnds(t *testing.T) {
	e := &endpoint{delay: 10 * time.Second, lifetime: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Exchange: e.exchange, Save: e.save})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		time.Sleep(time.Second)
		r.Hint()
		cancel()
		synctest.Wait()
		start := time.Now()
		r.Hint() // Run waits for the exchange; nobody else is to
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v", d)
		}
		<-r.done
		r.Hint()
	})
}

// The clock of a machine that has just started is wrong, so that no certificate is
// valid: setting it is a hint, also during an attempt, and in both directions.
func TestAStepOfTheClockIsAHint(t *testing.T) {
	for _, step := range []time.Duration{20 * 365 * 24 * time.Hour, -10 * time.Minute, 2 * time.Second} {
		for _, delay := range []time.Duration{0, 10 * time.Second} {
			e := &endpoint{}
			clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
				outage(t, e, r, errDown, 3*time.Hour, time.Minute)
				e.set(func(e *endpoint) { e.delay = delay })
				if delay > 0 {
					for n := e.count(); e.count() == n; {
						time.Sleep(time.Second)
					}
				}
				e.set(func(e *endpoint) { e.err = nil })
				c.change(step, 0)
				set := time.Now()
				for r.Snapshot().Class != None {
					<-r.Snapshot().Changed()
				}
				if d := time.Since(set); d > delay+delay+backoffFirst {
					t.Errorf("a step of %v during an attempt of %v: token %v after it", step, delay, d)
				}
			})
		}
	}
}

// A clock that is slewed, or a sleep, is no step; and nothing happens while all is
// well.
func TestNoStepNoHint(t *testing.T) {
	e := &endpoint{}
	clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
		before := r.Snapshot()
		c.change(3*time.Second, 0)
		synctest.Wait()
		if e.count() != 1 || r.Snapshot() != before {
			t.Errorf("a step while all is well: %d exchanges", e.count())
		}
		n := outage(t, e, r, errDown, time.Hour, time.Minute)
		before = r.Snapshot()
		for range 50 {
			c.change(500*time.Millisecond, 0)
			time.Sleep(time.Second)
		}
		c.change(0, time.Second)
		synctest.Wait()
		if e.count() != n || r.Snapshot() != before {
			t.Errorf("%d attempts, hinted %v", e.count()-n, r.Snapshot().Hinted)
		}
	})
}

// A clock that is set again and again, as by two servers that differ.
func TestAStormOfSteps(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Millisecond, time.Second, 29 * time.Second} {
		e := &endpoint{}
		clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
			n := outage(t, e, r, errDown, time.Hour, time.Minute)
			step := time.Hour
			for start := time.Now(); time.Since(start) < 5*time.Minute; step = -step {
				c.change(step, 0)
				time.Sleep(every)
			}
			synctest.Wait()
			asked := e.times()[n:]
			for i := 7; i < len(asked); i++ { // before that, the backoff that one of them began
				if gap := asked[i].Sub(asked[i-1]); gap < requestGap {
					t.Errorf("every %v: attempt %d came %v after the one before", every, i, gap)
				}
			}
			t.Logf("every %v: %d attempts in 5 minutes", every, len(asked))
			if limit := int(5*time.Minute/requestGap) + 5; len(asked) > limit {
				t.Errorf("every %v: %d attempts in 5 minutes", every, len(asked))
			}
		})
	}
}
