package refresher

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A Snapshot is the published state of a Refresher. It is never modified once
// published; its exported fields may be read by anybody.
type Snapshot struct {
	// Generation numbers the tokens, from 1. It is 0 before the first.
	Generation uint64

	// Class and Err tell how the last exchange failed; None and nil if it did
	// not, or if there was none. NeedsLogin and Configuration are verdicts: the
	// failures so far amount to them.
	Class Class
	Err   error
	// Failures counts those in a row; Refusals the bare ones among them, in a
	// row.
	Failures, Refusals int
	// Ended is when the last exchange ended.
	Ended time.Time
	// Exchanges counts attempts since the start, those that Config.Exchange gave
	// up before it sent anything included.
	Exchanges uint64
	// SaveErr is why the refresh token in use is not in the store, or nil.
	SaveErr error
	// Hinted says that this was published for a hint: nothing happened, but
	// NextAttempt may be sooner.
	Hinted bool

	steps       int    // failures in a row since the backoff began
	wished      bool   // next is when the endpoint wants it
	wishes      Wishes // those of callers
	clock       Clock
	lifetime    time.Duration // from issue to expiry
	expiry      instant       // by both clocks
	next        instant       // when the loop acts next by itself; zero: it does not
	ended       instant       // Ended, by both clocks
	accessToken *secret       // nil before the first grant
	changed     chan struct{} // closed when the next snapshot is published
}

// A secret is a token that is wiped when it is replaced. The lock is for those
// who copy it at that moment; it guards nothing that blocks.
type secret struct {
	mu sync.RWMutex
	b  []byte // nil once wiped
}

// copy is nil once the secret was wiped.
func (s *secret) copy() []byte {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return bytes.Clone(s.b)
}

func (s *secret) wipe() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.b)
	s.b = nil
}

// A Token is what a caller gets.
type Token struct {
	// Value is the caller's own, to be cleared after use.
	Value            []byte
	Generation       uint64
	IssuedAt, Expiry time.Time
	// RefreshAt is when it will be replaced.
	RefreshAt time.Time
	// Stale says that it lives shorter than was asked for.
	Stale bool
}

// Format keeps a snapshot's token out of every log: the verbs of fmt look into
// unexported fields too.
func (s Snapshot) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("snapshot(generation %d)", s.Generation))
}

// Format is like Snapshot's.
func (t Token) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("token(generation %d)", t.Generation))
}

// Format is like Snapshot's.
func (g Grant) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "grant(expiry "+g.Expiry.Format(time.RFC3339)+")")
}

// Changed is closed when a newer snapshot has been published.
func (s *Snapshot) Changed() <-chan struct{} { return s.changed }

// Valid reports whether the token may be served now.
func (s *Snapshot) Valid() bool { return s.valid(read(s.clock)) }

// Left is how long the token may be served still; 0 if there is none.
func (s *Snapshot) Left() time.Duration {
	now := read(s.clock)
	if !s.valid(now) {
		return 0
	}
	return s.life(now)
}

// Expiry is when the token ends, by the wall clock as it is now; zero if there
// is none. It is never later than what either clock makes of it: whoever keeps a
// token until then must not keep a dead one because the clock was set back.
func (s *Snapshot) Expiry() time.Time {
	if s.accessToken == nil {
		return time.Time{}
	}
	return s.ends(read(s.clock))
}

// ends is the wall's own word where the clocks agree to the second: they drift
// apart by themselves, and people like to see a whole second.
func (s *Snapshot) ends(now instant) time.Time {
	if at := now.wall.Add(now.until(s.expiry)); s.expiry.wall.Sub(at) > time.Second {
		return at
	}
	return s.expiry.wall
}

// IssuedAt is Expiry less the token's lifetime.
func (s *Snapshot) IssuedAt() time.Time {
	if s.accessToken == nil {
		return time.Time{}
	}
	return s.Expiry().Add(-s.lifetime)
}

// NextAttempt is when the loop acts next by itself, by the wall clock as it is
// now. It is zero if only a person's wish will make it.
func (s *Snapshot) NextAttempt() time.Time { return s.nextAt(read(s.clock)) }

func (s *Snapshot) nextAt(now instant) time.Time {
	if s.next.isZero() {
		return time.Time{}
	}
	// As ends: the same moment is told in the same words each time.
	if at := now.wall.Add(now.until(s.next)); at.Sub(s.next.wall).Abs() > time.Second {
		return at
	}
	return s.next.wall
}

// Holds reports whether token is this snapshot's, in constant time.
func (s *Snapshot) Holds(token []byte) bool {
	own := s.accessToken.copy()
	defer clear(own)
	return own != nil && subtle.ConstantTimeCompare(own, token) == 1
}

// Grant is the access token for a successor of this Refresher, or nil if there
// is none.
func (s *Snapshot) Grant() *Grant {
	token := s.accessToken.copy()
	if token == nil {
		return nil
	}
	now := read(s.clock)
	expiry := s.ends(now)
	return &Grant{AccessToken: token, IssuedAt: expiry.Add(-s.lifetime), Expiry: expiry}
}

// life is how much of the token is left by the clock that says less, so that
// neither a wall clock that was set back nor a suspend can make it longer.
func (s *Snapshot) life(now instant) time.Duration {
	return min(s.expiry.wall.Sub(now.wall), now.until(s.expiry))
}

func (s *Snapshot) valid(now instant) bool {
	return s.accessToken != nil && s.life(now) > 0
}

// lives: a greedy wish is clamped to half the lifetime that the endpoint
// grants, else it would make every request an exchange; and tokens that live
// for seconds, as in tests, would never do.
func (s *Snapshot) lives(now instant, minTTL time.Duration) bool {
	return s.valid(now) && s.life(now) >= min(minTTL, s.lifetime/2)
}

// worthAttempt reports whether a request may start an exchange: not sooner
// than requestGap after one that failed, and not once a person must act. So
// ten thousand requests during an outage cost one attempt per requestGap. The
// endpoint's own wish (Retry-After) holds as long as there is a token that can be
// served meanwhile. So does the limit of callers' wishes.
func (s *Snapshot) worthAttempt(now instant) bool {
	if s.Class == NeedsLogin || s.Class == Configuration {
		return false
	}
	if s.wished && s.valid(now) && now.until(s.next) > 0 {
		return false
	}
	return !s.failedWithin(requestGap, now) && !tooSoon(s, now)
}

// failedWithin reports whether the last exchange failed less than d ago.
func (s *Snapshot) failedWithin(d time.Duration, now instant) bool {
	return s.Class != None && s.ended.until(now) < d
}

// errWait says that an exchange could give a better answer.
var errWait = errors.New("wait")

// look answers a caller who has seen the generation first, if waiting has no
// point. A caller gets one refresh and no more: an endpoint that takes longer
// to answer than its tokens are good for would keep it, and itself, busy for
// ever.
func (s *Snapshot) look(first uint64, minTTL time.Duration, now instant) (Token, error) {
	switch {
	case s.lives(now, minTTL):
		return s.token(now, false)
	case !s.worthAttempt(now), s.Generation != first && s.valid(now):
		return s.best(now)
	}
	return Token{}, errWait
}

// best is the answer when waiting has no point.
func (s *Snapshot) best(now instant) (Token, error) {
	if s.valid(now) {
		return s.token(now, true)
	}
	class := s.Class
	if class != NeedsLogin && class != Configuration {
		class = Transient
	}
	return Token{}, &Error{Class: class, Next: s.nextAt(now), Err: s.Err}
}

// errReplaced says that the snapshot's token was wiped: there is a newer one.
var errReplaced = errors.New("token was replaced")

func (s *Snapshot) token(now instant, stale bool) (Token, error) {
	value := s.accessToken.copy()
	if value == nil {
		return Token{}, errReplaced
	}
	expiry := s.ends(now)
	return Token{
		Value: value, Generation: s.Generation, Stale: stale,
		IssuedAt: expiry.Add(-s.lifetime), Expiry: expiry, RefreshAt: s.nextAt(now),
	}, nil
}

// granted is the snapshot after s when the endpoint returned, at the instant now,
// a token that was issued at the instant issued. However late it came, the next
// exchange keeps a distance.
func (s *Snapshot) granted(g Grant, issued, now instant, draw float64) *Snapshot {
	next := &Snapshot{
		Generation: s.Generation + 1, accessToken: &secret{b: g.AccessToken}, clock: s.clock,
		lifetime: g.Expiry.Sub(g.IssuedAt), Ended: now.wall, ended: now, Exchanges: s.Exchanges + 1,
		changed: make(chan struct{}),
	}
	next.expiry = issued.add(next.lifetime)
	next.attemptIn(max(grantGap, now.until(issued.add(refreshAfter(next.lifetime, draw)))), now)
	return next
}

// attemptIn sets when the loop acts next. It is for who makes a snapshot.
func (s *Snapshot) attemptIn(d time.Duration, now instant) {
	s.next = now.add(d)
}

// failed is the snapshot after s when the exchange that ended now failed.
func (s *Snapshot) failed(f *Failure, now instant, draw float64) *Snapshot {
	next := s.again()
	next.Ended, next.ended = now.wall, now
	next.Exchanges++
	next.Failures++
	next.steps++
	next.wished = f.RetryAfter > 0
	// An outage in between says nothing of the refresh token: it neither adds to
	// the refusals nor takes back what they amount to.
	switch f.Class {
	case Refused, Unknown:
		next.Refusals++
	case NeedsLogin:
		next.Refusals = 0 // no need to count: the endpoint has said so
	}
	next.Class = verdict(f.Class, next.Refusals, s.valid(now))
	next.Err = f.Err
	next.next = instant{}
	if wait, ok := retryIn(next, s.valid(now), s.life(now), f.RetryAfter, draw); ok {
		next.attemptIn(wait, now)
	}
	return next
}

// hinted is the snapshot after s, whose exchange failed, when a hint came at the
// instant now; s itself if that changes nothing.
func (s *Snapshot) hinted(anew bool, now instant, draw float64) *Snapshot {
	wait := hintIn(anew, s.ended.until(now), draw)
	sooner := now.until(s.next) > wait
	if !sooner && !anew {
		return s
	}
	next := s.again()
	next.Hinted = true
	if anew {
		next.steps = 0
	}
	if sooner {
		next.attemptIn(wait, now)
	}
	return next
}

// again is s published once more, for those who wait on it.
func (s *Snapshot) again() *Snapshot {
	next := *s
	next.Hinted = false
	next.changed = make(chan struct{})
	return &next
}
