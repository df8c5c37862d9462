package refresher

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A testClock is one whose wall can be set and whose machine can sleep.
type testClock struct {
	Clock
	mu       sync.Mutex
	wall     time.Duration // how far the wall clock was set from the truth
	slept    time.Duration // how long the machine has slept
	sleepers []chan time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.wall + c.slept)
}

func (c *testClock) Boottime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Clock.Boottime() + c.slept
}

func (c *testClock) After(d time.Duration) (<-chan time.Time, func()) {
	out := make(chan time.Time, 1)
	t := time.AfterFunc(d, func() {
		select {
		case out <- time.Now():
		default: // a change of the clocks was quicker
		}
	})
	c.mu.Lock()
	c.sleepers = append(c.sleepers, out)
	c.mu.Unlock()
	return out, func() { t.Stop() }
}

// change steps the wall, or lets the machine sleep; as the kernel does, it
// wakes who waits.
func (c *testClock) change(wall, slept time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += wall
	c.slept += slept
	for _, s := range c.sleepers {
		select {
		case s <- time.Now():
		default:
		}
	}
	c.sleepers = nil
}

// clocked runs f with a Refresher on e and a clock that can be tampered with.
// The endpoint's own times are by the tampered wall, as the client's are.
func clocked(t *testing.T, e *endpoint, f func(t *testing.T, r *Refresher, c *testClock)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &testClock{Clock: RuntimeClock()}
		exchange := func(ctx context.Context) (Grant, error) {
			g, err := e.exchange(ctx)
			g.IssuedAt = c.Now()
			g.Expiry = g.IssuedAt.Add(e.lifetime)
			return g, err
		}
		e.lifetime = time.Hour
		r := New(Config{Exchange: exchange, Save: e.save, Clock: c})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		mustToken(t, r, 0)
		f(t, r, c)
		cancel()
		<-r.done
	})
}

// A step of the wall clock neither makes exchanges nor prolongs a token.
func TestStepsOfTheWallClock(t *testing.T) {
	for _, step := range []time.Duration{
		time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, -10 * 365 * 24 * time.Hour,
		time.Second, -time.Second, 5 * time.Minute, -5 * time.Minute, 29 * time.Minute, 31 * time.Minute, 100 * 365 * 24 * time.Hour,
	} {
		t.Run(step.String(), func(t *testing.T) {
			e := &endpoint{}
			clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
				c.change(step, 0)
				synctest.Wait()
				if n := e.count(); n != 1 {
					t.Errorf("%d exchanges because the clock was set", n)
				}
				tok, err := r.Token(t.Context(), DefaultMinTTL)
				if err != nil || tok.Stale || e.count() > 2 {
					t.Errorf("%v, %v after %d exchanges", tok, err, e.count())
				}
				if step >= time.Hour && tok.Generation != 2 {
					t.Error("by the wall clock the token had expired, and it was served")
				}
				// Down from here: what is served ends when either clock says so.
				s := r.Snapshot()
				e.set(func(e *endpoint) { e.err = errDown })
				time.Sleep(time.Hour)
				if s.valid(r.now()) {
					t.Error("an hour later the token of an hour is still valid")
				}
				e.set(func(e *endpoint) { e.err = nil })
				time.Sleep(6 * time.Minute)
				if tok := mustToken(t, r, DefaultMinTTL); tok.Stale {
					t.Error("stale after the endpoint's return")
				}
			})
		})
	}
}

// Timers that stand still while a laptop sleeps are what every comparable
// program has met.
func TestSuspend(t *testing.T) {
	e := &endpoint{}
	clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
		time.Sleep(10 * time.Minute)
		c.change(0, 8*time.Hour)
		synctest.Wait()
		if n := e.count(); n != 2 {
			t.Errorf("%d exchanges after 8 h of sleep; want one at once", n)
		}
		if tok := mustToken(t, r, DefaultMinTTL); string(tok.Value) != "access-2" {
			t.Errorf("%s", tok.Value)
		}
	})
}

func TestResumeWithoutANetwork(t *testing.T) {
	e := &endpoint{}
	clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
		e.set(func(e *endpoint) { e.err = errDown })
		c.change(0, 8*time.Hour)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := e.count(); n < 3 {
			t.Errorf("%d attempts in the 30 s after the resume", n-1)
		}
		if _, err := r.Token(t.Context(), 0); err == nil {
			t.Error("a token of before the sleep was served")
		}
		e.set(func(e *endpoint) { e.err = nil })
		time.Sleep(requestGap)
		mustToken(t, r, 0)
	})
}

// The wall clock of a machine that has just booted is often set while the first
// exchange is under way. A token lives no longer for that, and the next exchange
// comes in time.
func TestAStepInTheMiddleOfAnExchange(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour, -10 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := &testClock{Clock: RuntimeClock()}
			n := 0
			exchange := func(context.Context) (Grant, error) {
				n++
				sent := c.Now().Truncate(time.Second)
				time.Sleep(time.Second)
				if n == 1 {
					c.change(step, 0)
				}
				return Grant{AccessToken: []byte("x"), IssuedAt: sent, Expiry: sent.Add(time.Hour)}, nil
			}
			r := New(Config{Exchange: exchange, Save: (&endpoint{}).save, Clock: c})
			ctx, cancel := context.WithCancel(t.Context())
			go r.Run(ctx)
			mustToken(t, r, 0)
			s := r.Snapshot()
			left, next := s.Left(), r.now().until(s.next)
			t.Logf("clock set by %v in the middle: the token lives %v, the next exchange in %v", step, left, next)
			if left > time.Hour || next > 36*time.Minute {
				t.Errorf("step %v: %v left, next in %v", step, left, next)
			}
			time.Sleep(40 * time.Minute)
			if tok := mustToken(t, r, DefaultMinTTL); tok.Generation < 2 || tok.Stale {
				t.Errorf("step %v: generation %d, stale %v after 40 min", step, tok.Generation, tok.Stale)
			}
			cancel()
			<-r.done
		})
	}
}

// What callers are told of a token's end is true by the clock that they have, and
// a successor keeps to the schedule, whatever was done to the wall clock.
func TestAfterAStepTheTimesToldAreTrue(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, -10 * 365 * 24 * time.Hour} {
		e := &endpoint{}
		clocked(t, e, func(t *testing.T, r *Refresher, c *testClock) {
			time.Sleep(10 * time.Minute)
			c.change(step, 0)
			synctest.Wait()
			tok, s := mustToken(t, r, 0), r.Snapshot()
			told, left := tok.Expiry.Sub(c.Now()), s.Left()
			if told != left || left > 50*time.Minute || tok.Expiry.Sub(tok.IssuedAt) != time.Hour {
				t.Errorf("step %v: told to live for %v, issued %v before that; lives for %v", step, told, tok.Expiry.Sub(tok.IssuedAt), left)
			}
			if due := tok.RefreshAt.Sub(c.Now()); due < 0 || due > 26*time.Minute {
				t.Errorf("step %v: told to be replaced in %v", step, due)
			}
			next := New(Config{Exchange: r.config.Exchange, Save: e.save, Clock: c, Grant: s.Grant()})
			first := next.Snapshot()
			if due := next.now().until(first.next); due < 20*time.Minute || due > 26*time.Minute || first.lifetime != time.Hour {
				t.Errorf("step %v: the successor acts in %v, on a lifetime of %v", step, due, first.lifetime)
			}
			t.Logf("clock set by %v: told %v, lives %v", step, told, left)
		})
	}
}
