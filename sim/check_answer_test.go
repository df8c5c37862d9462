//go:build linux

package sim

import (
	"encoding/json"
	"strings"
	"time"

	"bloq-agent/ipc"
)

// checkAnswer checks what must be true of every answer.
func (w *world) checkAnswer(q request, a answer) {
	if a.ok() {
		return // it may be a token
	}
	w.mustHoldNoSecret("an answer", string(a.body))
	for _, ours := range []string{"context deadline exceeded", "context canceled", "i/o timeout"} {
		if strings.Contains(a.problem.Detail, ours) && !strings.Contains(a.problem.Detail, "http") {
			w.violated("no caller's deadline is an answer", "%s %s: %s", q.method, q.path, a.problem.Detail)
		}
	}
	if a.problem.Code == ipc.CodeInternal {
		w.note("internal: %s", a.problem.Detail)
	}
}

// mustHoldNoSecret looks for tokens and client secrets. "eyJ" begins every JWT.
func (w *world) mustHoldNoSecret(where, text string) {
	if i := strings.Index(text, "eyJ"); i >= 0 {
		w.violated("no secret is shown", "%s holds a token: %.60s", where, text[max(0, i-30):])
	}
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	for _, s := range w.api.secrets {
		if strings.Contains(text, s) {
			w.violated("no secret is shown", "%s holds one", where)
		}
	}
}

// checkNoDefect: the daemon reports a defect of its own only while there is trouble.
func (w *world) checkNoDefect(s step, a answer) {
	if a.problem.Code == ipc.CodeInternal && !w.trouble.since(a.start) {
		w.violated("no defect", "%s: %s", s, a.problem.Detail)
	}
}

// checkInTime: an answer comes within the time that its caller was ready to wait.
func (w *world) checkInTime(a answer, wait time.Duration) {
	if took := a.end.Sub(a.start); !a.broken && took > wait+300*time.Millisecond { // a glance at the disk takes 250 ms at most
		w.violated("every request is answered in time", "it took %v of %v", took, wait)
	}
}

func tokenOf(a answer) string {
	var t ipc.TokenAnswer
	if !a.ok() || json.Unmarshal(a.body, &t) != nil {
		return ""
	}
	return string(t.Token)
}

// checkToken checks a token that was handed out: whose it is, whether it still lives,
// and whether the daemon was allowed to serve it at all.
func (w *world) checkToken(profile string, a answer, token string) {
	if token == "" {
		return
	}
	w.api.mu.Lock()
	t, known := w.api.access[token]
	w.api.mu.Unlock()
	switch {
	case !known:
		w.violated("a token is the endpoint's", "%s was given %.40s", profile, token)
		return
	case t.login.profile.name != profile:
		w.violated("a token goes to its own profile", "%s was given one of %s", profile, t.login.title())
	case !t.login.mayServe(a.start, a.end):
		w.violated("a login that has ended is not served", "%s was given one of %s", profile, t.login.title())
	}
	// A login tells when its token was issued by the wall clock. If that is set while the
	// machine has slept since, nobody can tell how old the token is.
	untold := w.clocks.wereSet() && !w.slept.IsZero()
	if over := a.true.Add(a.end.Sub(a.start)).Sub(t.expiry); over > 0 && !untold {
		w.violated("an expired token is never served", "%s was given one %v after its end", profile, over)
	}
	if w.lockedDuring(a) {
		w.violated("no token while locked", "%s was given one", profile)
	}
	var g ipc.TokenAnswer
	if json.Unmarshal(a.body, &g) == nil && g.Generation != 0 {
		w.checkGeneration(profile, a, g.Generation)
	}
}

// A generation is the highest number of a token that was served, and when.
type generation struct {
	at     time.Time
	number uint64
}

// checkGeneration: of two requests one after the other, the second gets no lower number.
func (w *world) checkGeneration(profile string, a answer, number uint64) {
	i := a.from
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.last[profile]
	if !before.at.IsZero() && a.start.After(before.at) && number < before.number {
		w.violated("numbers of tokens only rise", "%s: %d after %d", profile, number, before.number)
	}
	if number >= before.number {
		i.last[profile] = generation{a.end, number}
	}
}

// lockedDuring reports whether the agent was locked for the whole of a request, by its
// own answers.
func (w *world) lockedDuring(a answer) bool {
	var last *lockChange
	for _, d := range w.lockChanges {
		if d.lock && d.ok && d.end.Before(a.start) {
			last = d
		}
	}
	if last == nil {
		return false
	}
	for _, d := range w.lockChanges {
		over := d.end
		if over.IsZero() {
			over = a.end
		}
		if !d.lock && (d.ok || d.end.IsZero() || d.unsure) && over.After(last.start) && d.start.Before(a.end) {
			return false
		}
	}
	return true
}

// tokenIsInMemory reports whether the daemon must have the token that s asks for in
// memory, by all that callers have seen.
func (w *world) tokenIsInMemory(s step) bool {
	i, p := w.running(), w.person(s.profile)
	if i == nil || p.inForce == nil || !p.sure || p.changing > 0 || s.has("cancel") || s.span("ttl", 0) > 0 || w.clocks.wereSet() {
		return false
	}
	i.mu.Lock()
	seen := i.last[s.profile].at
	i.mu.Unlock()
	for _, d := range w.lockChanges {
		if d.end.IsZero() || !d.end.Before(seen) {
			return false
		}
	}
	return !seen.IsZero() && p.changedAt.Before(seen) && p.inForce.accessUntil.Sub(w.clocks.true()) > 10*time.Second
}

// checkOvertaken: a lock or unlock that is told that another came after it has had one.
func (w *world) checkOvertaken(d *lockChange, a answer) {
	if !strings.Contains(a.problem.Detail, "came after it") {
		return
	}
	for _, other := range w.lockChanges {
		// Requests take up to 0.3 ms to arrive, so the order of two close ones is unknown.
		if other.lock != d.lock && other.start.Add(time.Millisecond).After(d.start) {
			return
		}
	}
	w.violated("the last of lock and unlock decides", "%s", a.problem.Detail)
}

// checkLasts: a token lasts as long as its caller has asked for, at most half of its
// whole time, or the answer says that it is stale.
func (w *world) checkLasts(a answer, minTTL time.Duration) {
	var t ipc.TokenAnswer
	if !a.ok() || json.Unmarshal(a.body, &t) != nil || t.Stale || w.clocks.wereSet() {
		return
	}
	w.api.mu.Lock()
	expiry := w.api.access[string(t.Token)].expiry
	w.api.mu.Unlock()
	if left := expiry.Sub(a.true.Add(a.end.Sub(a.start))); left < min(minTTL, w.ttl/2) {
		w.violated("a token lasts as long as asked for", "%v of %v", left, minTTL)
	}
}

// checkRefreshed: a refresh that was answered has brought a token, or says that it was
// skipped.
func (w *world) checkRefreshed(p *person, a answer) {
	var r struct{ Skipped bool }
	_ = json.Unmarshal(a.body, &r)
	l := p.inForce
	if !a.ok() || r.Skipped || l == nil || !p.sure || p.changing > 0 || p.changedAt.After(a.start) || a.from.dead() || w.trouble.since(a.start) || l.accessSlept {
		return
	}
	// It may have joined an exchange that was under way.
	if l.accessUntil.Before(a.true.Add(w.ttl - 30*time.Second)) {
		w.violated("what a command has reported is true", "%s is not refreshed", l.title())
	}
}

// checkStatus: the status names the store and the client keys of the login that is in
// force, and a token only while there is one.
func (w *world) checkStatus(a answer) {
	var status ipc.Status
	if err := json.Unmarshal(a.body, &status); err != nil {
		w.violated("what a command has reported is true", "%v", err)
	}
	for _, said := range status.Profiles {
		p := w.person(said.Profile)
		l := p.inForce
		if l == nil || !p.sure || p.changing > 0 || p.changedAt.After(a.start) || l.goneBecause != "" || w.trouble.since(l.servedFrom) {
			continue
		}
		serves := said.State == ipc.StateFresh || said.State == ipc.StateStale
		if said.Store != l.store || serves && l.accessUntil.Before(a.true) && !w.clocks.wereSet() {
			w.violated("what a command has reported is true", "%s in the %s: status: %s in the %s", l.title(), l.store, said.State, said.Store)
		}
		if serves && said.ClientID != l.clientID {
			w.violated("the record names the client keys in use", "not those of %s", l.title())
		}
	}
}
