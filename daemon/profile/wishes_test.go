package profile

import (
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
)

// The word that a server refused the token is a wish like others: with none left no
// refresh starts, and Reject does not report one. A lock gives no new ones, and what
// an unlock starts waits for one.
func TestARejectionIsAWish(t *testing.T) {
	e := newEndpoint(t, sandbox.Config{})
	s := newPlace(t).open(t)
	p := s.logIn(t, e, "work", "memory")
	for range 3 {
		do(t, p.Refresh(t.Context()))
	}
	reject := func() bool {
		token, err := p.Token(t.Context(), 0)
		do(t, err)
		return p.Reject(token.Value)
	}
	if err := p.Refresh(t.Context()); err != refresher.ErrTooSoon || reject() {
		t.Errorf("a fourth wish is granted: %v", err)
	}
	do(t, s.Lock(false))
	do(t, s.Unlock(nil))
	if wait := time.Until(p.Status().Snapshot.NextAttempt()); wait < time.Second || e.spent() != 3 {
		t.Errorf("after a lock: the next exchange in %v, after %d", wait, e.spent())
	}
}
