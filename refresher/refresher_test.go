package refresher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("down")

// An endpoint is a token endpoint in virtual time: it answers after delay and
// remembers when it was asked.
type endpoint struct {
	mu       sync.Mutex
	lifetime time.Duration
	delay    time.Duration
	err      error
	rotate   bool
	asked    []time.Time
	saved    []string
	saveErr  error
	order    []string
}

func (e *endpoint) exchange(ctx context.Context) (Grant, error) {
	e.mu.Lock()
	e.asked = append(e.asked, time.Now())
	n, delay, err := len(e.asked), e.delay, e.err
	e.mu.Unlock()
	issued := time.Now()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return Grant{}, ctx.Err()
	}
	if err != nil {
		return Grant{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	g := Grant{AccessToken: fmt.Appendf(nil, "access-%d", n), IssuedAt: issued, Expiry: issued.Add(e.lifetime)}
	if e.rotate {
		g.RefreshToken = fmt.Appendf(nil, "refresh-%d", n)
	}
	return g, nil
}

func (e *endpoint) save(_ context.Context, token []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.order = append(e.order, "save "+string(token))
	if e.saveErr != nil {
		return e.saveErr
	}
	e.saved = append(e.saved, string(token))
	return nil
}

func (e *endpoint) set(f func(*endpoint)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e)
}

func (e *endpoint) count() int { return len(e.times()) }

// times is when the endpoint was asked.
func (e *endpoint) times() []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.asked)
}

// bubble runs f with a Refresher on e in virtual time, and sees that its loop
// ends.
func bubble(t *testing.T, e *endpoint, f func(t *testing.T, r *Refresher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if e.lifetime == 0 {
			e.lifetime = time.Hour
		}
		r := New(Config{Exchange: e.exchange, Save: e.save, Observe: func(_, s *Snapshot) {
			e.set(func(e *endpoint) { e.order = append(e.order, fmt.Sprint("publish ", s.Generation)) })
		}})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		f(t, r)
		cancel()
		<-r.done
	})
}

func mustToken(t *testing.T, r *Refresher, minTTL time.Duration) Token {
	t.Helper()
	tok, err := r.Token(t.Context(), minTTL)
	if err != nil {
		t.Fatalf("Token: %v", err)
	}
	return tok
}

func TestRefreshesBetween50And60PercentOfTheLifetime(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		asked := e.times()
		for i := 1; i < len(asked); i++ {
			gap := asked[i].Sub(asked[i-1])
			if gap < 30*time.Minute || gap > 36*time.Minute {
				t.Errorf("exchange %d came %v after the one before; want 30m to 36m", i, gap)
			}
		}
		if n := len(asked); n < 40 || n > 49 {
			t.Errorf("%d exchanges in 24 h", n)
		}
	})
}

func TestABurstOnNothingCostsOneExchange(t *testing.T) {
	e := &endpoint{delay: 3 * time.Second}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() {
				if tok, err := r.Token(t.Context(), DefaultMinTTL); err != nil || string(tok.Value) != "access-1" || tok.Stale {
					t.Errorf("Token = %v, %v", tok, err)
				}
			})
		}
		wg.Wait()
		if n := e.count(); n != 1 {
			t.Errorf("%d exchanges for one burst", n)
		}
	})
}

func TestCancelledCallersDoNotCancelTheExchange(t *testing.T) {
	e := &endpoint{delay: 3 * time.Second, rotate: true}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if _, err := r.Token(ctx, 0); err == nil {
					t.Error("a token before the endpoint answered")
				}
			})
		}
		wg.Wait()
		if tok := mustToken(t, r, 0); string(tok.Value) != "access-1" {
			t.Errorf("got %s", tok.Value)
		}
		if n := e.count(); n != 1 || strings.Join(e.saved, " ") != "refresh-1" {
			t.Errorf("%d exchanges, saved %q; want one, kept", n, e.saved)
		}
	})
}

// 10,000 callers on an expired token, and 99 % of them go away while the
// endpoint thinks, the one among them who began the exchange: it is still one
// exchange, and what it brought is kept.
func TestNearlyEverybodyGivesUp(t *testing.T) {
	const callers, stay = 10_000, 100
	e := &endpoint{delay: 3 * time.Second, lifetime: time.Hour, rotate: true}
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		r := New(Config{Exchange: e.exchange, Save: e.save, Grant: &Grant{
			AccessToken: []byte("expired"), IssuedAt: now.Add(-2 * time.Hour), Expiry: now.Add(-time.Hour),
		}})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		var gaveUp, served atomic.Int32
		ask := func(ctx context.Context) {
			tok, err := r.Token(ctx, DefaultMinTTL)
			var e *Error
			switch {
			case err == nil && string(tok.Value) == "access-1" && !tok.Stale:
				served.Add(1)
			case errors.As(err, &e) && e.Class == Transient && ctx.Err() != nil:
				gaveUp.Add(1)
			default:
				t.Errorf("%s, %v", tok.Value, err)
			}
		}
		impatient, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		var wg sync.WaitGroup
		for range callers - stay {
			wg.Go(func() { ask(impatient) })
		}
		synctest.Wait() // so that the exchange is theirs
		if n := e.count(); n != 1 {
			t.Errorf("%d exchanges began", n)
		}
		for range stay {
			wg.Go(func() { ask(t.Context()) })
		}
		wg.Wait()
		if tok := mustToken(t, r, 0); string(tok.Value) != "access-1" || time.Since(now) != e.delay {
			t.Errorf("later: %s, after %v", tok.Value, time.Since(now))
		}
		if n, order := e.count(), strings.Join(e.order, " "); n != 1 || order != "save refresh-1" {
			t.Errorf("%d exchanges; saved %q", n, order)
		}
		if gaveUp.Load() != callers-stay || served.Load() != stay {
			t.Errorf("%d gave up, %d were served", gaveUp.Load(), served.Load())
		}
		cancel()
		<-r.done
		t.Logf("%d callers, %d gave up, %d were served: %d exchange, %d refresh token saved", callers, gaveUp.Load(), served.Load(), e.count(), len(e.saved))
	})
}

func TestGreedyMinTTLIsClamped(t *testing.T) {
	e := &endpoint{lifetime: 20 * time.Second}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		for range 100 {
			if tok := mustToken(t, r, 24*time.Hour); tok.Stale {
				t.Fatal("stale")
			}
		}
		if n := e.count(); n != 1 {
			t.Errorf("%d exchanges; a wish beyond the lifetime must not make more than one", n)
		}
	})
}

func TestMinTTLWaitsForAFresherToken(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		e.set(func(e *endpoint) { e.err = errors.New("down") })
		time.Sleep(56 * time.Minute) // the timer's own tries fail
		for r.Snapshot().failedWithin(requestGap, r.now()) {
			time.Sleep(time.Second)
		}
		e.set(func(e *endpoint) { e.err = nil; e.delay = time.Second })
		if tok := mustToken(t, r, 30*time.Second); string(tok.Value) != "access-1" {
			t.Errorf("the token was good for 30 s still; got %s", tok.Value)
		}
		tok := mustToken(t, r, 10*time.Minute)
		if string(tok.Value) == "access-1" || tok.Stale {
			t.Errorf("got %s, stale %v; want a new one", tok.Value, tok.Stale)
		}
	})
}

// The gaps between retries are measured, not only counted: a schedule that
// computes a backoff and then does not wait for it passes every count.
func TestBackoffGaps(t *testing.T) {
	e := &endpoint{err: errors.New("refused")}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		var sum time.Duration
		asked := e.times()
		for i := 1; i < len(asked); i++ {
			gap := asked[i].Sub(asked[i-1])
			window := 5 * time.Minute
			if i < 10 {
				window = min(window, time.Second<<(i-1))
			}
			if gap < least(window) || gap > window {
				t.Errorf("gap %d is %v in a window of %v", i, gap, window)
			}
			sum += gap
		}
		t.Logf("%d attempts in 3 h, mean gap %v", len(asked), sum/time.Duration(len(asked)-1))
		if n := len(asked); n >= 60 {
			t.Errorf("%d attempts in 3 h", n)
		}
	})
}

func TestBackoffIsShorterWhileTheTokenIsValid(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		e.set(func(e *endpoint) { e.err = errors.New("down") })
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		asked := e.times()
		for i := 2; i < len(asked); i++ {
			if gap := asked[i].Sub(asked[i-1]); gap > backoffValid {
				t.Errorf("gap %d is %v while the token was valid", i, gap)
			}
		}
	})
}

func TestLastGoodTokenIsServedUntilItsExpiryAndNeverAfter(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		expiry := mustToken(t, r, 0).Expiry
		e.set(func(e *endpoint) { e.err = errors.New("down") })
		for time.Now().Before(expiry.Add(-time.Minute)) {
			mustToken(t, r, 0)
			time.Sleep(time.Minute)
		}
		if tok := mustToken(t, r, DefaultMinTTL); !tok.Stale {
			t.Error("the token lives shorter than was asked for, and does not say so")
		}
		time.Sleep(time.Until(expiry))
		_, err := r.Token(t.Context(), 0)
		var e *Error
		if !errors.As(err, &e) || e.Class != Transient || e.Next.IsZero() {
			t.Errorf("after expiry: %v; want a transient *Error that says when it goes on", err)
		}
	})
}

func TestRequestsDuringAnOutageCostOneAttemptPerGap(t *testing.T) {
	e := &endpoint{err: errors.New("down")}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		time.Sleep(30 * time.Minute) // the loop's own tries are minutes apart now
		n := e.count()
		for range 1000 { // 10 s, 100 callers a second
			start := time.Now()
			if _, err := r.Token(t.Context(), 0); err == nil {
				t.Fatal("a token from nowhere")
			}
			if waited := time.Since(start); waited != 0 {
				t.Fatalf("waited %v for an endpoint that fails at once", waited)
			}
			time.Sleep(10 * time.Millisecond)
		}
		got := e.times()[n:]
		for i := 1; i < len(got); i++ {
			if gap := got[i].Sub(got[i-1]); gap < requestGap {
				t.Errorf("attempts %v apart", gap)
			}
		}
		if len(got) < 2 || len(got) > 4 {
			t.Errorf("%d attempts in 10 s of requests", len(got))
		}
		e.set(func(e *endpoint) { e.err = nil })
		time.Sleep(requestGap)
		mustToken(t, r, 0) // the first request after the return succeeds
	})
}

func TestACallerGetsOneRefreshFromASlowEndpoint(t *testing.T) {
	e := &endpoint{lifetime: 20 * time.Second, delay: 15 * time.Second}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		tok := mustToken(t, r, DefaultMinTTL)
		if !tok.Stale || e.count() > 2 { // the loop itself may have begun the next
			t.Errorf("stale %v after %d exchanges", tok.Stale, e.count())
		}
	})
}

func TestAnUnsavedTokenOfAPredecessorIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{lifetime: time.Hour}
		now := time.Now()
		r := New(Config{Exchange: e.exchange, Save: e.save, Unsaved: []byte("rotated"), Grant: &Grant{
			AccessToken: []byte("at hand"), IssuedAt: now, Expiry: now.Add(time.Hour),
		}})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		synctest.Wait()
		if strings.Join(e.saved, " ") != "rotated" || e.count() != 0 {
			t.Errorf("saved %q, %d exchanges", e.saved, e.count())
		}
		cancel()
		<-r.done
	})
}

func TestAStaleWakeIsIgnored(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		r.wake <- wake{generation: 0}
		r.wake <- wake{generation: 0, forced: true}
		synctest.Wait()
		if n := e.count(); n != 1 {
			t.Errorf("%d exchanges; a generation already replaced bought another", n)
		}
	})
}

func TestSavedBeforePublished(t *testing.T) {
	e := &endpoint{rotate: true}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		synctest.Wait()
		if got := strings.Join(e.order, ", "); got != "save refresh-1, publish 1" {
			t.Errorf("order: %s", got)
		}
	})
}

func TestAFailedSaveIsRepeatedAndServesMeanwhile(t *testing.T) {
	e := &endpoint{rotate: true, saveErr: errors.New("disk full")}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		if tok := mustToken(t, r, 0); string(tok.Value) != "access-1" {
			t.Errorf("got %s", tok.Value)
		}
		if r.Snapshot().SaveErr == nil {
			t.Error("the snapshot hides that the refresh token is not saved")
		}
		time.Sleep(10 * time.Second)
		e.set(func(e *endpoint) { e.saveErr = nil })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if len(e.saved) != 1 || e.saved[0] != "refresh-1" || r.Snapshot().SaveErr != nil {
			t.Errorf("saved %q, SaveErr %v", e.saved, r.Snapshot().SaveErr)
		}
		if n := e.count(); n != 1 {
			t.Errorf("%d exchanges; saving again must not cost one", n)
		}
	})
}

func TestStoppingKeepsTheExchangeUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{rotate: true, lifetime: time.Hour, delay: 5 * time.Second}
		r := New(Config{Exchange: e.exchange, Save: e.save})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		time.Sleep(time.Second)
		cancel()
		<-r.done
		if len(e.saved) != 1 {
			t.Error("stopping lost the rotated refresh token")
		}
		if _, err := r.Token(t.Context(), 0); err != nil {
			t.Errorf("a stopped Refresher still has a valid token: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := r.Token(t.Context(), 0); !errors.Is(err, ErrStopped) {
			t.Errorf("err = %v; want ErrStopped", err)
		}
	})
}

func TestInvalidGrantStopsAtOnce(t *testing.T) {
	e := &endpoint{err: &Failure{Class: NeedsLogin, Err: errors.New("invalid_grant")}}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		for range 100 {
			_, err := r.Token(t.Context(), 0)
			var e *Error
			if !errors.As(err, &e) || e.Class != NeedsLogin {
				t.Fatalf("err = %v", err)
			}
			time.Sleep(time.Hour)
		}
		if n := e.count(); n != 1 {
			t.Errorf("%d exchanges with a token that the endpoint called dead", n)
		}
		e.set(func(e *endpoint) { e.err = nil })
		if s, err := r.Refresh(t.Context()); err != nil || s.Class != None {
			t.Errorf("a person's wish is tried all the same: %v, %v", s.Err, err)
		}
	})
}

func TestBareRefusalsNeedFiveInARowAndAnExpiredToken(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		expiry := mustToken(t, r, 0).Expiry
		e.set(func(e *endpoint) { e.err = &Failure{Class: Refused, Err: errors.New("403")} })
		time.Sleep(time.Until(expiry) - time.Second)
		synctest.Wait()
		if s := r.Snapshot(); s.Class != Refused || s.Refusals < refusedLimit {
			t.Errorf("while the token is valid: %v after %d refusals", s.Class, s.Refusals)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s := r.Snapshot()
		if s.Class != NeedsLogin {
			t.Errorf("after expiry: %v", s.Class)
		}
		if wait := s.NextAttempt().Sub(s.Ended); wait != latchedRetry {
			t.Errorf("next attempt after %v; want %v", wait, latchedRetry)
		}
		e.set(func(e *endpoint) { e.err = nil })
		time.Sleep(latchedRetry)
		mustToken(t, r, 0) // a bad hour of the gateway heals by itself
	})
}

func TestRefreshReplacesAFreshTokenOnce(t *testing.T) {
	e := &endpoint{delay: time.Second}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if s, err := r.Refresh(t.Context()); err != nil || s.Generation != 2 {
					t.Errorf("generation %d, %v", s.Generation, err)
				}
			})
		}
		wg.Wait()
		e.set(func(e *endpoint) { e.err = errors.New("down") })
		for range 10 {
			if s, _ := r.Refresh(t.Context()); s.Err == nil {
				t.Error("the failure is hidden")
			}
		}
		if n := e.count(); n != 3 {
			t.Errorf("%d exchanges; want the first, one for a hundred wishes, one for ten during the outage", n)
		}
	})
}

func TestAGrantAtHandCostsNoExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{lifetime: time.Hour}
		now := time.Now()
		r := New(Config{Exchange: e.exchange, Save: e.save, Generation: 6, Grant: &Grant{
			AccessToken: []byte("at hand"), IssuedAt: now, Expiry: now.Add(time.Hour),
		}})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		if tok := mustToken(t, r, 0); string(tok.Value) != "at hand" || tok.Generation != 7 {
			t.Errorf("%s, generation %d", tok.Value, tok.Generation)
		}
		if n := e.count(); n != 0 {
			t.Errorf("%d exchanges", n)
		}
		cancel()
		<-r.done
	})
}

func TestAGrantThatHasExpiredIsAFailure(t *testing.T) {
	e := &endpoint{lifetime: time.Second, delay: 2 * time.Second, rotate: true}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.Snapshot(); s.Class != Malformed {
			t.Errorf("class %v", s.Class)
		}
		if n := e.count(); n > 30 {
			t.Errorf("%d exchanges in a minute", n)
		}
		if len(e.saved) < e.count()-1 { // one may be under way
			t.Errorf("%d of %d rotated refresh tokens saved", len(e.saved), e.count())
		}
	})
}

func TestATokenIsWipedWhenItIsReplaced(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mine := mustToken(t, r, 0)
		held := r.Snapshot().accessToken.b
		if _, err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if string(held) != strings.Repeat("\x00", len("access-1")) {
			t.Errorf("the replaced token is still in memory: %q", held)
		}
		if string(mine.Value) != "access-1" {
			t.Errorf("a caller's copy was wiped: %q", mine.Value)
		}
	})
}

func TestAStoppedRefresherCanBeWiped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{lifetime: time.Hour}
		r := New(Config{Exchange: e.exchange, Save: e.save})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		mustToken(t, r, 0)
		cancel()
		<-r.done
		held := r.Snapshot().accessToken.b
		r.Wipe()
		if string(held) != strings.Repeat("\x00", len("access-1")) || r.Snapshot().Grant() != nil {
			t.Errorf("still in memory: %q", held)
		}
		if _, err := r.Token(t.Context(), 0); !errors.Is(err, ErrStopped) {
			t.Errorf("%v", err)
		}
	})
}

func TestNothingPrintsTheToken(t *testing.T) {
	s := &Snapshot{accessToken: &secret{b: []byte("canary")}}
	tok := Token{Value: []byte("canary")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{s, tok, &tok} {
			got := fmt.Sprintf(verb, v)
			if strings.Contains(got, "canary") || strings.Contains(got, "63616e617279") || strings.Contains(got, "99 97") {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
}

// An endpoint that has asked for a pause gets it, as long as there is a token;
// without one a request starts an attempt all the same, every requestGap.
func TestRetryAfterHoldsForCallersToo(t *testing.T) {
	e := &endpoint{}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		mustToken(t, r, 0)
		e.set(func(e *endpoint) { e.err = &Failure{Class: Transient, RetryAfter: 9 * time.Minute, Err: errDown} })
		time.Sleep(37 * time.Minute)
		synctest.Wait()
		before := e.count()
		for range 60 {
			if tok := mustToken(t, r, 30*time.Minute); !tok.Stale { // the token has 23 min
				t.Error("not stale")
			}
			time.Sleep(time.Second)
		}
		with := e.count() - before
		time.Sleep(time.Hour)
		before = e.count()
		for range 60 {
			_, _ = r.Token(t.Context(), 0)
			time.Sleep(time.Second)
		}
		without := e.count() - before
		t.Logf("Retry-After of 9 min, a caller a second: %d attempts a minute with a token, %d without", with, without)
		if with > 1 || without < 10 || without > 13 {
			t.Errorf("%d and %d attempts", with, without)
		}
	})
}

// An outage says nothing of the refresh token: it does not take back what five
// refusals amount to.
func TestAnOutageDoesNotLiftALatch(t *testing.T) {
	e := &endpoint{err: &Failure{Class: Refused, Err: errDown}}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := r.Snapshot(); s.Class != NeedsLogin {
			t.Fatalf("%v after %d refusals", s.Class, s.Refusals)
		}
		e.set(func(e *endpoint) { e.err = errDown })
		time.Sleep(latchedRetry)
		synctest.Wait()
		if s := r.Snapshot(); s.Class != NeedsLogin {
			t.Errorf("%v after one refused connection", s.Class)
		}
		e.set(func(e *endpoint) { e.err = nil })
		time.Sleep(latchedRetry)
		mustToken(t, r, 0)
		if s := r.Snapshot(); s.Refusals != 0 {
			t.Errorf("%d refusals after a grant", s.Refusals)
		}
	})
}

// Saves that fail are tried again after 1 s, doubling to 30 s; and once more when
// the loop ends.
func TestTheGapsBetweenSaves(t *testing.T) {
	var at []time.Time
	e := &endpoint{rotate: true, saveErr: errors.New("disk full"), lifetime: 24 * time.Hour}
	synctest.Test(t, func(t *testing.T) {
		save := func(ctx context.Context, token []byte) error {
			at = append(at, time.Now())
			return e.save(ctx, token)
		}
		r := New(Config{Exchange: e.exchange, Save: save})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		mustToken(t, r, 0)
		time.Sleep(5*time.Minute + time.Second/2)
		cancel()
		<-r.done
	})
	for i := 1; i < len(at)-1; i++ {
		if gap, want := at[i].Sub(at[i-1]), min(time.Second<<(i-1), 30*time.Second); gap != want {
			t.Errorf("gap %d is %v, want %v", i, gap, want)
		}
	}
	last := at[len(at)-1].Sub(at[len(at)-2])
	t.Logf("%d saves in 5 min, the last at the end of the loop, %v after the one before", len(at), last)
	if len(at) < 12 || last >= 30*time.Second {
		t.Errorf("%d saves; the last %v after the one before", len(at), last)
	}
}

// A refresh token that came with an answer which is otherwise no good is saved.
func TestARefreshTokenBesideAnErrorIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		exchange := func(context.Context) (Grant, error) {
			return Grant{RefreshToken: []byte("next")}, &Failure{Class: Malformed, Err: errDown}
		}
		r := New(Config{Exchange: exchange, Save: e.save})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		if s, err := r.Refresh(t.Context()); err != nil || s.Class != Malformed {
			t.Errorf("%v, %v", s.Class, err)
		}
		cancel()
		<-r.done
		if len(e.saved) == 0 || e.saved[0] != "next" {
			t.Errorf("saved: %q", e.saved)
		}
	})
}
