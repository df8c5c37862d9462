package refresher

import (
	"context"
	"errors"
	"time"
)

// outcome is what an attempt brings back to the loop.
type outcome struct {
	began   instant // before the exchange
	grant   Grant
	err     error
	unsaved []byte // a refresh token that could not be saved
	saveErr error
}

// loop is the state that only Run's goroutine touches.
type loop struct {
	*Refresher
	results chan outcome // of the attempt under way

	unsaved  []byte // a rotated refresh token that the store has not taken yet
	saveAt   instant
	failures int // to save, in a row

	boot   time.Time // of the machine, by both clocks; it moves when the wall clock is set
	hintAt instant   // when the last hint came
	// A hint came while an attempt was under way; it starts the backoff anew.
	pending, pendingAnew bool
}

// Run refreshes until ctx ends. An exchange under way is waited for (at most
// exchangeTimeout) and its result kept, because the refresh token that it
// spent may be replaced by now.
func (r *Refresher) Run(ctx context.Context) {
	defer close(r.done)
	l := &loop{Refresher: r, results: make(chan outcome, 1), unsaved: r.config.Unsaved, saveAt: r.now()}
	for l.step(ctx) {
	}
	close(r.ending)
	l.finish()
}

// step waits for one thing to happen and deals with it. It reports false when
// ctx has ended.
func (l *loop) step(ctx context.Context) bool {
	timer, stop := l.config.Clock.After(l.untilNext())
	defer stop()
	if l.clockWasSet() { // from here on, a step fires the timer
		l.hinted()
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer:
		l.due()
	case w := <-l.wake:
		l.woken(w)
	case o := <-l.results:
		l.busy.Store(false) // before it publishes: see Refresh
		l.take(o)
		if l.pending {
			l.heed(l.pendingAnew)
			l.pending, l.pendingAnew = false, false
		}
	}
	return true
}

// untilNext is how long the loop may sleep. Nothing is due while an attempt is
// under way.
func (l *loop) untilNext() time.Duration {
	const never = 365 * 24 * time.Hour
	if l.busy.Load() {
		return never
	}
	at, now := l.current.Load().next, l.now()
	if l.unsaved != nil && (at.isZero() || l.saveAt.boot < at.boot) {
		at = l.saveAt
	}
	if at.isZero() {
		return never
	}
	return max(0, now.until(at))
}

func (l *loop) due() {
	now := l.now()
	if l.busy.Load() {
		return
	}
	if l.unsaved != nil && now.until(l.saveAt) <= 0 {
		l.start(l.saveAgain)
		return
	}
	s := l.current.Load()
	if !s.next.isZero() && now.until(s.next) <= 0 {
		if l.firstWished(s) {
			l.config.Wishes.spend(now)
		}
		l.start(l.attempt)
	}
}

// firstWished reports whether the exchange after s is a wish, whatever starts it.
func (l *loop) firstWished(s *Snapshot) bool { return l.config.Wished && s.Exchanges == 0 }

// woken: a caller that lost the race with the last publication may still
// deliver its wake. Serving it would spend a second exchange, so a generation
// already replaced is ignored, and so is a wish that comes too soon after a
// failure or after other wishes; such callers have been woken by the publication
// itself.
func (l *loop) woken(w wake) {
	if w.hint {
		l.hinted()
		return
	}
	s, now := l.current.Load(), l.now()
	if l.busy.Load() || w.generation != s.Generation {
		return
	}
	worth := s.worthAttempt(now)
	if w.forced {
		worth = !s.failedWithin(forcedGap, now) && !tooSoon(s, now)
	}
	if !worth || comesSoon(s, now) {
		return
	}
	if s.next.isZero() || now.until(s.next) > 0 || l.firstWished(s) { // else the timer would start it
		l.config.Wishes.spend(now)
	}
	l.start(l.attempt)
}

// clockWasSet reports whether the wall clock was set since the last call. It can be
// what the last exchange failed by: no certificate is valid in 1970. The clocks
// drift apart by less than a second.
func (l *loop) clockWasSet() bool {
	before, now := l.boot, l.now()
	l.boot = now.wall.Add(-now.boot)
	return !before.IsZero() && l.boot.Sub(before).Abs() > time.Second
}

// hinted: a hint during an attempt counts when that is over, since the change
// may have come too late for it.
func (l *loop) hinted() {
	now := l.now()
	anew := l.hintAt.isZero() || l.hintAt.until(now) >= hintQuiet
	l.hintAt = now
	if l.busy.Load() {
		l.pending, l.pendingAnew = true, l.pendingAnew || anew
		return
	}
	l.heed(anew)
}

// heed brings the next attempt forward, if the last failed in a way that a
// change of the network, or of the clock, can repair.
func (l *loop) heed(anew bool) {
	s, now := l.current.Load(), l.now()
	if s.Class != Transient || s.wished {
		return
	}
	if next := s.hinted(anew, now, random()); next != s {
		l.publish(next)
	}
}

// start runs f beside the loop, which stays able to hear its context and to
// swallow wakes. The goroutine ends when f does; finish waits for it.
func (l *loop) start(f func() outcome) {
	l.busy.Store(true)
	go func() { l.results <- f() }()
}

// attempt does one exchange. Its context is not that of any caller: a Ctrl-C
// in a client must not lose a refresh token that the endpoint has just issued.
func (l *loop) attempt() outcome {
	ctx, cancel := context.WithTimeout(context.Background(), exchangeTimeout)
	defer cancel()
	began := l.now()
	grant, err := l.config.Exchange(ctx)
	o := outcome{unsaved: l.unsaved}
	if grant.RefreshToken != nil { // whatever else the answer was: it counts
		o = l.save(grant.RefreshToken)
	}
	o.began, o.grant, o.err = began, grant, err
	return o
}

// save comes before publish: some endpoints revoke the old refresh token the
// moment they issue a new one. If we die between the two, the person must not
// have to log in.
func (l *loop) save(refreshToken []byte) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	if err := l.config.Save(ctx, refreshToken); err != nil {
		return outcome{unsaved: refreshToken, saveErr: err}
	}
	clear(refreshToken) // Save has its own
	return outcome{}
}

func (l *loop) saveAgain() outcome { return l.save(l.unsaved) }

var errExpired = errors.New("the token that was granted has expired already")

// take publishes what came of an attempt.
func (l *loop) take(o outcome) {
	s, now := l.current.Load(), l.now()
	issued := o.issued()
	if o.err == nil && o.grant.AccessToken != nil && now.until(issued.add(o.grant.lifetime())) <= 0 {
		o.err = &Failure{Class: Malformed, Err: errExpired}
	}
	var next *Snapshot
	switch {
	case o.err != nil:
		next = s.failed(failureOf(o.err), now, random())
	case o.grant.AccessToken != nil:
		next = s.granted(o.grant, issued, now, random())
	default: // only a save
		next = s.again()
	}
	next.wishes = *l.config.Wishes
	l.takeSave(o, now)
	next.SaveErr = o.saveErr
	if o.unsaved != nil && o.saveErr == nil {
		next.SaveErr = s.SaveErr // not tried this time
	}
	l.publish(next)
}

// issued is the instant from which the grant's lifetime counts, by both clocks:
// that of the request. The wall clock may have been set while it was under way,
// so the grant's own times are used for their difference alone, and for the
// fraction of a second that the endpoint has cut off its own.
func (o outcome) issued() instant {
	cut := o.began.wall.Sub(o.grant.IssuedAt)
	return o.began.add(-min(max(cut, 0), time.Second))
}

func (l *loop) takeSave(o outcome, now instant) {
	l.unsaved = o.unsaved
	switch {
	case o.unsaved == nil:
		l.failures = 0
	case o.saveErr != nil:
		l.failures++
		l.saveAt = now.add(min(saveMost, saveFirst<<min(l.failures-1, 5)))
	}
}

func (l *loop) publish(next *Snapshot) {
	previous := l.current.Swap(next)
	close(previous.changed)
	if previous.accessToken != next.accessToken {
		previous.accessToken.wipe()
	}
	if l.config.Observe != nil {
		l.config.Observe(previous, next)
	}
}

// finish ends the loop in good order: what an exchange under way brings is
// kept, and a refresh token that is not saved gets one more chance.
func (l *loop) finish() {
	if l.busy.Load() {
		l.take(<-l.results)
	}
	if l.unsaved != nil {
		l.take(l.saveAgain())
	}
}
