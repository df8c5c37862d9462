//go:build linux

package sim

import "time"

// saveTime is how long a save may take while there is no trouble.
const saveTime = 150 * time.Millisecond

// checkAfterEnd looks at what a daemon that has ended has left. The endpoint must accept
// the stored refresh token of each login, or the model must know why not.
func (w *world) checkAfterEnd(i *instance, how string) {
	now := time.Now()
	w.mustHoldNoSecret("the log", i.log.String())
	records, readable := w.records()
	for _, p := range w.people() {
		p.memoryIsGone()
		if !i.moved.IsZero() { // what it said of its own directory is not true of this one
			p.anyMayBeInForce()
		}
		l := p.inForce
		for _, other := range p.logins {
			if other.maybeStored { // the next daemon may find it
				other.maybeStored, other.servedUntil = false, time.Time{}
				p.unsure()
			}
		}
		if !p.sure || p.changing > 0 {
			p.anyMayBeInForce()
			if l != nil { // how far the change had come nobody knows
				l.deadBecause = how
				if l.store == "memory" {
					l.goneBecause = how
				}
			}
			continue
		}
		if l == nil || l.goneBecause != "" {
			continue
		}
		r, recorded := records[p.name]
		recent := w.trouble.since(l.servedFrom) || how == "without power" && now.Sub(l.newestAt()) < saveTime
		switch {
		case !readable:
			continue
		case l.store == "memory", r.Store == "memory":
			l.goneBecause = how
			if r.Store != "memory" && recent { // its record was not written
				p.anyMayBeInForce()
			}
			continue
		case !recorded || r.Store == "":
			l.reportLost(w, how, recent, "its record is lost")
			continue
		}
		stored := w.stored(r)
		switch {
		case stored == nil:
			l.reportLost(w, how, recent, "its item is lost from the "+r.Store)
		case stored.login != l:
			l.reportLost(w, how, recent, "the item is of "+stored.login.title())
		case stored.expired(w, w.clocks.true()):
			l.deadBecause = "expired"
		default:
			l.checkStoredToken(w, how, stored, now)
		}
	}
}

// reportLost: the login is not where its record says that it is.
func (l *login) reportLost(w *world, how string, excused bool, what string) {
	l.goneBecause = how
	l.profile.anyMayBeInForce() // one before it, that is
	if !excused {
		w.violated("a login is never lost", "%s, when the daemon was %s: %s", l.title(), how, what)
	}
}

// checkStoredToken: the refresh token that is stored is the newest, or there is a reason
// why its successor could not be saved.
func (l *login) checkStoredToken(w *world, how string, stored *refreshToken, now time.Time) {
	next := stored.next
	switch {
	case stored.revoked:
		l.deadBecause = "revoked"
		return
	case stored.rotated.IsZero():
		l.deadBecause = "" // whatever was feared
		return
	case l.deadBecause != "":
		return
	}
	l.deadBecause = how
	switch {
	case next == nil || next.readBy == nil: // the reply was lost, or on its way
	case w.trouble.since(next.readAt):
	case how != "stopped" && now.Sub(next.readAt) < saveTime:
	default:
		w.violated("a login is never lost", "%s, when the daemon was %s: it was given another refresh token %v before, which is not stored", l.title(), how, now.Sub(next.readAt))
	}
}

// newestAt is when something last happened that the daemon had to save.
func (l *login) newestAt() time.Time {
	at := l.servedFrom
	for _, t := range l.tokens {
		if t.readAt.After(at) {
			at = t.readAt
		}
		if t.rotated.After(at) {
			at = t.rotated
		}
	}
	return at
}
