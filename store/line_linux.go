package store

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// A line is the connection by which one item is reached. It stays open, because
// KeePassXC asks its person once a connection, and the answer is for that one. It
// carries one call at a time. A call that waits for a person goes on when its
// caller leaves: the answer counts whenever it comes, and no second window opens.
type line struct {
	users int           // of the line; desktop.mu guards it
	turn  chan struct{} // full while a call runs

	// The call that has the turn owns these.
	service *secretService // nil: not connected
	refused *refusal       // nothing is asked again
	late    []byte         // what a call read after its caller had left

	now atomic.Pointer[running]
}

// A refusal is a person's. It does not hold for another service, nor after another
// wish.
type refusal struct {
	err   error
	owner string // of the service's name
	wish  uint64
}

// lateFor is how long a secret that came late waits for the next caller, who is
// woken for it.
const lateFor = 30 * time.Second

// take waits for the turn, but not behind a call that was left to a person.
func (l *line) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	default:
	}
	if asks, left := l.now.Load().waits(); left && asks != nil {
		return asks
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	if asks, _ := l.now.Load().waits(); asks != nil {
		return asks
	}
	return unavailable(reasonFrozen, nil)
}

// run connects, if it must, and makes the call, unless the person has refused.
func (l *line) run(ctx context.Context, d *desktop, r *running, c itemCall) ([]byte, error) {
	if l.service != nil && !l.service.bus.Connected() {
		l.hangUp()
	}
	if l.service == nil {
		s, err := openService(ctx)
		if err != nil {
			l.came(ctx, err)
			return nil, err
		}
		l.service = s
	}
	s := l.service
	b, err := []byte(nil), s.findCollection(ctx)
	l.came(ctx, err)
	if no := l.refused; no != nil && (no.owner != s.owner || no.wish != d.wishes.Load()) {
		l.refused = nil
	}
	if err == nil && l.refused != nil {
		err = l.refused.err
	} else if err == nil {
		r.wait(consentWanted(s.program))
		if b, err = c.do(ctx, s); isLocked(err) {
			err = consentDenied(s.program)
			l.refused = &refusal{err, s.owner, d.wishes.Load()}
		}
	}
	if err != nil && ctx.Err() == nil && !isLocked(err) || l.refused != nil {
		l.hangUp() // to connect anew, without what a service remembers of this one
	}
	return b, err
}

// came forgets a refusal if err shows that the keyring was locked or gone since.
// Whoever brings it back can be asked.
func (l *line) came(ctx context.Context, err error) {
	var u *Unavailable
	if ctx.Err() == nil && errors.As(err, &u) && u.Reason != reasonRefused && u.Reason != reasonFrozen {
		l.refused = nil
	}
}

func (l *line) hangUp() {
	if l.service != nil {
		l.service.close()
		l.service = nil
	}
}

// keep holds a secret that came late for the next caller. The caller has the turn.
func (l *line) keep(b []byte) {
	l.late = b
	time.AfterFunc(lateFor, func() { l.idle((*line).forgetLate) })
}

// takeLate returns what keep holds, which is good for one call, or nil.
func (l *line) takeLate() []byte {
	late := l.late
	l.late = nil
	return late
}

func (l *line) forgetLate() {
	clear(l.late)
	l.late = nil
}

// forget makes the line what it was before its first call.
func (l *line) forget() {
	l.hangUp()
	l.forgetLate()
	l.refused = nil
}

// idle calls f unless a call runs. That one has seen to the line itself, or will.
func (l *line) idle(f func(*line)) {
	select {
	case l.turn <- struct{}{}:
		f(l)
		<-l.turn
	default:
	}
}
