//go:build linux

package sim

import (
	"fmt"
	"net/http"
	"time"
)

// checkExchange checks a request that has come to the endpoint with a refresh token. The
// daemon must not know that the token is spent, no other exchange of the login may be
// under way, and the daemon must be able to save the successor.
func (e *endpoint) checkExchange(r *http.Request, c *wire, l *login, used *refreshToken) {
	from := c.from
	if l == nil || from.dead() {
		return
	}
	now := time.Now()
	e.w.model.Lock()
	defer e.w.model.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	for other, of := range e.underWay {
		if of == l && other.Context().Err() == nil {
			e.w.violated("one exchange at a time", "two of %s", l.title())
		}
	}
	e.underWay[r] = l
	if used == nil {
		e.checkDistance(from, l, now)
		return
	}
	if next := used.next; next != nil && !used.revoked && l == l.profile.inForce {
		switch {
		case next.readBy == from && l.deadBecause == "":
			e.w.violated("a spent refresh token is not used again", "%s: by the daemon that has its successor", l.title())
		case next.readBy != nil && l.deadBecause == "" && l.goneBecause == "" && l.profile.sure:
			e.w.violated("a spent refresh token is not used again", "%s: its successor was read %v ago and saved", l.title(), now.Sub(next.readAt))
		}
	}
	if moved := from.moved; !moved.IsZero() && c.began.Sub(moved) > time.Second {
		e.w.violated("nothing is spent beside the state directory", "%s was, %v after it was replaced", l.title(), c.began.Sub(moved))
	}
	unsaved := l.store == "file" && (e.w.diskIs == "readonly" || e.w.diskIs == "full") && e.w.trouble.steady("disk", 5*time.Second)
	if left := l.accessUntil.Sub(e.w.clocks.true()); unsaved && l.accessIn == from && !l.accessSlept && !e.w.clocks.wereSet() && l.knownToRotate(e.w) && left > 5*time.Minute+10*time.Second && l.profile.sure {
		e.w.violated("nothing is spent whose successor cannot be saved", "%s was, with %v left of its access token", l.title(), left)
	}
	e.checkDistance(from, l, now)
}

// knownToRotate reports whether the daemon has seen l rotate, and had the time to save
// that before the trouble began.
func (l *login) knownToRotate(w *world) bool {
	return !l.rotatesSince.IsZero() && w.trouble.began.Sub(l.rotatesSince) > 5*time.Second && l.rotatesSince.Sub(w.trouble.ended) > tail
}

// checkDistance: a daemon makes at most twenty requests for a login in ten seconds. Each
// login that fails meanwhile begins the backoff anew.
func (e *endpoint) checkDistance(from *instance, l *login, now time.Time) {
	key := fmt.Sprint(from.number, " ", l.title())
	list := append(e.arrivedAt[key], now)
	for len(list) > 0 && now.Sub(list[0]) > 10*time.Second {
		list = list[1:]
	}
	e.arrivedAt[key] = list
	if len(list) > 20 {
		e.w.violated("attempts keep their distance", "%d of %s in 10 s", len(list), l.title())
	}
}

// exchangeEnded ends what checkExchange began.
func (e *endpoint) exchangeEnded(r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.underWay, r)
}
