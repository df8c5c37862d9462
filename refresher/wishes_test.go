package refresher

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// between is how many exchanges began in the time from a to b.
func (e *endpoint) between(a, b time.Time) int {
	n := 0
	for _, at := range e.times() {
		if !at.Before(a) && at.Before(b) {
			n++
		}
	}
	return n
}

// The figures are promises (PROTOCOL.md section 2.7): 3 exchanges at once, and then
// one every 5 s, whatever callers wish for.
func TestARefreshInALoopIsLimited(t *testing.T) {
	for name, failing := range map[string]error{"granted": nil, "failing": errDown, "refused": &Failure{Class: NeedsLogin, Err: errDown}} {
		t.Run(name, func(t *testing.T) {
			e := &endpoint{}
			bubble(t, e, func(t *testing.T, r *Refresher) {
				mustToken(t, r, 0) // by the timer
				time.Sleep(time.Minute)
				e.set(func(e *endpoint) { e.err = failing })
				before, start := e.count(), time.Now()
				for time.Since(start) < 62*time.Second {
					s, err := r.Refresh(t.Context())
					if err != nil && !errors.Is(err, ErrTooSoon) || !s.Valid() {
						t.Fatalf("%v, %v", s, err)
					}
					if errors.Is(err, ErrTooSoon) && (s.Class != None) != (failing != nil) {
						t.Fatalf("too soon, and class %v", s.Class)
					}
					time.Sleep(10 * time.Millisecond)
				}
				wishes := e.count() - before
				if failing == nil && wishes != 3+12 {
					t.Errorf("%d exchanges in 62 s, want 3 + 62/5", wishes)
				}
				if n := e.between(start, start.Add(4900*time.Millisecond)); n > 3+3 || failing == nil && n != 3 { // the timer's are among the failures
					t.Errorf("%d exchanges in the first 5 s", n)
				}
			})
		})
	}
}

// Callers that want more than there is get the token as it is, once their wishes are
// used up. The timers go on.
func TestGreedyCallersAreLimited(t *testing.T) {
	// So slow that a token is never as good as is wished for.
	greedy, alone := &endpoint{lifetime: time.Second, delay: 600 * time.Millisecond}, &endpoint{lifetime: time.Second, delay: 600 * time.Millisecond}
	bubble(t, alone, func(*testing.T, *Refresher) { time.Sleep(time.Minute) })
	bubble(t, greedy, func(t *testing.T, r *Refresher) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
					if _, err := r.Token(t.Context(), time.Hour); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	// Each wish puts the next timer off, so the sum is a bound.
	t.Logf("%d exchanges, %d without callers", greedy.count(), alone.count())
	if n := greedy.count() - alone.count(); n > 3+12 {
		t.Errorf("%d exchanges more", n)
	}
}

// A wish that finds an exchange under way joins it, even if none is left.
func TestAWishJoinsTheTimersExchange(t *testing.T) {
	e := &endpoint{delay: time.Second, lifetime: 8 * time.Second}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		start := time.Now()
		for _, at := range []time.Duration{0, time.Second, 2 * time.Second, 5 * time.Second} {
			time.Sleep(time.Until(start.Add(at)))
			if _, err := r.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s := r.Snapshot()
		time.Sleep(time.Until(s.NextAttempt()) + 100*time.Millisecond)
		if !s.TooSoon() {
			t.Fatal("there is a wish left, so this proves nothing")
		}
		if got, err := r.Refresh(t.Context()); err != nil || got.Generation != s.Generation+1 {
			t.Errorf("generation %d after %d, %v", got.Generation, s.Generation, err)
		}
		if got, err := r.Refresh(t.Context()); time.Since(start) < 10*time.Second && err == nil {
			t.Errorf("generation %d with no wish left", got.Generation)
		}
	})
}

// What one Refresher has spent, the next of the profile does not have.
func TestASuccessorHasTheWishesThatAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, wishes, clock := &endpoint{lifetime: time.Hour}, &Wishes{}, RuntimeClock()
		var grant *Grant
		for range 3 {
			r := New(Config{Exchange: e.exchange, Save: e.save, Wishes: wishes, Clock: clock, Grant: grant})
			ctx, cancel := context.WithCancel(t.Context())
			go r.Run(ctx)
			mustToken(t, r, 0)
			for range 3 {
				_, _ = r.Refresh(t.Context())
			}
			grant = r.Snapshot().Grant()
			cancel()
			<-r.done
		}
		if n := e.count(); n != 1+3 {
			t.Errorf("%d exchanges, want the first and 3", n)
		}
	})
}

// A lock and an unlock in a loop cost no more than a refresh in a loop. Each caller
// gets a token all the same, once there is a wish left.
func TestAWishedRefresherSpendsWishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, wishes, clock, start := &endpoint{lifetime: time.Hour}, &Wishes{}, RuntimeClock(), time.Now()
		for time.Since(start) < time.Minute {
			r := New(Config{Exchange: e.exchange, Save: e.save, Wishes: wishes, Wished: true, Clock: clock})
			ctx, cancel := context.WithCancel(t.Context())
			go r.Run(ctx)
			asked := time.Now()
			mustToken(t, r, 0)
			if took := time.Since(asked); took > wishGap {
				t.Errorf("a caller waited for %v", took)
			}
			if s, err := r.Refresh(t.Context()); err != nil && !errors.Is(err, ErrTooSoon) || !s.Valid() {
				t.Errorf("%v, %v", s, err)
			}
			cancel()
			<-r.done
			time.Sleep(10 * time.Millisecond)
		}
		if n, first := e.count(), e.between(start, start.Add(4900*time.Millisecond)); first != 3 || n > 3+13 {
			t.Errorf("%d exchanges in a minute, %d in the first 5 s", n, first)
		}
	})
}
