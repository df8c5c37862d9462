//go:build linux

package sim

import (
	"strings"
	"time"

	"bloq-agent/ipc"
)

// changeWait is how long a command waits for a change.
const changeWait = 30 * time.Second

// stepLogin is `bloq-agent login`, or with how=token `add --refresh-token-stdin`.
func stepLogin(w *world, s step) {
	p := w.person(s.profile)
	l := &login{profile: p, number: len(p.logins) + 1, store: s.arg("store"), keep: s.has("keep"), servedFrom: time.Now()}
	p.logins = append(p.logins, l)
	before, sure := p.inForce, p.sure
	p.beginChange()
	access, refresh := w.api.keys(l)
	issued := w.clocks.true()
	body := ipc.Adopt{
		Profile: p.name, Store: l.store, ClientID: l.clientID, RefreshToken: ipc.Text(refresh),
		LoginURL: "http://127.0.0.1:1/auth", TokenURL: "http://127.0.0.1:1/auth/token", KeysURL: "http://127.0.0.1:1/users/me/client-keys",
		NodesURL: "https://" + p.name + ".nodes.example",
	}
	if l.keep {
		body.ClientSecret = ipc.Text(l.clientSecret)
	}
	if s.arg("how") != "token" {
		body.AccessToken, body.IssuedAt = ipc.Text(access), w.clocks.Now()
	}
	a := w.ask(request{method: "POST", path: ipc.RouteAdopt, body: body, wait: changeWait})
	w.note("login %s: %s", l.title(), a.word())
	switch {
	case a.broken:
		p.endChange(a.end, before, false)
	case a.ok():
		if before != nil && !p.overlapped {
			before.servedUntil = a.end
		}
		if s.arg("how") != "token" {
			l.accessIn, l.accessUntil = a.from, issued.Add(w.ttl)
		}
		p.endChange(a.end, l, true)
	default:
		l.maybeStored = w.trouble.since(l.servedFrom)
		if !p.overlapped && (before != nil || !l.maybeStored) {
			l.servedUntil = a.end
		}
		p.endChange(a.end, before, sure)
	}
	w.checkNoDefect(s, a)
}

// stepLogout is `bloq-agent logout`.
func stepLogout(w *world, s step) {
	p := w.person(s.profile)
	before, sure := p.inForce, p.sure
	p.beginChange()
	a := w.ask(request{method: "POST", path: ipc.RouteForget, body: ipc.Named{Profile: p.name}, wait: changeWait})
	w.note("logout %s: %s %s", p.name, a.word(), a.problem.Detail)
	switch {
	case strings.Contains(a.problem.Detail, "logs in again"): // the next daemon may find it
		p.endChange(a.end, before, false)
	case a.ok(), strings.Contains(a.problem.Detail, "logged out, but"):
		if !p.overlapped {
			for _, l := range p.logins {
				if l.servedUntil.IsZero() {
					l.servedUntil = a.end
				}
			}
		}
		p.endChange(a.end, nil, true)
	case a.problem.Code == ipc.CodeUnknownProfile, a.problem.Code == ipc.CodeNeedsLogin, a.problem.Code == ipc.CodeConfiguration:
		p.endChange(a.end, before, sure)
	default:
		p.endChange(a.end, before, false)
	}
	w.checkNoDefect(s, a)
}

// stepMove is `bloq-agent store move`.
func stepMove(w *world, s step) {
	p := w.person(s.profile)
	p.beginChange()
	l, sure := p.inForce, p.sure
	a := w.ask(request{method: "POST", path: ipc.RouteStore, body: ipc.Move{Profile: p.name, To: s.arg("to")}, wait: changeWait})
	w.note("move %s to %s: %s", p.name, s.arg("to"), a.word())
	if a.ok() && l != nil && !p.overlapped {
		l.store = s.arg("to")
		if r, _ := w.recordOf(p.name); p.sure && p.changing == 1 && r.Store != l.store {
			w.violated("what a command has reported is true", "%s: the record says %q", s, r.Store)
		}
	}
	if r, ok := w.recordOf(p.name); a.broken && ok && l != nil && r.Store != "" {
		l.store = r.Store // moved or not, it is the same login
	}
	p.endChange(a.end, l, sure)
	w.checkNoDefect(s, a)
}

func stepLock(w *world, s step) {
	d := w.beginLockChange(true)
	a := w.ask(request{method: "POST", path: ipc.RouteLock, body: ipc.Lock{Force: s.has("force")}, wait: changeWait})
	d.end, d.ok = a.end, a.ok()
	w.note("lock: %s %s", a.word(), a.problem.Detail)
	w.checkOvertaken(d, a)
	if s.has("force") {
		w.forgetByForce()
	}
	w.trouble.locked()
	for _, p := range w.people() {
		for _, l := range p.logins {
			l.accessIn = nil // a lock drops access tokens
		}
		p.memoryIsGone()
	}
}

// forgetByForce: a lock by force drops refresh tokens that are nowhere but in memory.
func (w *world) forgetByForce() {
	for _, p := range w.people() {
		if w.trouble.since(time.Now()) { // the store may hold one that was refused
			p.anyMayBeInForce()
		}
		for _, l := range p.logins {
			if l.store == "memory" || l.store == "" {
				l.goneBecause = "lock by force"
			}
			if w.trouble.since(time.Now()) {
				l.deadBecause = "lock by force"
				if w.trouble.since(l.servedFrom) { // its record may not be written
					l.goneBecause = "lock by force"
				}
			}
		}
	}
}

func stepUnlock(w *world, _ step) {
	d := w.beginLockChange(false)
	a := w.ask(request{method: "POST", path: ipc.RouteUnlock, body: ipc.Passphrase{}, wait: changeWait})
	d.end, d.ok = a.end, a.ok()
	d.unsure = a.broken || a.problem.Code != ipc.CodeInternal // any other is about one profile
	w.note("unlock: %s %s", a.word(), a.problem.Detail)
	w.checkOvertaken(d, a)
	if a.ok() {
		w.trouble.unlocked()
	}
}

func (w *world) beginLockChange(lock bool) *lockChange {
	d := &lockChange{lock: lock, start: time.Now()}
	w.lockChanges = append(w.lockChanges, d)
	return d
}
