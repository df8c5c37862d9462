//go:build linux

package sim

import (
	"strings"
	"time"

	"bloq-agent/ipc"
)

// stepCalm ends every fault, has a daemon run, and checks that each login comes back.
func stepCalm(w *world, _ step) {
	w.endFaults()
	if i := w.running(); i != nil && !i.moved.IsZero() {
		stepKill(w, step{})
	}
	stepStart(w, step{})
	stepUnlock(w, step{})
	w.trouble.unlocked()
	w.sleep(tail + time.Minute) // for hung exchanges, frozen calls and saves to be tried again
	for _, p := range w.people() {
		w.checkComesBack(p)
	}
	w.checkNothingUnrecorded()
}

// endFaults mends everything except a replaced state directory, which takes a restart.
func (w *world) endFaults() {
	w.diskIs = "ok"
	w.volume.setFull(false)
	w.volume.setReadOnly(false)
	w.volume.setFailing(0)
	w.volume.release()
	w.keyring.set(keyringWorking)
	w.keyring.setNext(saveDone)
	for what := range w.trouble.active {
		if what != "moved" {
			w.trouble.set(what, false)
		}
	}
	stepNet(w, step{args: map[string]string{"is": "up"}})
	w.api.mu.Lock()
	w.api.faults = nil
	w.api.mu.Unlock()
	w.clocks.set(0)
	if w.ownProfiles != nil {
		if i := w.current; i != nil && !i.dead() {
			stepKill(w, step{})
		}
		if w.volume.write("/state/profiles.json", w.ownProfiles) != nil {
			panic("the disk was mended")
		}
		w.ownProfiles = nil
	}
}

// checkComesBack: the daemon serves the login of p, or the model knows why not.
func (w *world) checkComesBack(p *person) {
	a := w.askOnce(p)
	if a.ok() {
		w.acceptServed(p, a)
		return
	}
	if a.problem.Code == ipc.CodeNeedsLogin || a.problem.Code == ipc.CodeConfiguration || a.problem.Code == ipc.CodeUnavailable {
		// The endpoint may have refused the login during a fault. The daemon asks again
		// every half hour, and uses kept client keys after five refusals.
		for range 2 {
			w.sleep(31 * time.Minute)
			if a = w.askOnce(p); a.ok() {
				w.acceptServed(p, a)
				return
			}
		}
	}
	l := p.inForce
	switch {
	case l == nil:
	case l.newest().expired(w, w.clocks.true()):
		l.deadBecause = "expired"
	case l.newest().revoked:
		l.deadBecause = "revoked"
	case l.newest().readBy == nil && len(l.tokens) > 1:
		l.deadBecause = "a reply was lost"
	}
	switch {
	case !p.sure, p.changing > 0, l == nil, l.goneBecause != "":
	case l.deadBecause != "" && !l.keep:
		if a.problem.Code != ipc.CodeNeedsLogin {
			w.violated("a lost login needs a login", "%s (%s): %s %s", l.title(), l.deadBecause, a.word(), a.problem.Detail)
		}
	default:
		w.violated("a login comes back", "%s, after the end of all faults: %s %s", l.title(), a.word(), a.problem.Detail)
	}
}

func (w *world) askOnce(p *person) answer {
	a := w.ask(request{method: "GET", path: ipc.RouteToken + "?profile=" + p.name + "&min_ttl=0", wait: 25 * time.Second})
	w.checkToken(p.name, a, tokenOf(a))
	w.note("calm: %s: %s %s", p.name, a.word(), a.problem.Detail)
	return a
}

// acceptServed: the login that is served must be the one in force. If the model was not
// sure, it is now.
func (w *world) acceptServed(p *person, a answer) {
	w.api.mu.Lock()
	l := w.api.access[tokenOf(a)].login
	w.api.mu.Unlock()
	if l == nil {
		return
	}
	switch {
	case p.sure && p.inForce == nil:
		w.violated("a logout ends the login", "%s is served", l.title())
	case p.sure && p.inForce != l:
		w.violated("the last login is the one in force", "%s is served, and not %s", l.title(), p.inForce.title())
	}
	for _, other := range p.logins {
		if other != l && other.servedUntil.IsZero() {
			other.servedUntil = a.start
		}
	}
	p.inForce, p.sure, l.goneBecause = l, true, ""
	if r, ok := w.recordOf(p.name); ok && r.Store != "" {
		l.store = r.Store
	}
}

// checkNothingUnrecorded: no store holds an item that no record names. Older records do
// not name leftovers.
func (w *world) checkNothingUnrecorded() {
	records, ok := w.records()
	if !ok || w.restored || w.version1 {
		return
	}
	named := map[string]bool{}
	for _, r := range records {
		named[r.ID+" "+r.Store] = true
		for _, left := range r.Leftovers {
			named[r.ID+" "+left] = true
		}
	}
	for _, id := range w.keyring.ids() {
		if !named[id+" keyring"] && !strings.HasPrefix(id, "probe-") {
			w.violated("nothing is stored that no record names", "an item in the keyring")
		}
	}
	for _, file := range w.volume.list("/state") {
		id, is := strings.CutSuffix(file, ".age")
		if is && !named[id+" file"] && !strings.HasPrefix(id, "probe-") {
			w.violated("nothing is stored that no record names", "the file %s", file)
		}
	}
}
