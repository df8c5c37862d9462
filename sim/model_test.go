//go:build linux

package sim

import (
	"fmt"
	"time"
)

// A login is one that a person made, by `login` or `add`. The model knows what must be
// true of it, and what may have happened to it that is no fault of the daemon. All times
// are the bubble's, which stands still while the machine sleeps, except where true time
// is named.
type login struct {
	profile                *person
	number                 int // of the profile's logins, from 1
	clientID, clientSecret string
	keep                   bool // the daemon keeps the client secret
	store                  string
	// The daemon may serve it from the start of the command that brought it to the end
	// of the one that ended it.
	servedFrom, servedUntil time.Time

	tokens       []*refreshToken // in the order in which the endpoint gave them out
	accessUntil  time.Time       // by true time: the end of the last access token
	accessIn     *instance       // the daemon that has it
	accessSlept  bool            // the machine slept while it was on its way, or since
	rotatesSince time.Time       // when the daemon first read an answer that rotates; zero for never
	// deadBecause says why the endpoint may refuse its refresh token, goneBecause why
	// its record or its item may be missing. "" means that neither is excused.
	deadBecause, goneBecause string
	// maybeStored: the daemon refused it while there was trouble. Its item may be in the
	// store all the same, where the next daemon finds it.
	maybeStored bool
}

// title is its name in the trace.
func (l *login) title() string {
	if l == nil {
		return "nobody"
	}
	return fmt.Sprintf("%s#%d", l.profile.name, l.number)
}

func (l *login) sawRotation(now time.Time) {
	if l.rotatesSince.IsZero() {
		l.rotatesSince = now
	}
}

// received: the daemon has read an answer with t. If t is the newest refresh token, a
// reply that was lost before does no harm any more.
func (l *login) received(t *refreshToken) {
	if t == l.newest() {
		l.deadBecause = ""
	}
}

// newest is the last refresh token that the endpoint gave out for it.
func (l *login) newest() *refreshToken { return l.tokens[len(l.tokens)-1] }

// mayServe reports whether l may be served to a request from start to end.
func (l *login) mayServe(start, end time.Time) bool {
	return !l.servedFrom.After(end) && (l.servedUntil.IsZero() || !start.After(l.servedUntil))
}

// A person is the user of one profile.
type person struct {
	name       string
	logins     []*login // all that were ever begun
	inForce    *login   // the one that the daemon must serve, if sure; nil for none
	sure       bool     // inForce is known
	changing   int      // logins, logouts and moves under way
	overlapped bool     // two of them ran at a time, so nobody can tell which came last
	changedAt  time.Time
	olderItem  bool // somebody has put an older item into the store, and no save has replaced it
}

// beginChange and endChange bracket each command that changes the profile.
func (p *person) beginChange() {
	p.changing++
	p.overlapped = p.overlapped || p.changing > 1
}

// endChange: inForce is the login that the command has left in force. Sure is false if
// the answer does not tell.
func (p *person) endChange(at time.Time, inForce *login, sure bool) {
	p.changing--
	p.changedAt = at
	p.inForce, p.sure = inForce, sure && !p.overlapped
	if p.changing == 0 {
		p.overlapped = false
	}
}

// unsure: something else than a change may have put another login in force. The changes
// that are under way cannot tell which.
func (p *person) unsure() { p.sure, p.overlapped = false, p.changing > 0 }

// memoryIsGone: the daemon has forgotten its refresh token, so an older item that
// somebody has put back is the only one that it can find.
func (p *person) memoryIsGone() {
	if !p.olderItem {
		return
	}
	p.olderItem = false
	p.unsure()
	for _, l := range p.logins {
		l.deadBecause, l.servedUntil = "an older item", time.Time{}
	}
}

// anyMayBeInForce: nobody can tell which of its logins the next daemon finds.
func (p *person) anyMayBeInForce() {
	p.sure = false
	for _, l := range p.logins {
		l.servedUntil = time.Time{}
	}
}

// A lockChange is one lock or unlock.
type lockChange struct {
	lock       bool
	start, end time.Time // end is zero while it is under way
	ok         bool
	unsure     bool // it may have taken effect without being ok
}
