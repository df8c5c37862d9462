package profile

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/turn"
)

// A Profile is one configured login. Readers load its state once and never wait
// for a change of it.
type Profile struct {
	entry

	change     turn.Mutex // replace holds it, over I/O too; no reader takes it
	ended      bool       // by a logout, which may not be on record; change guards it
	state      atomic.Pointer[state]
	generation atomic.Uint64    // of the last token published, over all states
	wishes     refresher.Wishes // over all states; the refresher that runs uses it
	rejected   atomic.Int64     // when RejectedByAPI last started a refresh, by Boottime
	dropping   atomic.Bool      // dropLater runs
}

// A state is what a profile is between two changes. It is never modified.
type state struct {
	phase     Phase
	endpoints accounts.Endpoints
	problem   *Problem // nil if and only if phase is Serving

	// login is set while the profile serves, and while it is locked with a refresh
	// token that only memory has.
	login     *login
	held      bool                 // there is one; or the memory store has it
	unsaved   store.Secret         // such a token, for the next refresher
	refresher *refresher.Refresher // while it serves
	stop      func()               // ends the refresher and waits for it; idempotent
	kept      *Kept                // of the daemon before, while its secrets cannot be read; or nil

	looks    chan chan struct{} // while Waiting: a caller wants a fresh look at the store
	replaced chan struct{}      // closed when there is another state
	closed   <-chan struct{}    // of the Set
}

// Record is what the disk knows of the profile. It is the zero record, except for
// its name, if it has never logged in.
func (p *Profile) Record() store.Profile { return p.record() }

// Token returns a token that lives for minTTL or more if that can be had before
// ctx ends, else the one that is still valid, marked stale. Its error is a
// *Problem. (PROTOCOL.md section 2.1)
func (p *Profile) Token(ctx context.Context, minTTL time.Duration) (refresher.Token, error) {
	looked := false
	for {
		s := p.state.Load()
		switch {
		case p.set.locked.Load():
			return refresher.Token{}, p.lockedProblem()
		case s.phase == Serving:
			t, err := s.refresher.Token(ctx, minTTL)
			switch {
			case err == nil && p.set.locked.Load(): // while it waited
				clear(t.Value)
				continue
			case err == nil:
				return t, nil
			case errors.Is(err, refresher.ErrNoAnswer):
				return t, p.tokenProblem(&refresher.Error{Class: refresher.Transient, Err: errors.New(s.noAnswer())})
			case !errors.Is(err, refresher.ErrStopped):
				return t, p.tokenProblem(err)
			}
			if err := p.awaitNext(ctx, s); err != nil {
				return refresher.Token{}, err
			}
			continue
		case s.phase == Waiting && !looked:
			looked = true
			if t, ok := s.kept.token(p.set.clock); ok { // invariant 1
				select {
				case s.looks <- make(chan struct{}):
				default:
				}
				return t, nil
			}
			s.look(ctx)
			if p.set.stopping() {
				return refresher.Token{}, ErrStopping
			}
			continue
		}
		if t, ok := s.kept.token(p.set.clock); ok {
			return t, nil
		}
		return refresher.Token{}, why(p, s)
	}
}

// why is what keeps s from serving. A home that was mounted after the start hides
// logins, so a profile without one looks for that first.
func why(p *Profile, s *state) error {
	if s.phase == Absent {
		if err := p.set.Misplaced(); err != nil {
			return err
		}
	}
	return s.problem
}

// awaitNext waits for the state after s, whose refresher was stopped.
func (p *Profile) awaitNext(ctx context.Context, s *state) error {
	select {
	case <-s.replaced:
		return nil
	case <-p.set.ctx.Done():
		return ErrStopping
	case <-ctx.Done():
		return &Problem{Kind: Unavailable, Phase: s.phase, Detail: p.name + ": its login is being replaced", Hint: "bloq-agent status"}
	}
}

// serving returns a state that serves, after a look at a store that could not be
// used before.
func (p *Profile) serving(ctx context.Context) (*state, error) {
	s := p.state.Load()
	if s.phase == Waiting {
		s.look(ctx)
		s = p.state.Load()
	}
	switch {
	case p.set.locked.Load():
		return nil, p.lockedProblem()
	case s.phase != Serving:
		return nil, why(p, s)
	}
	return s, nil
}

// AccountToken returns the Account Access Token of the last login while it lasts.
func (p *Profile) AccountToken(ctx context.Context) (value store.Secret, expiry time.Time, err error) {
	s, err := p.serving(ctx)
	if err != nil {
		return store.Secret{}, time.Time{}, err
	}
	value, expiry, ok := s.login.accountToken(p.set.clock.Now())
	if !ok {
		return store.Secret{}, time.Time{}, p.needsLogin("no account token: it lasts 12 hours from a login with a password")
	}
	return value, expiry, nil
}

// Generation is the number of the last token that was published.
func (p *Profile) Generation() uint64 { return p.generation.Load() }

// Refresh replaces the access token now. If it is too soon for that, and the last
// exchange did not fail, the error is refresher.ErrTooSoon.
func (p *Profile) Refresh(ctx context.Context) error {
	s, err := p.serving(ctx)
	if err != nil {
		return err
	}
	snapshot, err := s.refresher.Refresh(ctx)
	switch {
	case err != nil && err != refresher.ErrTooSoon:
		return &Problem{Kind: Unavailable, Phase: Serving, Detail: p.name + ": " + s.noAnswer(), Hint: "bloq-agent status"}
	case snapshot.Class != refresher.None:
		return p.tokenProblem(&refresher.Error{Class: snapshot.Class, Next: snapshot.NextAttempt(), Valid: snapshot.Valid(), Err: snapshot.Err})
	}
	return err
}

// rejectGap is the least time between two refreshes for tokens that a server is
// said to have refused. A server that refuses every token must not make every
// request an exchange.
const rejectGap = time.Minute

// Reject reports that a server refused token. If it is the one that is served, a
// refresh starts and Reject returns true, unless there were too many a moment ago. Any
// other token was replaced already, or was never ours.
func (p *Profile) Reject(token []byte) bool {
	s := p.state.Load()
	if s.phase != Serving {
		return false
	}
	if now := s.refresher.Snapshot(); !now.Holds(token) || now.TooSoon() {
		return false
	}
	now := int64(p.set.clock.Boottime())
	last := p.rejected.Load()
	if last != 0 && now-last < int64(rejectGap) || !p.rejected.CompareAndSwap(last, now) {
		return false
	}
	p.set.on(Event{Kind: RejectedByAPI, Profile: p.name})
	p.set.background(func(ctx context.Context) {
		_, _ = s.refresher.Refresh(ctx) // Published tells what came of it
	})
	return true
}

// Status describes the profile. It asks neither the store nor the endpoint.
func (p *Profile) Status() Status {
	s := p.state.Load()
	r := p.record()
	out := Status{Name: p.name, Record: r, Endpoints: s.endpoints, Phase: s.phase, Problem: asError(s.problem), Copies: leftovers(r)}
	if s.phase != Serving {
		out.HeldInMemory = s.held
		if t, ok := s.kept.token(p.set.clock); ok {
			clear(t.Value)
			t.Value = nil
			out.Kept = &t
		}
		return out
	}
	out.Snapshot = s.refresher.Snapshot()
	if c := out.Snapshot.Class; c != refresher.None {
		out.TokenProblem = p.tokenProblem(&refresher.Error{Class: c, Next: out.Snapshot.NextAttempt(), Err: out.Snapshot.Err})
	}
	out.Stuck = s.login.stuck()
	seen := s.login.last()
	out.Skew = seen.skew
	if seen.unusable != nil {
		out.Unusable = unusableNote(seen.unusable)
	}
	if secret, expiry, ok := s.login.accountToken(p.set.clock.Now()); ok {
		secret.Wipe()
		out.AccountExpiry = expiry
	}
	return out
}

// observe is refresher.Config.Observe for the refresher of login l.
func observe(p *Profile, l *login, previous, current *refresher.Snapshot) {
	p.generation.Store(current.Generation)
	if current.Class == refresher.None && current.SaveErr == nil {
		l.published()
	}
	p.set.on(Event{Kind: Published, Profile: p.name, Previous: previous, Current: current})
}
