package sim

import (
	"fmt"
	"time"
)

// A login is one that a person made: what must be true of it, and what may have
// happened to it without anybody's fault. All times are the bubble's, which stands still while the machine sleeps, except
// where true time is named.
type login struct {
	profile                *person
	number                 int
	clientID, clientSecret string
	keep                   bool // the daemon keeps the client secret
	store                  string
	// from and until bound when the daemon may serve it: from the beginning of the
	// command that brought it to the end of the one that ended it.
	from, until time.Time
	bought      time.Time // by true time: its first access token

	tokens  []*refreshToken
	fresh   time.Time // until when, by true time, the last access token lives
	freshIn *instance // that has it
	rotates time.Time // since when its endpoint is known to rotate; zero for never
	// spent is why its refresh token may be dead, gone why its record or its item
	// may not exist any more.
	spent, gone string
	// refused: it was not adopted, but there was trouble, so that its item may be in the
	// store all the same and the next daemon finds it.
	refused bool
}

// expired reports whether t has come to its own end.
func (t *refreshToken) expired(w *world, now time.Time) bool {
	return now.Sub(t.issued) >= w.refreshTTL
}

func (l *login) title() string {
	if l == nil {
		return "nobody"
	}
	return fmt.Sprintf("%s#%d", l.profile.name, l.number)
}

func (l *login) sawRotation(now time.Time) {
	if l.rotates.IsZero() {
		l.rotates = now
	}
}

// received: the daemon has read an answer that has its newest refresh token, so
// whatever was lost before does not matter any more.
func (l *login) received(t *refreshToken) {
	if t == l.tokens[len(l.tokens)-1] {
		l.spent = ""
	}
}

// newest is the last refresh token that the endpoint gave out for it.
func (l *login) newest() *refreshToken { return l.tokens[len(l.tokens)-1] }

// A person is who uses one profile.
type person struct {
	name    string
	logins  []*login // all that were ever begun
	now     *login   // the one that must be in force, if sure; nil for none
	sure    bool
	ops     int       // changes under way
	putBack bool      // an older item lies in the store
	mixed   bool      // two of them at a time
	changed time.Time // when the last of them ended
}

// begins is for each command that changes the profile.
func (p *person) begins() {
	p.ops++
	p.mixed = p.mixed || p.ops > 1
}

// ends says what the command has made of it; sure is false if nobody can tell.
func (p *person) ends(at time.Time, now *login, sure bool) {
	p.ops--
	p.changed = at
	p.now, p.sure = now, sure && !p.mixed
	if p.ops == 0 {
		p.mixed = false
	}
}

// memoryIsGone is for when no daemon knows any more what is newer than the item that
// somebody has put back.
func (p *person) memoryIsGone() {
	if !p.putBack {
		return
	}
	p.putBack, p.sure = false, false
	for _, l := range p.logins {
		l.spent, l.until = "an older item", time.Time{}
	}
}

// anyMayBeInForce is for when nobody can tell which of its logins the next daemon finds.
func (p *person) anyMayBeInForce() {
	p.sure = false
	for _, l := range p.logins {
		l.until = time.Time{}
	}
}

// unsure is for what changes the disk behind the daemon's back.
func (p *person) unsure() { p.sure = false }

// served reports whether l may be served to a request from start to end.
func (l *login) served(start, end time.Time) bool {
	return !l.from.After(end) && (l.until.IsZero() || !start.After(l.until))
}
