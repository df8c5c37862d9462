// Package refresher keeps one profile's access token fresh.
//
// A Refresher has a single writer, the loop in Run: it alone decides when to
// call the token endpoint and what becomes of the answer. Everybody else reads
// the latest Snapshot, which is never modified once published, so that readers
// never block a refresh and a refresh never blocks readers.
//
// What it promises:
//   - One exchange at a time, however many callers wait for it.
//   - A token is served until its expiry and never after.
//   - A failed refresh neither replaces a valid token nor ends the trying.
//   - A rotated refresh token is saved before anybody sees the access token
//     that came with it; if that fails, it is tried again until it works.
//   - A caller who gives up does not cancel the exchange that others (and the
//     refresh token's safety) depend on.
//
// It knows neither the socket nor the store nor HTTP: those are functions in
// its Config.
package refresher

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// DefaultMinTTL is how long a token should live still when a caller does not
// say: enough for what most callers do next, a push or a download.
const DefaultMinTTL = 5 * time.Minute

// ErrNoAnswer says that a caller's time ended before the exchange did.
var ErrNoAnswer = errors.New("the exchange has not ended yet")

// ErrStopped is returned to callers of a Refresher whose Run has ended.
var ErrStopped = errors.New("refresher has stopped")

// A Grant is what the token endpoint returned.
type Grant struct {
	AccessToken []byte
	// RefreshToken is nil unless the endpoint rotated it.
	RefreshToken     []byte
	IssuedAt, Expiry time.Time // wall clock of this machine
}

func (g Grant) lifetime() time.Duration { return g.Expiry.Sub(g.IssuedAt) }

// Config is what a Refresher works with.
type Config struct {
	// Exchange calls the token endpoint once, without retries of its own. Its
	// error may be a *Failure; any other counts as transient. A refresh token in
	// the grant is saved even beside an error. Calls never overlap. ctx outlives
	// any caller of Token.
	Exchange func(ctx context.Context) (Grant, error)

	// Save makes a rotated refresh token durable; from the call on, whether it
	// fails or not, Exchange must use that token. After an error it is called
	// again with the same token, later. The bytes are cleared when it has worked.
	Save func(ctx context.Context, refreshToken []byte) error

	// Grant is an access token that is at hand already, or nil.
	Grant *Grant

	// AtOnce makes the first exchange due now, even with a Grant.
	AtOnce bool

	// Generation is the number of the last token that a predecessor published.
	Generation uint64

	// Unsaved is a refresh token that a predecessor could not save, or nil.
	Unsaved []byte

	// Wishes are those of the profile; if nil, of this Refresher alone.
	Wishes *Wishes

	// Wished says that a caller had the Refresher made: without a Grant, its first
	// exchange is one of Wishes, and waits for one if none is left.
	Wished bool

	// Clock is the time; RuntimeClock if nil.
	Clock Clock

	// Observe, if set, is called by the loop after each publication. It must
	// not block.
	Observe func(previous, current *Snapshot)
}

// A Refresher keeps one access token fresh while Run runs.
type Refresher struct {
	config  Config
	current atomic.Pointer[Snapshot]
	busy    atomic.Bool // an attempt is under way

	// wake is unbuffered on purpose: a buffered wake outlives the need for it
	// and buys a second exchange after a burst.
	wake   chan wake
	ending chan struct{} // closed when the loop hears no wakes any more
	done   chan struct{} // closed when Run returns
}

// A wake asks the loop for a token newer than the generation that its sender
// found wanting.
type wake struct {
	generation uint64
	forced     bool // a person asked: even a fresh token is to be replaced
	hint       bool // of Hint: the rest does not matter
}

// New makes a Refresher. It does nothing until Run.
func New(c Config) *Refresher {
	if c.Clock == nil {
		c.Clock = RuntimeClock()
	}
	if c.Wishes == nil {
		c.Wishes = &Wishes{}
	}
	r := &Refresher{config: c, wake: make(chan wake), ending: make(chan struct{}), done: make(chan struct{})}
	first := &Snapshot{Generation: c.Generation, clock: c.Clock, changed: make(chan struct{})}
	now := r.now()
	first.attemptIn(0, now)
	if c.Wished = c.Wished && c.Grant == nil; c.Wished {
		first.attemptIn(c.Wishes.wait(now), now)
	}
	if c.Grant != nil {
		// The wall clock may have been set back since: nothing was issued later than now.
		issued := now.add(min(0, c.Grant.IssuedAt.Sub(now.wall)))
		first = first.granted(*c.Grant, issued, now, random())
		first.Exchanges = 0
		if c.AtOnce {
			first.attemptIn(0, now)
		}
	}
	first.wishes = *c.Wishes
	r.current.Store(first)
	return r
}

func (r *Refresher) now() instant { return read(r.config.Clock) }

// Snapshot is the latest published state.
func (r *Refresher) Snapshot() *Snapshot { return r.current.Load() }

// Wipe overwrites the access token, after Run has ended.
func (r *Refresher) Wipe() {
	s := r.current.Load().again()
	s.accessToken = nil
	old := r.current.Swap(s)
	old.accessToken.wipe()
	close(old.changed)
}

// Token answers with a token that lives for minTTL still (clamped to half its
// lifetime, so that no wish can make every request a refresh). If the token
// has less, Token waits for a refresh; if that fails, or ctx ends first, the
// answer is the token as long as it is valid, marked Stale. With nothing valid
// the error is an *Error.
func (r *Refresher) Token(ctx context.Context, minTTL time.Duration) (Token, error) {
	first := r.current.Load().Generation
	for {
		s := r.current.Load()
		t, err := s.look(first, minTTL, r.now())
		switch {
		case err == errReplaced:
			continue // it was wiped while we looked: there is a newer one
		case err != errWait:
			return t, err
		}
		if err := r.await(ctx, s, wake{generation: s.Generation}); err != nil {
			return r.giveUp(err)
		}
	}
}

// Refresh replaces the token now, whatever its age, and returns what came of
// it. It joins an exchange that is under way. Within forcedGap of a failure it
// returns that failure. If callers have wished for too many exchanges, it returns
// ErrTooSoon and what came of the last one.
func (r *Refresher) Refresh(ctx context.Context) (*Snapshot, error) {
	before := r.current.Load()
	for {
		s, now := r.current.Load(), r.now()
		switch {
		case s.Exchanges > before.Exchanges, s.failedWithin(forcedGap, now):
			return s, nil
		case tooSoon(s, now) && !r.busy.Load(): // after s: if it is true, s will be replaced
			return s, ErrTooSoon
		}
		if err := r.await(ctx, s, wake{generation: s.Generation, forced: true}); err != nil {
			return r.current.Load(), err
		}
	}
}

// Hint says that the world may have changed: the machine woke up, or the
// network did. If the last exchange failed for a reason that this can repair,
// the backoff starts anew. It never makes an exchange while all is well. It
// waits for Run to have begun, and not for what it does.
func (r *Refresher) Hint() {
	select {
	case r.wake <- wake{hint: true}:
	case <-r.ending:
	}
}

// await delivers w, unless something newer than s is published meanwhile, and
// returns when it is.
func (r *Refresher) await(ctx context.Context, s *Snapshot, w wake) error {
	select {
	case r.wake <- w:
	case <-s.changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return ErrStopped
	}
	select {
	case <-s.changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return ErrStopped
	}
}

// giveUp is for callers whose wait ended before the refresh did.
func (r *Refresher) giveUp(reason error) (Token, error) {
	s := r.current.Load()
	if now := r.now(); s.valid(now) {
		return s.token(now, true)
	}
	if reason == ErrStopped {
		return Token{}, ErrStopped
	}
	return Token{}, &Error{Class: Transient, Err: ErrNoAnswer}
}
