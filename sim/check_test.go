package sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"bloq-agent/ipc"
)

// A trouble is whatever can keep a refresh token from being saved. While there is
// some, and for a while after it (a save is tried again every 30 s at the latest),
// the end of the daemon may cost a login.
type trouble struct {
	now   map[string]bool
	began time.Time // of the trouble that there is
	ended time.Time
	held  bool // the agent was locked meanwhile, so nothing is saved until an unlock
}

// tail is how long after the end of a trouble a save may be still to come.
const tail = 45 * time.Second

func (t *trouble) set(w *world, what string, is bool) {
	if t.now == nil {
		t.now = map[string]bool{}
	}
	switch {
	case is && len(t.now) == 0:
		t.began = time.Now()
	case !is && t.now[what] && len(t.now) == 1:
		t.ended = time.Now()
	}
	if is {
		t.now[what] = true
	} else {
		delete(t.now, what)
	}
}

// since reports whether there has been any from at on.
func (t *trouble) since(w *world, at time.Time) bool {
	return len(t.now) > 0 || t.held || !t.ended.IsZero() && !t.ended.Add(tail).Before(at)
}

// steady reports whether there is one, all the time for as long as d.
func (t *trouble) steady(w *world, what string, d time.Duration) bool {
	return t.now[what] && time.Since(t.began) > d
}

func (t *trouble) locked(w *world) { t.held = t.held || t.since(w, time.Now()) }

func (t *trouble) unlocked(w *world) {
	if t.held {
		t.held, t.ended = false, time.Now()
	}
}

// inTime holds an answer against what its caller said that it would wait.
func (w *world) inTime(a answer, wait time.Duration) {
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

// tookToken holds a token that was handed out against everything that must be true
// of it.
func (w *world) tookToken(profile string, a answer, token string) {
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
	case !t.login.served(a.start, a.end):
		w.violated("a login that has ended is not served", "%s was given one of %s", profile, t.login.title())
	}
	if over := a.true.Add(a.end.Sub(a.start)).Sub(t.expiry); over > 0 {
		w.violated("an expired token is never served", "%s was given one %v after its end", profile, over)
	}
	if w.lockedDuring(a) {
		w.violated("no token while locked", "%s was given one", profile)
	}
	var g ipc.TokenAnswer
	if json.Unmarshal(a.body, &g) == nil && g.Generation != 0 {
		w.rises(profile, a, g.Generation)
	}
}

// rises: the numbers of tokens only rise, for those who ask one after the other.
func (w *world) rises(profile string, a answer, number uint64) {
	i := a.from
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.served[profile]
	if !before.at.IsZero() && a.start.After(before.at) && number < before.number {
		w.violated("numbers of tokens only rise", "%s: %d after %d", profile, number, before.number)
	}
	if number >= before.number {
		i.served[profile] = generation{a.end, number}
	}
}

// lockedDuring reports whether the agent was locked, by its own word, for the whole
// of a request.
func (w *world) lockedDuring(a answer) bool {
	var last *door
	for _, d := range w.doors {
		if d.lock && d.ok && d.end.Before(a.start) {
			last = d
		}
	}
	if last == nil {
		return false
	}
	for _, d := range w.doors {
		over := d.end
		if over.IsZero() {
			over = a.end
		}
		if !d.lock && over.After(last.start) && d.start.Before(a.end) {
			return false
		}
	}
	return true
}

// mustBeQuick reports whether the token that s asks for is in memory, by all that
// callers have seen.
func (w *world) mustBeQuick(s step) bool {
	i, p := w.running(), w.person(s.profile)
	if i == nil || p.now == nil || !p.sure || p.ops > 0 || s.has("cancel") || s.span("ttl", 0) > 0 || w.clocks.wereSet() {
		return false
	}
	i.mu.Lock()
	seen := i.served[s.profile].at
	i.mu.Unlock()
	for _, d := range w.doors {
		if d.end.IsZero() || !d.end.Before(seen) {
			return false
		}
	}
	return !seen.IsZero() && p.changed.Before(seen) && p.now.fresh.Sub(w.clocks.true()) > 10*time.Second
}

// check holds a request that has come to the endpoint against what must be true of
// it: the refresh token used is not one that the daemon knows to be spent, it comes
// alone, and not when its successor could not be saved.
func (e *endpoint) check(r *http.Request, c *wire, l *login, used *refreshToken) {
	from := c.from
	if used == nil || from.dead() {
		return
	}
	now := time.Now()
	e.w.model.Lock()
	defer e.w.model.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	for other, of := range e.flying {
		if of == l && other.Context().Err() == nil {
			e.w.violated("one exchange at a time", "two of %s", l.title())
		}
	}
	e.flying[r] = l
	if next := used.next; next != nil && !used.revoked && l == l.profile.now {
		switch {
		case next.reached == from && l.spent == "":
			e.w.violated("a spent refresh token is not used again", "%s: by the daemon that has its successor", l.title())
		case next.reached != nil && l.spent == "" && l.profile.sure:
			e.w.violated("a spent refresh token is not used again", "%s: its successor was read %v ago and saved", l.title(), now.Sub(next.at))
		}
	}
	if moved := from.moved; !moved.IsZero() && c.began.Sub(moved) > time.Second {
		e.w.violated("nothing is spent beside the state directory", "%s was, %v after it was replaced", l.title(), c.began.Sub(moved))
	}
	unsaved := l.store == "file" && (e.w.diskIs == "readonly" || e.w.diskIs == "full") && e.w.trouble.steady(e.w, "disk", 5*time.Second)
	if left := l.fresh.Sub(e.w.clocks.true()); unsaved && l.freshIn == from && !e.w.clocks.wereSet() && l.knownToRotate(e.w) && left > 5*time.Minute+10*time.Second && l.profile.sure {
		e.w.violated("nothing is spent whose successor cannot be saved", "%s was, with %v left of its access token", l.title(), left)
	}
	e.arrivals(from, l, now)
}

// knownToRotate reports whether the daemon has seen l rotate, and has it on record.
func (l *login) knownToRotate(w *world) bool {
	return !l.rotates.IsZero() && w.trouble.began.Sub(l.rotates) > 5*time.Second && l.rotates.Sub(w.trouble.ended) > tail
}

// arrivals are at most a dozen in ten seconds, of one login and daemon.
func (e *endpoint) arrivals(from *instance, l *login, now time.Time) {
	key := fmt.Sprint(from.number, " ", l.title())
	list := append(e.times[key], now)
	for len(list) > 0 && now.Sub(list[0]) > 10*time.Second {
		list = list[1:]
	}
	e.times[key] = list
	if len(list) > 12 {
		e.w.violated("attempts keep their distance", "%d of %s in 10 s", len(list), l.title())
	}
}

// judge looks, when a daemon has ended, at what it has left: of each login the
// endpoint must take the refresh token that is stored, or it must be plain why not.
func (w *world) judge(i *instance, how string) {
	now := time.Now()
	w.mustHoldNoSecret("the log", i.log.String())
	records, readable := w.records()
	for _, p := range w.people() {
		p.memoryIsGone()
		if !i.moved.IsZero() { // what it said of its own directory is not true of this one
			p.anyMayBeInForce()
		}
		l := p.now
		for _, other := range p.logins {
			if other.refused {
				other.refused, other.until = false, time.Time{}
				p.sure = false
			}
		}
		if !p.sure || p.ops > 0 {
			p.anyMayBeInForce()
			continue
		}
		if l == nil || l.gone != "" {
			continue
		}
		r, recorded := records[p.name]
		recent := w.trouble.since(w, l.from) || how == "without power" && now.Sub(l.newestAt()) < time.Second
		switch {
		case !readable:
			continue
		case l.store == "memory", r.Store == "memory":
			l.gone = how
			if r.Store != "memory" && recent { // its record was not written
				p.anyMayBeInForce()
			}
			continue
		case !recorded || r.Store == "":
			l.lost(w, how, recent, "its record is lost")
			continue
		}
		stored := w.stored(r)
		switch {
		case stored == nil:
			l.lost(w, how, recent, "its item is lost from the "+r.Store)
		case stored.login != l:
			l.lost(w, how, recent, "the item is of "+stored.login.title())
		case stored.expired(w, w.clocks.true()):
			l.spent = "expired"
		default:
			l.fate(w, how, stored, now)
		}
	}
}

func (l *login) lost(w *world, how string, excused bool, what string) {
	l.gone = how
	l.profile.anyMayBeInForce() // one before it, that is
	if !excused {
		w.violated("a login is never lost", "%s, when the daemon was %s: %s", l.title(), how, what)
	}
}

// fate says whether the refresh token that is stored may be a dead one.
func (l *login) fate(w *world, how string, stored *refreshToken, now time.Time) {
	next := stored.next
	switch {
	case stored.revoked:
		l.spent = "revoked"
		return
	case stored.rotated.IsZero():
		l.spent = "" // whatever was feared
		return
	case l.spent != "":
		return
	}
	l.spent = how
	switch {
	case next == nil || next.reached == nil: // the reply was lost, or on its way
	case w.trouble.since(w, next.at):
	case how != "stopped" && now.Sub(next.at) < time.Second:
	default:
		w.violated("a login is never lost", "%s, when the daemon was %s: it was given another refresh token %v before, which is not stored", l.title(), how, now.Sub(next.at))
	}
}

func (l *login) newestAt() time.Time {
	at := l.from
	for _, t := range l.tokens {
		if t.at.After(at) {
			at = t.at
		}
		if t.rotated.After(at) {
			at = t.rotated
		}
	}
	return at
}

// A record is what profiles.json says of a login, as far as it matters here.
type record struct {
	Name, ID, Store string
	Leftovers       []string
}

// records reads profiles.json by itself, and says whether it could.
func (w *world) records() (map[string]record, bool) {
	all := map[string]record{}
	data, err := w.volume.read("/state/profiles.json")
	if err != nil {
		return all, strings.Contains(err.Error(), "no such file")
	}
	var wire struct{ Profiles []record }
	if err := json.Unmarshal(data, &wire); err != nil {
		return all, false
	}
	for _, r := range wire.Profiles {
		all[r.Name] = r
	}
	return all, true
}

// stored is the refresh token that the store of r holds, or nil.
func (w *world) stored(r record) *refreshToken {
	var b []byte
	switch r.Store {
	case "keyring":
		b = w.keyring.item(r.ID)
	case "file":
		b = w.opened("/state/" + r.ID + ".age")
	}
	t := w.tokenIn(b)
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	return w.api.refresh[claims(t).ID]
}
